"""Save the sysctls that the components change, and restore them on `down`."""

from pathlib import Path

from localcluster import files, paths

FORWARDING = "net/ipv4/ip_forward"

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
)


def remember() -> None:
    """Save the current values, unless values from before the cluster's first start are saved."""
    if files.read_json(paths.SYSCTL_FILE) is None:
        files.write_json(paths.SYSCTL_FILE, {name: _path(name).read_text().strip() for name in NAMES})


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
