"""Diagnosis of a container's exit, from its exit code, reason and message. Pure.

Precedence, first match wins:

1. The kubelet or the runtime lost track of the container (ContainerStatusUnknown, Unknown): the exit code is unknown.
2. OOMKilled: the main process if SIGKILL ended it, otherwise a child.
3. The container never started (StartError and similar): by the runtime's message.
4. Exit code 0: no failure.
5. A signal, by the shell's 128 + n.
6. The shell's 127 and 126, and a program that the kernel cannot execute.
7. Any other exit code.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
https://tldp.org/LDP/abs/html/exitcodes.html
"""

from __future__ import annotations

import re
import signal
from datetime import datetime
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import Job, Terminated
from runway.text import bounded, last_lines, one_line, twice

# StartError is containerd's, ContainerCannotRun is Docker's. Both set an exit code of their own: 128, 127 or 126.
_NEVER_STARTED: Final = frozenset({"StartError", "ContainerCannotRun", "CreateContainerError", "RunContainerError"})
# For a container that does not exist the kubelet writes 137 and containerd writes 255; neither is a signal.
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

_SHELL_CODES: Final = {
    127: (
        FailureCode.COMMAND_NOT_FOUND,
        "the shell did not find the program, its interpreter or its loader (exit code 127)",
    ),
    126: (FailureCode.COMMAND_NOT_EXECUTABLE, "the shell could not execute the program (exit code 126)"),
}

# runc and crun name the program after `exec`; a missing working directory is not a missing program.
_NOT_FOUND: Final = re.compile(
    r"executable file (?:`[^`]*` )?not found|exec: \"[^\"]*\": stat \S+: no such file or directory"
)
# Without `stat` the file exists: https://man7.org/linux/man-pages/man2/execve.2.html (ENOENT).
_NO_INTERPRETER: Final = re.compile(r"exec: \"[^\"]*\": no such file or directory")
_NOT_EXECUTABLE: Final = re.compile(r"exec: \"[^\"]*\": (?:permission denied|is a directory)|exec format error")
_TOO_LITTLE_MEMORY: Final = re.compile(
    r"OOM-killed|memory limit too low|memory limit could be too low|unable to set memory limit"
)
_NODE_AT_FAULT: Final = re.compile(
    r"nvidia-container|nvml|libcuda|context deadline exceeded|no space left on device|cannot allocate memory"
    r"|resource temporarily unavailable|too many open files|unable to apply cgroup configuration",
    re.IGNORECASE,
)
_START_ERRORS: Final = (
    (_NOT_FOUND, FailureCode.COMMAND_NOT_FOUND, "the image has no such program"),
    (_NO_INTERPRETER, FailureCode.COMMAND_NOT_FOUND, "the image lacks the program, its interpreter or its loader"),
    (_NOT_EXECUTABLE, FailureCode.COMMAND_NOT_EXECUTABLE, "the program is not executable"),
    (_NODE_AT_FAULT, FailureCode.RUNTIME_FAILED, "the node failed to set up the container"),
)
_BEFORE: Final = "unable to start container process: "
# runc writes this into the container's own log if the kernel rejects the program after the container started.
_EXEC_FORMAT: Final = re.compile(r"^(?:standard_init_linux\.go:\d+: )?exec\b.*\bexec format error\"?$", re.MULTILINE)


def memory_limit(job: Job) -> str | None:
    """Return the memory limit of the job's container; None if the specification is unreadable."""
    spec = spec_of(job)
    return spec.resources.memory if spec else None


def signal_of(ended: Terminated) -> str | None:
    """Return the name of the signal that killed the container, if its exit code follows the shell's 128 + n."""
    number = ended.signal or (ended.exit_code - 128 if 128 < ended.exit_code <= 192 else 0)
    if ended.reason in _NEVER_STARTED | _LOST or number not in set(signal.Signals):
        return None
    return signal.Signals(number).name


def started_at(ended: Terminated) -> datetime | None:
    """Return when the container started; None if it never did.

    The kubelet writes 1970 for a container that never started: https://github.com/kubernetes/kubernetes/issues/120331
    """
    started = ended.started_at
    return started if started is not None and started.year > 1970 and ended.reason not in _NEVER_STARTED else None


def failed_to_start(ended: Terminated) -> bool:
    """Return whether the runtime did not start the container, so that it has no log."""
    return ended.reason in _NEVER_STARTED


def was_never_created(ended: Terminated) -> bool:
    """Return whether the kubelet invented this exit because the pod was deleted before its container existed."""
    return ended.reason in _LOST and started_at(ended) is None


