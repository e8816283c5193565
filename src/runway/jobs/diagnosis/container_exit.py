"""How a container ended: what its exit code, its reason and the runtime's message mean. Pure.

Precedence, first match wins:

1. The kubelet or the runtime lost track of it (ContainerStatusUnknown, Unknown): the exit code says nothing.
2. The kernel killed for memory (OOMKilled): the main process where it ended with SIGKILL, otherwise a child.
3. It never started (StartError and its like): by the runtime's message.
4. Exit code 0: nothing is wrong.
5. A signal, by the shell's 128 + n.
6. The shell's 127 and 126; a program that the kernel cannot run.
7. Any other exit code.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
https://tldp.org/LDP/abs/html/exitcodes.html
"""

from __future__ import annotations

import re
import signal
from datetime import datetime
from typing import Final

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import Terminated
from runway.text import bounded, last_lines, one_line, twice

# StartError is containerd's, ContainerCannotRun is Docker's: both write exit code 128, 127 or 126 of their own.
_NEVER_STARTED: Final = frozenset({"StartError", "ContainerCannotRun", "CreateContainerError", "RunContainerError"})
# The kubelet writes 137 and containerd 255 for a container that it cannot find: no signal was seen.
_LOST: Final = frozenset({"ContainerStatusUnknown", "Unknown"})

_SIGNALS: Final = {
    "SIGKILL": FailureCode.SIGKILL_UNEXPLAINED,
    "SIGTERM": FailureCode.TERMINATED,
    "SIGSEGV": FailureCode.SEGMENTATION_FAULT,
    "SIGABRT": FailureCode.ABORTED,
    "SIGILL": FailureCode.ILLEGAL_INSTRUCTION,
    "SIGFPE": FailureCode.FLOATING_POINT_EXCEPTION,
    "SIGBUS": FailureCode.BUS_ERROR,
}

# runc and crun say what they could not run after `exec`; a missing working directory is not a missing program.
_NOT_FOUND: Final = re.compile(
    r"executable file (?:`[^`]*` )?not found|exec: \"[^\"]*\": (?:stat \S+: )?no such file or directory"
)
_NOT_EXECUTABLE: Final = re.compile(r"exec: \"[^\"]*\": (?:permission denied|is a directory)|exec format error")
_TOO_LITTLE_MEMORY: Final = re.compile(
    r"OOM-killed|memory limit too low|memory limit could be too low|unable to set memory limit"
)
_NODE_AT_FAULT: Final = re.compile(
    r"nvidia-container|nvml|libcuda|context deadline exceeded|no space left on device|cannot allocate memory"
    r"|resource temporarily unavailable|too many open files|unable to apply cgroup configuration",
    re.IGNORECASE,
)
_BEFORE: Final = "unable to start container process: "
# What runc writes into the container's own log where the kernel refuses the program only after the container started.
_EXEC_FORMAT: Final = re.compile(r"^(?:standard_init_linux\.go:\d+: )?exec\b.*\bexec format error\"?$", re.MULTILINE)


def signal_of(ended: Terminated) -> str | None:
    """The name of the signal that ended a container, where its exit code follows the shell's 128 + n."""
    number = ended.signal or (ended.exit_code - 128 if 128 < ended.exit_code <= 192 else 0)
    if ended.reason in _NEVER_STARTED | _LOST or number not in set(signal.Signals):
        return None
    return signal.Signals(number).name


def started_at(ended: Terminated) -> datetime | None:
    """When the container started; None where it never did.

    For a container that never started the kubelet writes 1970: https://github.com/kubernetes/kubernetes/issues/120331
    """
    started = ended.started_at
    return started if started is not None and started.year > 1970 and ended.reason not in _NEVER_STARTED else None


def never_seen(ended: Terminated) -> bool:
    """Whether this is the end that the kubelet makes up for a container that did not exist when its pod was deleted."""
    return ended.reason in _LOST and started_at(ended) is None


def diagnose_exit(ended: Terminated, limit: str | None) -> Diagnosis | None:
    """What the end of a container means, without its pod; None for a good one. `limit` is its memory limit."""
    if ended.reason in _LOST:
        return Diagnosis(
            FailureCode.CONTAINER_LOST,
            f"the node lost track of the container: {one_line(ended.message) or 'its runtime no longer knew it'}",
            _evidence(ended),
        )
    if ended.reason == "OOMKilled":
        return _out_of_memory(ended, limit)
    if ended.reason in _NEVER_STARTED:
        return not_started(ended.message or ended.reason or "", _evidence(ended), limit)
    if ended.exit_code == 0:
        return None
    name = signal_of(ended)
    return _exit(ended) if name is None else _signal(name, ended)


