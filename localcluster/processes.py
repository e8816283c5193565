"""Start, find and signal detached processes without systemd.

Pid and start time identify a process; a signal is sent only if both match. Each process has an environment variable
with its component and checkout. Its children (containerd's shims, socat's children) inherit the variable, so all of our
processes can be found without any record, and no other process matches.
"""

import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localcluster import waiting
from localcluster.addresses import SUFFIX
from localcluster.errors import LocalClusterError

MARKER = f"RUNWAY_LOCALCLUSTER{SUFFIX}"

# A larger log is renamed when its component restarts; only one earlier log is kept.
LARGEST_LOG_BYTES = 32 * 1024 * 1024

# Children of this Python process that it has not waited for.
_children: set[int] = set()


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this boot. The kernel can reuse a pid, but not a pid with the same start time."""

    pid: int
    # Clock ticks after boot, field 22 of /proc/PID/stat (proc_pid_stat(5)).
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it runs or is stopped by SIGSTOP; a zombie is not alive."""
        return find(self.pid) == self

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        fields = _stat_fields(self.pid)
        return self.alive and fields is not None and fields[0] == "T"

    @property
    def started_at(self) -> float:
        """The start time in seconds since the epoch, accurate to about a second."""
        boot = next(line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if "btime" in line)
        return int(boot.split()[1]) + self.start_ticks / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        """Send a signal unless it has exited. With a pidfd, no other process can receive the signal."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Marked:
    """A process with our marker."""

    process: Process
    component: str
    checkout: str
    # Each component is a session leader; its children, such as containerd's shims, are not.
    is_component: bool


def spawn(argv: Sequence[str], *, log: Path, component: str, checkout: Path) -> Process:
    """Start `argv` in a new session and append its output to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.previous"))
    # Go's clients would use proxy or Kubernetes settings of the caller's shell, so the environment is new.
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    environment[MARKER] = f"{component}:{checkout}"
    # env(1) changes the directory and then executes the command: a checkout can be removed while its cluster runs.
    command = ["/usr/bin/env", "--chdir=/", *argv]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            # An inherited descriptor, such as a lock file, would stay open as long as the component runs.
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
        ],
        setsid=True,
        # Python ignores SIGPIPE, and an ignored signal stays ignored across exec.
        setsigdef=[signal.SIGPIPE],
        setsigmask=[],
    )
    fields = _stat_fields(pid)
    # Nobody has waited for the child, so its entry exists even if it has exited.
    assert fields is not None  # noqa: S101
    _children.add(pid)
    return Process(pid, int(fields[19]))


def _inheritable() -> list[int]:
    """Return the inheritable descriptors above the standard ones."""
    found = []
    for name in (link.name for link in Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the descriptor of the listing is already closed
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def find(pid: int) -> Process | None:
    """Return the process with this pid, or None if there is none or it has exited."""
    _reap(pid)
    fields = _stat_fields(pid)
    if fields is None or (fields[0] in "ZX" and _threads(pid) <= 1):
        return None
    return Process(pid, int(fields[19]))


def marked() -> list[Marked]:
    """Return every process of a local cluster on this machine, from any checkout."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        process = find(int(entry.name))
        try:
            environment = (entry / "environ").read_bytes()
            is_component = os.getsid(int(entry.name)) == int(entry.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        for variable in environment.split(b"\0"):
            name, _, value = variable.decode(errors="replace").partition("=")
            if name == MARKER and process is not None:
                component, _, checkout = value.partition(":")
                found.append(Marked(process, component, checkout, is_component))
    return found


def stop(targets: Iterable[Process], *, grace: float = 10.0) -> None:
    """Send SIGTERM, and SIGKILL after `grace` seconds. Raises LocalClusterError if one survives another 10 s."""
    pending = [target for target in targets if target.alive]
    for target in pending:
        target.send(signal.SIGTERM)
        # A stopped process handles SIGTERM only after SIGCONT.
        target.send(signal.SIGCONT)
    try:
        waiting.until(lambda: _why_not_ended(pending), what="SIGTERM", timeout=grace)
    except LocalClusterError:
        kill(pending)


def kill(targets: Iterable[Process]) -> None:
    """Send SIGKILL and wait until the processes have exited."""
    pending = [target for target in targets if target.alive]
    for target in pending:
        target.send(signal.SIGKILL)
    waiting.until(lambda: _why_not_ended(pending), what="SIGKILL", timeout=10)


def _why_not_ended(targets: Iterable[Process]) -> str | None:
    alive = [str(target.pid) for target in targets if target.alive]
    return f"still running: {', '.join(alive)}" if alive else None


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command name, which may contain spaces; the state is first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _threads(pid: int) -> int:
    """Count the threads: a killed process is a zombie while other threads still hold its sockets and ports."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _reap(pid: int) -> None:
    """Reap an exited child of `spawn`; other children are not ours to reap."""
    if pid in _children and os.waitpid(pid, os.WNOHANG) != (0, 0):
        _children.discard(pid)
