"""The stable codes of failures and conditions, with the meaning and hint of each.

`scripts/generate_failure_tables.py` writes the tables of docs/features.md from `MEANINGS` and `CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """The party that has to act: the job's owner, the operators, the policy's owner, or Runway's developers."""

    USER = "user"
    INFRA = "infra"
    POLICY = "policy"
    RUNWAY = "runway"


class FailureCode(StrEnum):
    """Stable codes of the reasons why a job or an attempt did not succeed, in the order of `MEANINGS`."""

    EXIT_NONZERO = "exit_nonzero"
    COMMAND_NOT_FOUND = "command_not_found"
    COMMAND_NOT_EXECUTABLE = "command_not_executable"
    START_FAILED = "start_failed"
    OOM_KILLED = "oom_killed"
    OOM_CHILD_SUSPECTED = "oom_child_suspected"
    SIGKILL_UNEXPLAINED = "sigkill_unexplained"
    TERMINATED = "terminated"
    SEGMENTATION_FAULT = "segmentation_fault"
    ABORTED = "aborted"
    ILLEGAL_INSTRUCTION = "illegal_instruction"
    FLOATING_POINT_EXCEPTION = "floating_point_exception"
    BUS_ERROR = "bus_error"
    KILLED_BY_SIGNAL = "killed_by_signal"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    EPHEMERAL_STORAGE_EXCEEDED = "ephemeral_storage_exceeded"
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_ACCESS_DENIED = "image_access_denied"
    IMAGE_NAME_INVALID = "image_name_invalid"
    IMAGE_RUNS_AS_ROOT = "image_runs_as_root"
    REGISTRY_UNAVAILABLE = "registry_unavailable"
    IMAGE_PULL_FAILED = "image_pull_failed"
    CONTAINER_CONFIG_ERROR = "container_config_error"
    SANDBOX_FAILED = "sandbox_failed"
    RUNTIME_FAILED = "runtime_failed"
    ADMISSION_REJECTED = "admission_rejected"
    UNSCHEDULABLE = "unschedulable"
    QUOTA_BACKSTOP = "quota_backstop"
    POD_SECURITY_REFUSED = "pod_security_refused"
    POD_CREATION_REFUSED = "pod_creation_refused"
    EVICTED_MEMORY = "evicted_memory"
    EVICTED_DISK = "evicted_disk"
    EVICTED_PIDS = "evicted_pids"
    EVICTED = "evicted"
    DRAINED = "drained"
    PREEMPTED = "preempted"
    NODE_TAINTED = "node_tainted"
    NODE_LOST = "node_lost"
    NODE_SHUTDOWN = "node_shutdown"
    CONTAINER_LOST = "container_lost"
    POD_DELETED = "pod_deleted"
    UNKNOWN = "unknown"


class ConditionCode(StrEnum):
    """Stable codes of the reasons why a job waits, in the order of `CONDITIONS`."""

    POD_NOT_CREATED = "pod_not_created"
    QUOTA_BACKSTOP = "quota_backstop"
    POD_SECURITY_REFUSED = "pod_security_refused"
    POD_CREATION_REFUSED = "pod_creation_refused"
    SUSPENDED = "suspended"
    UNSCHEDULABLE = "unschedulable"
    IMAGE_PULL_FAILING = "image_pull_failing"
    CONTAINER_NOT_STARTING = "container_not_starting"
    NODE_UNREACHABLE = "node_unreachable"
    TERMINATING = "terminating"
    RETRYING = "retrying"


