"""Hints from the last lines of the log of a failed process. Pure.

A hint never changes the code, the category or whether a failure is retryable: those follow from what Kubernetes and
Linux report. It adds to `failure.hint`, and to the evidence as `log_hint` (the name of the pattern) and `log_line`.

1. Only the last `MAX_LINES` lines of the excerpt count, which is bounded, redacted and escaped.
2. The last line that matches a pattern of `_CAUSES` decides. In one line the first pattern of the table decides.
3. `_EFFECTS` are messages that another error usually causes. They count only if no line has a cause.

Patterns are plain lower-case phrases, so the time is linear in the length of the excerpt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from runway.jobs.diagnosis.codes import Category
from runway.jobs.models import Failure
from runway.text import one_line

MAX_LINES: Final = 40
MAX_QUOTED: Final = 300
"""Characters of the line in the evidence."""


@dataclass(frozen=True, slots=True)
class LogPattern:
    """A known error message: a line with one of `phrases`, or with all phrases of one of `together`.

    `meaning` and `advice` are the hint. A line with a phrase of `unless` means something else.
    """

    name: str
    meaning: str
    advice: str
    phrases: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()
    unless: tuple[str, ...] = ()

    def may_match(self, text: str) -> bool:
        """Return whether this lower-case text has the phrases of the message."""
        return any(phrase in text for phrase in self.phrases) or any(
            all(phrase in text for phrase in phrases) for phrases in self.together
        )

    def matches(self, line: str) -> bool:
        """Return whether this lower-case line has the message."""
        return self.may_match(line) and not any(phrase in line for phrase in self.unless)


_SHM: Final = "/dev/shm"  # noqa: S108 (a phrase in a log)
_CAUSES: Final = (
    LogPattern(
        "shared_memory",
        "that shared memory is full",
        "raise resources.shared_memory, or use fewer data loader workers",
        ("insufficient shared memory", "out of shared memory", "unable to allocate shared memory", "signal: bus error"),
        (
            (_SHM, "no space left on device"),
            (_SHM, "failed to extend"),
            (_SHM, "error while creating"),
            ("shared memory object", "no space left on device"),
        ),
    ),
    LogPattern(
        "cuda_driver",
        "that the node's GPU driver is older than the image's CUDA version",
        "use an image with an older CUDA version, or ask the platform operators for a newer driver",
        (
            "cuda driver version is insufficient",
            "nvidia driver on your system is too old",
            "forward compatibility was attempted on non supported hw",
            "system_driver_mismatch",
        ),
    ),
    LogPattern(
        "cuda_no_device",
        "that the process found no GPU",
        "set resources.gpu, leave CUDA_VISIBLE_DEVICES unset, and use an image with CUDA",
        (
            "no cuda-capable device",
            "no cuda gpus are available",
            "found no nvidia driver on your system",
            "torch not compiled with cuda enabled",
            "cuda_error_no_device",
            "torch.cuda.is_available() is false",
            "invalid device ordinal",
        ),
        (("libcuda.so", "cannot open shared object file"),),
    ),
    LogPattern(
        "cuda_architecture",
        "that the image has no GPU code for this GPU type",
        "use a build for this GPU's compute capability, or another resources.gpu_type",
        ("no kernel image is available for execution", "is not compatible with the current pytorch installation"),
    ),
    LogPattern(
        "cuda_out_of_memory",
        "that the GPU's own memory is full, which resources.memory does not change",
        "use a smaller batch or model, or a resources.gpu_type with more memory",
        (
            "cuda out of memory",
            "cuda error: out of memory",
            "cuda_error_out_of_memory",
            "cudaerrormemoryallocation",
            "cublas_status_alloc_failed",
            "oom when allocating tensor",
            "resource_exhausted: out of memory",
        ),
    ),
    LogPattern(
        "interpreter",
        "that the interpreter or loader of a program is not usable",
        "give scripts LF line endings and a #! line with an interpreter of the image, and build binaries for the "
        "architecture of the nodes and the C library of the image",
        (
            "bad interpreter",
            "cannot execute: required file not found",
            "exec format error",
            "cannot execute binary file",
            "$'\\r': command not found",
        ),
        (("exec /", ": no such file or directory"), ("env:", "\\r")),
    ),
    LogPattern(
        "unknown_user",
        "that the image has no user name for the uid of the job",
        "set USER and LOGNAME in env, or add the uid to /etc/passwd in the image",
        (
            "uid not found",
            "no username set in the environment",
            "cannot find name for user id",
            "no user exists for uid",
            "unknown userid",
        ),
    ),
    LogPattern(
        "missing_module",
        "that a Python module is missing",
        "install it in the image, and check PYTHONPATH and the working directory",
        ("no module named",),
    ),
    LogPattern(
        "missing_library",
        "that a shared library is missing or has another version",
        "install the library in the image, or build the program on the same base image",
        ("cannot open shared object file",),
        (("version `glibc", "not found"),),
    ),
    LogPattern(
        "missing_compiler",
        "that a compiler is missing, which torch.compile and extensions need",
        "install gcc and g++ in the image, or do without compilation",
        (
            "no working c++ compiler found",
            "failed to find c compiler",
            "gcc: command not found",
            "g++: command not found",
            "gcc: not found",
            "g++: not found",
            "no such file or directory: 'gcc'",
            "no such file or directory: 'g++'",
            "command 'gcc' failed: no such file",
            "command 'g++' failed: no such file",
        ),
    ),
    LogPattern(
        "disk_full",
        "that a disk is full",
        "raise resources.disk and write to /scratch, or write less",
        ("no space left on device", "disk quota exceeded"),
    ),
    LogPattern(
        "permission_denied",
        "that the process has no permission for a file or directory",
        "write to /scratch, /tmp or a writable volume, for example through HOME and working_dir",
        ("permission denied", "read-only file system", "operation not permitted"),
        unless=("publickey",),  # SSH refuses the key, whatever the files' modes.
    ),
    LogPattern(
        "tls_failure",
        "that a TLS certificate was not accepted",
        "add the certificate authority to the image, and point SSL_CERT_FILE and REQUESTS_CA_BUNDLE to it",
        (
            "certificate_verify_failed",
            "certificate verify failed",
            "x509: certificate",
            "ssl certificate problem",
            "pkix path building failed",
            "certificate has expired",
        ),
    ),
    LogPattern(
        "dns_failure",
        "that a host name was not resolved",
        "check the host name, and ask the platform operators whether the tenant's network reaches it",
        (
            "name resolution",
            "name or service not known",
            "could not resolve host",
            "unable to resolve host",
            "temporary failure resolving",
            "getaddrinfo",
            "no such host",
        ),
    ),
)
_EFFECTS: Final = (
    LogPattern(
        "nccl",
        "that NCCL, which connects the GPUs, failed",
        "set NCCL_DEBUG=INFO in env, read the first NCCL warning, and check resources.shared_memory",
        (
            "nccl warn",
            "nccl error",
            "ncclsystemerror",
            "ncclunhandledcudaerror",
            "ncclinternalerror",
            "ncclremoteerror",
            "ncclinvalidusage",
            "watchdog caught collective operation timeout",
        ),
    ),
    LogPattern(
        "unwritable_cache",
        "that a cache directory is not writable",
        "set HOME, or the variable that the message names, to a directory below /scratch or /tmp",
        ("not a writable directory", "problem when trying to write in your cache folder"),
    ),
)
PATTERNS: Final = (*_CAUSES, *_EFFECTS)


def find_pattern(text: str) -> tuple[LogPattern, str] | None:
    """Return the pattern that explains the end of this log, and its line; None if no pattern does."""
    lines = text.splitlines()[-MAX_LINES:]
    return _last_match(_CAUSES, lines) or _last_match(_EFFECTS, lines)


def with_log_hint(failure: Failure, log: str) -> Failure:
    """Add the hint from the end of this log to the failure of a process.

    Failures that are not the user's keep their hint: their process did not end for a reason of its own.
    """
    found = find_pattern(log) if failure.category == Category.USER else None
    if found is None:
        return failure
    pattern, line = found
    hint = f"{failure.hint}; the log says {pattern.meaning}: {pattern.advice}"
    evidence = {"log_hint": pattern.name, "log_line": one_line(line, MAX_QUOTED)}
    return replace(failure, hint=hint, evidence={**failure.evidence, **evidence})


def _last_match(patterns: Sequence[LogPattern], lines: list[str]) -> tuple[LogPattern, str] | None:
    # Most logs have no known message: one search of the whole text is ten times faster than one of each line.
    text = "\n".join(lines).lower()
    candidates = [pattern for pattern in patterns if pattern.may_match(text)]
    for line in reversed(lines if candidates else ()):
        lowered = line.lower()
        for pattern in candidates:
            if pattern.matches(lowered):
                return pattern, line
    return None