def diagnose_exit(ended: Terminated, limit: str | None) -> Diagnosis | None:
    """Diagnose the exit of a container without its pod; None for a success. `limit` is its memory limit."""
    evidence = _evidence(ended)
    if ended.reason in _LOST:
        words = one_line(ended.message) or "the container runtime does not know it"
        return Diagnosis(FailureCode.CONTAINER_LOST, f"the node lost track of the container: {words}", evidence)
    if ended.reason == "OOMKilled":
        return _diagnose_out_of_memory(ended, limit)
    if ended.reason in _NEVER_STARTED:
        return diagnose_start_error(ended.message or ended.reason or "", evidence, limit)
    if ended.exit_code == 0:
        return None
    name = signal_of(ended)
    if name is None:
        return _diagnose_exit_code(ended)
    message = f"the process was killed by {name} (exit code {ended.exit_code})"
    if name == "SIGKILL":
        message += "; the kernel did not report an exceeded memory limit"
    return Diagnosis(_SIGNALS.get(name, FailureCode.KILLED_BY_SIGNAL), message, {**evidence, "signal": name})


def diagnose_start_error(message: str, evidence: dict[str, str], limit: str | None) -> Diagnosis:
    """Diagnose the runtime's message about a container that it did not start. `limit` is its memory limit."""
    message = bounded(message)
    words = one_line(message.split(_BEFORE, 1)[-1].removesuffix(": unknown"))
    if _TOO_LITTLE_MEMORY.search(message):
        too_low = f"the {_name_limit(limit)} is too low to start the container: {words}"
        return _with_memory_hint(FailureCode.OOM_KILLED, too_low, evidence, limit)
    for pattern, code, meaning in _START_ERRORS:
        if pattern.search(message):
            return Diagnosis(code, f"{meaning}: {words}", evidence)
    return Diagnosis(FailureCode.START_FAILED, f"the container failed to start: {words}", evidence)


def _diagnose_out_of_memory(ended: Terminated, limit: str | None) -> Diagnosis:
    """Distinguish the main process from a child: https://github.com/kubernetes/kubernetes/issues/104454"""
    code, killed, then = FailureCode.OOM_KILLED, "the process", ""
    if signal_of(ended) != "SIGKILL":
        code, killed = FailureCode.OOM_CHILD_SUSPECTED, "a process of the container"
        then = f"; the main process then exited with code {ended.exit_code}"
    message = f"the kernel killed {killed} because it exceeded the {_name_limit(limit)}{then}"
    return _with_memory_hint(code, message, _evidence(ended), limit)


def _name_limit(limit: str | None) -> str:
    return f"memory limit of {limit}" if limit else "memory limit"


def _with_memory_hint(code: FailureCode, message: str, evidence: dict[str, str], limit: str | None) -> Diagnosis:
    if limit is None:
        return Diagnosis(code, message, evidence)
    uses = "the job's memory use, which includes /dev/shm (resources.shared_memory)"
    hint = f"raise resources.memory, for example to {twice(limit)}, or reduce {uses}"
    return Diagnosis(code, message, evidence | {"memory_limit": limit}, hint)


def _diagnose_exit_code(ended: Terminated) -> Diagnosis:
    code, evidence = ended.exit_code, _evidence(ended)
    if code in _SHELL_CODES:
        return Diagnosis(*_SHELL_CODES[code], evidence)
    if code in (1, 255) and (found := _EXEC_FORMAT.search(bounded(ended.termination_message or ""))):
        message = f"the program is not executable: {one_line(found.group())}"
        return Diagnosis(FailureCode.COMMAND_NOT_EXECUTABLE, message, evidence)
    hint, number = None, 256 - code
    if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        # Python's subprocess returns -9 for a child killed by SIGKILL, and sys.exit(-9) exits with 247.
        name = signal.Signals(number).name
        hint = f"read the log for a child process killed by {name}, because exit code {code} is -{number} modulo 256"
    return Diagnosis(FailureCode.EXIT_NONZERO, f"the process exited with code {code}", evidence, hint)


def _evidence(ended: Terminated) -> dict[str, str]:
    """Return the fields of the exit; the message is the end of the log, unless a runtime wrote it."""
    seen = {"exit_code": str(ended.exit_code), "container_reason": one_line(ended.reason)}
    if ended.reason in _NEVER_STARTED | _LOST:
        return seen | {"container_message": one_line(ended.message)}
    return seen | {"last_words": last_lines(ended.termination_message)} if ended.termination_message else seen
