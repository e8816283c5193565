"""Kernel settings of the whole machine that the components change: remembered before, put back by `down`."""

from pathlib import Path

from localcluster import files, paths

FORWARDING = "net/ipv4/ip_forward"

# The kubelet sets the first six (setupKernelTunables in pkg/kubelet/cm/container_manager_linux.go), so that an oops
# reboots a node and memory can be overcommitted; the bridge plugin turns forwarding on.
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
    """Keep the present values, unless those from before the cluster's first start are kept already."""
    if files.read_json(paths.SYSCTL_FILE) is None:
        files.write_json(paths.SYSCTL_FILE, {name: _path(name).read_text().strip() for name in NAMES})


def restore() -> None:
    """Put back the remembered values, if any are remembered. Our bridge must be gone."""
    for name, value in (files.read_json(paths.SYSCTL_FILE) or {}).items():
        if name == FORWARDING and any(Path("/sys/class/net").glob("*/bridge")):
            # Another bridge, Docker's or libvirt's, relies on forwarding; it may be younger than what we remember.
            continue
        if _path(name).read_text().strip() != value:
            _path(name).write_text(value)


def _path(name: str) -> Path:
    return Path("/proc/sys") / name