@dataclass(frozen=True, slots=True)
class Meaning:
    """The facts of a code. `retryable`: the same specification may succeed if the caller submits it again."""

    category: Category
    retryable: bool
    meaning: str
    advice: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The diagnosis of a pod or of events. `hint` replaces the advice of the table if it is more specific."""

    code: FailureCode
    message: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    hint: str | None = None


def _user(meaning: str, advice: str) -> Meaning:
    return Meaning(Category.USER, retryable=False, meaning=meaning, advice=advice)


def _infra(meaning: str, advice: str) -> Meaning:
    return Meaning(Category.INFRA, retryable=True, meaning=meaning, advice=advice)


_READ_LOG: Final = "read the last lines of the log"
_RESUBMIT: Final = "resubmit the job; the failure was not caused by it"
_RESUBMIT_OR_CONTACT: Final = "resubmit the job, and contact the platform operators if it fails again"

MEANINGS: Final[Mapping[FailureCode, Meaning]] = {
    FailureCode.EXIT_NONZERO: _user("the process exited with a non-zero code", _READ_LOG),
    FailureCode.COMMAND_NOT_FOUND: _user(
        "the image has no such program, or the shell did not find it (exit code 127)",
        "check command and args, and check that the program is in the image and on its PATH",
    ),
    FailureCode.COMMAND_NOT_EXECUTABLE: _user(
        "the program is not executable: missing permission, wrong format or wrong architecture (126 from a shell)",
        "make the file executable, give a script its #! line, or build the image for the nodes' architecture",
    ),
    FailureCode.START_FAILED: _user(
        "the container failed to start for another reason", "check command, args and the image's settings"
    ),
    FailureCode.OOM_KILLED: _user(
        "the kernel killed the process because it exceeded its memory limit",
        "raise resources.memory, or reduce the job's memory use",
    ),
    FailureCode.OOM_CHILD_SUSPECTED: _user(
        "the kernel killed a process of the container for memory, and the main process exited with its own code",
        "raise resources.memory, or run fewer worker processes",
    ),
    FailureCode.SIGKILL_UNEXPLAINED: _user(
        "SIGKILL (137) without an out-of-memory report, deadline, cancellation or eviction; "
        "a node that is out of memory can also cause it",
        "check which process of the job sends SIGKILL, for example a parent that stops a worker",
    ),
    FailureCode.TERMINATED: _user(
        "SIGTERM (143) without a deadline, cancellation or eviction",
        "check which process of the job sends SIGTERM, for example a supervisor or a timeout command",
    ),
    FailureCode.SEGMENTATION_FAULT: _user(
        "SIGSEGV (139): the process accessed memory outside its own; "
        "native extensions built for another library version are a common cause",
        "read the last lines of the log, and check the versions of native extensions",
    ),
    FailureCode.ABORTED: _user(
        "SIGABRT (134): the process aborted",
        "read the last lines of the log for a failed assertion or an uncaught C++ exception",
    ),
    FailureCode.ILLEGAL_INSTRUCTION: _user(
        "SIGILL (132): the program uses an instruction that the node's processor does not support",
        "build the program for an older processor",
    ),
    FailureCode.FLOATING_POINT_EXCEPTION: _user(
        "SIGFPE (136): an arithmetic error, usually an integer division by zero", _READ_LOG
    ),
    FailureCode.BUS_ERROR: _user(
        "SIGBUS (135): the system could not provide memory; a full /dev/shm (64Mi per container) is the usual cause",
        "use fewer data loader workers, or use files for shared memory",
    ),
    FailureCode.KILLED_BY_SIGNAL: _user("another signal killed the process; the message names it", _READ_LOG),
    FailureCode.DEADLINE_EXCEEDED: _user(
        "the timeout passed while the job ran or between its attempts; takes precedence over the resulting 143 or 137",
        "raise timeout_seconds, which includes waiting and retries, or shorten the job",
    ),
    FailureCode.EPHEMERAL_STORAGE_EXCEEDED: _user(
        "the job exceeded the limit of local disk, which includes its log",
        "write results to object storage instead of local disk, and write less to the log",
    ),
    FailureCode.IMAGE_NOT_FOUND: _user(
        "the registry has no such image or tag", "check the image's name and tag, and check that the image was pushed"
    ),
    FailureCode.IMAGE_ACCESS_DENIED: _user(
        "the registry denies access to the image or has no such repository",
        "check the image's name, and ask the platform operators for access to a private registry",
    ),
    FailureCode.IMAGE_NAME_INVALID: _user("the image name is invalid", "correct the image's name"),
    FailureCode.IMAGE_RUNS_AS_ROOT: _user(
        "the image runs as root, which no job may do", "set a numeric USER other than 0 in the image"
    ),
    FailureCode.REGISTRY_UNAVAILABLE: _infra(
        "the registry is unreachable, failing or rate limiting",
        "check the registry's name, resubmit the job later, and contact the platform operators if it fails again",
    ),
    FailureCode.IMAGE_PULL_FAILED: _infra(
        "the node failed to pull or unpack the image for another reason",
        "read the runtime's message, and contact the platform operators if the image is not the cause",
    ),
    FailureCode.CONTAINER_CONFIG_ERROR: _infra(
        "the kubelet could not resolve the container's configuration", _RESUBMIT_OR_CONTACT
    ),
    FailureCode.SANDBOX_FAILED: _infra(
        "the node failed to set up the pod's network, volumes or sandbox", _RESUBMIT_OR_CONTACT
    ),
    FailureCode.RUNTIME_FAILED: _infra(
        "the node's container runtime or GPU driver failed to set up the container",
        "resubmit the job, and report the node to the platform operators if it fails again",
    ),
    FailureCode.ADMISSION_REJECTED: _infra(
        "the node rejected the pod, usually because resources or devices were in use; counts against the retries",
        "resubmit the job with one or two retries, and contact the platform operators if it fails again",
    ),
    FailureCode.UNSCHEDULABLE: _infra(
        "the scheduler found no node for the pod before the deadline; the message names the missing resource",
        "resubmit the job with a longer timeout_seconds, which includes waiting, or request less",
    ),
    FailureCode.QUOTA_BACKSTOP: Meaning(
        Category.POLICY, True,
        "the namespace's ResourceQuota rejected the pod until the deadline; pods created outside Runway also count",
        "resubmit the job when the namespace uses less",
    ),
    FailureCode.POD_SECURITY_REFUSED: Meaning(
        Category.RUNWAY, False,
        "the namespace's Pod Security level rejected the pod, although every manifest meets level restricted",
        "contact the platform operators; no change to the job can fix this",
    ),
    FailureCode.POD_CREATION_REFUSED: Meaning(
        Category.POLICY, False,
        "the API server rejected the pod for another reason: a webhook, a LimitRange or a missing service account",
        "read the rejection, and ask the platform operators about the cluster's policy",
    ),
    FailureCode.EVICTED_MEMORY: _infra("the node ran out of memory, and the kubelet evicted the pod", _RESUBMIT),
    FailureCode.EVICTED_DISK: _infra(
        "the node ran out of disk or inodes, and the kubelet evicted the pod",
        "resubmit the job, with less local output if it writes much to local disk",
    ),
    FailureCode.EVICTED_PIDS: _infra(
        "the node ran out of process ids, and the kubelet evicted the pod",
        "resubmit the job, with fewer processes if it starts many",
    ),
    FailureCode.EVICTED: _infra("the pod was evicted for another reason", _RESUBMIT),
    FailureCode.DRAINED: _infra(
        "the pod was evicted through the API: a drain, an upgrade or a consolidation of nodes", _RESUBMIT
    ),
    FailureCode.PREEMPTED: _infra("the pod was preempted for a pod of higher priority", _RESUBMIT),
    FailureCode.NODE_TAINTED: _infra("the pod's node was tainted NoExecute while it was ready", _RESUBMIT),
    FailureCode.NODE_LOST: _infra("the pod's node stopped responding or was removed", _RESUBMIT),
    FailureCode.NODE_SHUTDOWN: _infra("the pod's node was shut down", _RESUBMIT),
    FailureCode.CONTAINER_LOST: _infra(
        "the node lost track of the container, for example in a restart of its runtime; the exit code is unknown",
        _RESUBMIT,
    ),
    FailureCode.POD_DELETED: _infra(
        "the pod was deleted outside Runway; counts against the retries",
        "resubmit the job, and ask who deletes pods in the namespace",
    ),
    FailureCode.UNKNOWN: Meaning(
        Category.INFRA, False,
        "any other failure, with Kubernetes' message as evidence",
        "run kubectl describe job in the namespace that this view names",
    ),
}  # fmt: skip

CONDITIONS: Final[Mapping[ConditionCode, str]] = {
    ConditionCode.POD_NOT_CREATED: "Kubernetes has not created the pod yet",
    ConditionCode.QUOTA_BACKSTOP: "the namespace's ResourceQuota rejects the pod; Kubernetes keeps retrying",
    ConditionCode.POD_SECURITY_REFUSED: "the namespace's Pod Security level rejects the pod",
    ConditionCode.POD_CREATION_REFUSED: "the API server rejects the pod for another reason",
    ConditionCode.SUSPENDED: "the Job was suspended outside Runway",
    ConditionCode.UNSCHEDULABLE: "no node fits the pod; the message gives the reasons, requests and free capacity",
    ConditionCode.IMAGE_PULL_FAILING: "the node cannot pull the image; the message quotes the registry",
    ConditionCode.CONTAINER_NOT_STARTING: "the node cannot set up the sandbox or container; the message quotes it",
    ConditionCode.NODE_UNREACHABLE: "the pod's node does not respond or is not ready; the job's state does not change",
    ConditionCode.TERMINATING: "the pod is terminating: it has a deletion timestamp and has not ended",
    ConditionCode.RETRYING: "the last attempt failed; the next one starts after Kubernetes' back-off",
}
