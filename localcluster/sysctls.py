"""Save the sysctls that the cluster changes, and restore them on `down`."""

from pathlib import Path

from localcluster import files, paths

FORWARDING = "net/ipv4/ip_forward"
ADDRESS_MODE = "net/ipv6/conf/default/addr_gen_mode"
NO_ADDRESS = "1"
"""https://docs.kernel.org/networking/ip-sysctl.html"""

# The kubelet sets the first six (setupKernelTunables in pkg/kubelet/cm/container_manager_linux.go): reboot on an oops,
# allow memory overcommit. The bridge plugin enables forwarding.
NAMES = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    FORWARDING,
    ADDRESS_MODE,
)


def remember() -> None:
    """Save the current values, except those that were saved before the cluster's first start."""
    current = {name: _path(name).read_text().strip() for name in NAMES if _path(name).exists()}
    files.write_json(paths.SYSCTL_FILE, current | (files.read_json(paths.SYSCTL_FILE) or {}))


def keep_addresses() -> None:
    """Give no address to interfaces of new pods on the machine's side.

    With a link-local one, each pod would add and remove an address of the machine. Browsers fail their connections when
    an address changes (ERR_NETWORK_CHANGED in Chromium).
    """
    if _path(ADDRESS_MODE).exists():
        _path(ADDRESS_MODE).write_text(NO_ADDRESS)


def restore() -> None:
    """Restore the saved values, if any. Our bridge must not exist."""
    for name, value in (files.read_json(paths.SYSCTL_FILE) or {}).items():
        if name == FORWARDING and any(Path("/sys/class/net").glob("*/bridge")):
            # Another bridge, such as Docker's or libvirt's, needs forwarding; it may be newer than the saved values.
            continue
        if _path(name).read_text().strip() != value:
            _path(name).write_text(value)


def _path(name: str) -> Path:
    return Path("/proc/sys") / name
