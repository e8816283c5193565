"""The parent cgroup of all pods, which lists their processes reliably."""

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

from localcluster import addresses, processes, waiting

CPU_SHARES = 4096
"""As much CPU as four other processes (`cpu.shares` of one is 1024): the pods of a busy machine still get theirs."""


def is_v2() -> bool:
    """Whether this machine has only the unified hierarchy. https://docs.kernel.org/admin-guide/cgroup-v2.html"""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def ensure_parent() -> None:
    """Create our cgroup in every hierarchy: the kubelet requires its cgroupRoot and does not create it."""
    for root in _hierarchies():
        parent = root / addresses.CGROUP
        parent.mkdir(exist_ok=True)
        # A new cgroup v1 cpuset is empty, and no process may enter an empty one.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (parent / name).exists() and not is_v2() and not (parent / name).read_text().strip():
                (parent / name).write_text((root / name).read_text())
        if (parent / "cpu.shares").exists():
            (parent / "cpu.shares").write_text(str(CPU_SHARES))
        elif (parent / "cpu.weight").exists():
            (parent / "cpu.weight").write_text(str(CPU_SHARES * 100 // 1024))


def ours() -> list[Path]:
    """Return our existing cgroups, one per hierarchy."""
    return [root / addresses.CGROUP for root in _mounted() if (root / addresses.CGROUP).is_dir()]


def kill_processes() -> None:
    """Send SIGKILL to all processes in our cgroup: the pods' processes and their descendants."""

    def remaining() -> str | None:
        pids = {pid for parent in ours() for group in _bottom_up(parent) for pid in _pids(group)}
        alive = [process for pid in pids if (process := processes.find(pid)) is not None]
        for process in alive:
            process.send(signal.SIGKILL)
        return f"still running: {[process.pid for process in alive]}" if alive else None

    for frozen in (state for parent in ours() for state in parent.rglob("freezer.state")):
        # A killed runc can leave its container frozen, and a frozen process does not exit on SIGKILL.
        frozen.write_text("THAWED")
    waiting.until(remaining, what="exit of the pods' processes after SIGKILL", timeout=20)


def remove(*, keep_parent: bool = False) -> None:
    """Remove our cgroup, or only its children. Its processes must have exited."""
    for parent in ours():
        for group in _bottom_up(parent):
            if group != parent or not keep_parent:
                waiting.until(lambda group=group: _why_not_removed(group), what=f"remove {group}", timeout=10)  # type: ignore[misc]


def _why_not_removed(group: Path) -> str | None:
    try:
        group.rmdir()
    except FileNotFoundError:
        return None
    except OSError as error:
        # The kernel releases a cgroup a moment after its last process has exited.
        if error.errno != errno.EBUSY:
            raise
        return str(error)
    return None


def _bottom_up(group: Path) -> Iterator[Path]:
    for child in sorted(path for path in group.iterdir() if path.is_dir()):
        yield from _bottom_up(child)
    yield group


def _pids(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


def _hierarchies() -> list[Path]:
    """Return the mount points with pod cgroups: all of v1, or the only one of v2."""
    return [Path("/sys/fs/cgroup")] if is_v2() else _mounted("cgroup")


def _mounted(*types: str) -> list[Path]:
    wanted = types or ("cgroup", "cgroup2")
    mounts = (line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines())
    return [Path(mount[1]) for mount in mounts if mount[2] in wanted]
