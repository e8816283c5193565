"""Processes without systemd: started detached, known by pid and start time, signalled only when both still match.

Every process carries an environment variable that names its component and its checkout. It is inherited by what they
start (containerd's shims, socat's children), so that all of ours can be found even when every record is lost, and
nothing else can be mistaken for ours.
"""

import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localcluster import waiting
from localcluster.errors import LocalClusterError

MARKER = "RUNWAY_LOCALCLUSTER"

# A log that had grown beyond this is set aside when its component starts again; one earlier log is kept.
LARGEST_LOG_BYTES = 32 * 1024 * 1024

# What this very Python process spawned and has not yet waited for.
_children: set[int] = set()


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this boot: a pid can be given to another process, the pair cannot."""

    pid: int
    # Clock ticks after boot, field 22 of /proc/PID/stat (proc_pid_stat(5)).
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it still runs, or is stopped by SIGSTOP; a zombie has ended."""
        return find(self.pid) == self

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP holds it."""
        fields = _stat_fields(self.pid)
        return self.alive and fields is not None and fields[0] == "T"

    @property
    def started_at(self) -> float:
        """Seconds since the epoch, exact to a second or so."""
        boot = next(line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if "btime" in line)
        return int(boot.split()[1]) + self.start_ticks / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended. The pidfd pins the process, so no other can receive the signal."""
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
    """A process that carries our marker."""

    process: Process
    component: str
    checkout: str
    # Each component leads a session of its own; what it starts, such as containerd's shims, does not.
    is_component: bool


def spawn(argv: Sequence[str], *, log: Path, component: str, checkout: Path) -> Process:
    """Start `argv` in a session of its own, with output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.previous"))
    # No proxy or Kubernetes setting of the caller's shell may reach a component: Go's clients would honour it.
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    environment[MARKER] = f"{component}:{checkout}"
    # env(1) only changes the directory and becomes the command: a checkout can be removed while its cluster runs.
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
            # What the caller left open, such as the file of a lock: it would be held for as long as the component runs.
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
        ],
        setsid=True,
        # Python ignores SIGPIPE, and an ignored signal stays ignored across exec.
        setsigdef=[signal.SIGPIPE],
        setsigmask=[],
    )
    fields = _stat_fields(pid)
    # The child is ours and not yet waited for, so its entry exists even if it has ended already.
    assert fields is not None  # noqa: S101
    _children.add(pid)
    return Process(pid, int(fields[19]))


def _inheritable() -> list[int]:
    """Descriptors beyond the standard ones that a child would be given: all that this process was itself given."""
    found = []
    for name in (link.name for link in Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the descriptor that listed them is closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def find(pid: int) -> Process | None:
    """The process that has this pid now, or None when there is none or it has ended."""
    _reap(pid)
    fields = _stat_fields(pid)
    if fields is None or (fields[0] in "ZX" and _threads(pid) <= 1):
        return None
    return Process(pid, int(fields[19]))


def marked() -> list[Marked]:
    """Every process of this machine that a local cluster started, from whichever checkout."""
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
    """SIGTERM, up to `grace` seconds, SIGKILL; raises LocalClusterError should one survive even that for 10 s."""
    pending = [target for target in targets if target.alive]
    for target in pending:
        target.send(signal.SIGTERM)
        # A process held by SIGSTOP acts on SIGTERM only once it goes on.
        target.send(signal.SIGCONT)
    try:
        waiting.until(lambda: _why_not_ended(pending), what="SIGTERM", timeout=grace)
    except LocalClusterError:
        kill(pending)


def kill(targets: Iterable[Process]) -> None:
    """SIGKILL, and wait until they have ended."""
    pending = [target for target in targets if target.alive]
    for target in pending:
        target.send(signal.SIGKILL)
    waiting.until(lambda: _why_not_ended(pending), what="SIGKILL", timeout=10)


def _why_not_ended(targets: Iterable[Process]) -> str | None:
    alive = [str(target.pid) for target in targets if target.alive]
    return f"still there: {', '.join(alive)}" if alive else None


def _stat_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat after the command's name (which may hold spaces and parentheses): state first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _threads(pid: int) -> int:
    """A killed process shows its first thread as a zombie while others still hold its sockets and ports."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _reap(pid: int) -> None:
    """Let a child that `spawn` made and that has ended disappear; other children belong to whoever made them."""
    if pid in _children and os.waitpid(pid, os.WNOHANG) != (0, 0):
        _children.discard(pid)