def not_started(message: str, evidence: dict[str, str], limit: str | None) -> Diagnosis:
    """What the runtime's refusal to start a container means. `limit` is its memory limit."""
    message = bounded(message)
    words = one_line(message.split(_BEFORE, 1)[-1].removesuffix(": unknown"))
    if _TOO_LITTLE_MEMORY.search(message):
        return _of_memory(
            FailureCode.OOM_KILLED, f"the memory limit is too low to even start: {words}", evidence, limit
        )
    if _NOT_FOUND.search(message):
        return Diagnosis(FailureCode.COMMAND_NOT_FOUND, f"there is no such program in the image: {words}", evidence)
    if _NOT_EXECUTABLE.search(message):
        return Diagnosis(FailureCode.COMMAND_NOT_EXECUTABLE, f"the program cannot be run: {words}", evidence)
    if _NODE_AT_FAULT.search(message):
        return Diagnosis(FailureCode.RUNTIME_FAILED, f"the node could not set the container up: {words}", evidence)
    return Diagnosis(FailureCode.START_FAILED, f"the container could not be started: {words}", evidence)


def _out_of_memory(ended: Terminated, limit: str | None) -> Diagnosis:
    """The runtime says OOMKilled once any process of the container was killed, whatever the main process did later.

    https://github.com/kubernetes/kubernetes/issues/104454
    """
    of_what = f"the memory limit of {limit}" if limit else "the memory limit"
    if signal_of(ended) == "SIGKILL":
        message = f"the kernel killed the process: it needed more than {of_what}"
        return _of_memory(FailureCode.OOM_KILLED, message, _evidence(ended), limit)
    message = (
        f"the main process ended with exit code {ended.exit_code}; before that the kernel had killed a process of the "
        f"container, which needed more than {of_what}"
    )
    return _of_memory(FailureCode.OOM_CHILD_SUSPECTED, message, _evidence(ended), limit)


def _of_memory(code: FailureCode, message: str, evidence: dict[str, str], limit: str | None) -> Diagnosis:
    """With twice the limit as what to try next."""
    if limit is None:
        return Diagnosis(code, message, evidence)
    hint = f"raise resources.memory, for instance to {twice(limit)}, or make the job use less"
    return Diagnosis(code, message, evidence | {"memory_limit": limit}, hint)


def _signal(name: str, ended: Terminated) -> Diagnosis:
    code = _SIGNALS.get(name, FailureCode.KILLED_BY_SIGNAL)
    message = f"the process was ended by {name} (exit code {ended.exit_code})"
    if code is FailureCode.SIGKILL_UNEXPLAINED:
        message += "; the kernel did not report its memory limit as the cause"
    return Diagnosis(code, message, {**_evidence(ended), "signal": name})


def _exit(ended: Terminated) -> Diagnosis:
    code, evidence = ended.exit_code, _evidence(ended)
    if code == 127:
        message = "exit code 127: a shell did not find the program"
        return Diagnosis(FailureCode.COMMAND_NOT_FOUND, message, evidence)
    if code == 126:
        message = "exit code 126: a shell found the program but could not run it"
        return Diagnosis(FailureCode.COMMAND_NOT_EXECUTABLE, message, evidence)
    if code in (1, 255) and (told := _EXEC_FORMAT.search(bounded(ended.termination_message or ""))):
        message = f"the program cannot be run: {one_line(told.group())}"
        return Diagnosis(FailureCode.COMMAND_NOT_EXECUTABLE, message, evidence)
    message = f"the process ended with exit code {code}"
    passed_on = 256 - code
    if passed_on in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        # Python's subprocess gives -9 for a child that SIGKILL ended, and sys.exit(-9) makes 247 of it.
        name = signal.Signals(passed_on).name
        hint = f"exit code {code} is how -{passed_on} looks: {name} may have ended a child process; read the log"
        return Diagnosis(FailureCode.EXIT_NONZERO, message, evidence, hint)
    return Diagnosis(FailureCode.EXIT_NONZERO, message, evidence)


def _evidence(ended: Terminated) -> dict[str, str]:
    """The fields of the container's end; the message is the end of the log, unless a runtime wrote it."""
    seen = {"exit_code": str(ended.exit_code), "container_reason": one_line(ended.reason)}
    if ended.reason in _NEVER_STARTED | _LOST:
        return seen | {"container_message": one_line(ended.message)}
    return seen | {"last_words": last_lines(ended.termination_message)} if ended.termination_message else seen
