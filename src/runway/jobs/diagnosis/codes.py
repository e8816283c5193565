"""Why a job failed: the stable codes, and the one table of what each of them means.

The table of docs/features.md is made from this one: `python -m runway.jobs.diagnosis.failure_table docs/features.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """Who has to act: the job's owner, the platform's operators, whoever sets the policy, or Runway's makers."""

    USER = "user"
    INFRA = "infra"
    POLICY = "policy"
    RUNWAY = "runway"


class FailureCode(StrEnum):
    """Stable codes of why a job, or one attempt of it, did not succeed. In the order of `MEANINGS`."""

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


@dataclass(frozen=True, slots=True)
class Meaning:
    """What holds for every failure of a code. `retryable`: the same specification may succeed if submitted again."""

    category: Category
    retryable: bool
    meaning: str
    advice: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The verdict on a failed job, in plain words, with the exact fields that it was read from."""

    code: FailureCode
    category: Category
    retryable: bool
    message: str
    hint: str
    evidence: dict[str, str]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one look at a pod, or at the events, came to. `hint` where more is known than the table's advice."""

    code: FailureCode
    message: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    hint: str | None = None


def failure_of(finding: Diagnosis, evidence: Mapping[str, str]) -> Failure:
    """The verdict from a finding, with what else was looked at."""
    meaning = MEANINGS[finding.code]
    return Failure(
        finding.code,
        meaning.category,
        meaning.retryable,
        finding.message,
        finding.hint or meaning.advice,
        {**evidence, **finding.evidence},
    )


def _user(meaning: str, advice: str) -> Meaning:
    return Meaning(Category.USER, retryable=False, meaning=meaning, advice=advice)


def _infra(meaning: str, advice: str) -> Meaning:
    return Meaning(Category.INFRA, retryable=True, meaning=meaning, advice=advice)


_READ_THE_LOG: Final = "look at the last lines of the log"
_SUBMIT_AGAIN: Final = "submit the job again; it was not at fault"

MEANINGS: Final[Mapping[FailureCode, Meaning]] = {
    FailureCode.EXIT_NONZERO: _user("the process ended with another exit code than 0", _READ_THE_LOG),
    FailureCode.COMMAND_NOT_FOUND: _user(
        "there is no such program in the image, or a shell found none (exit code 127)",
        "check command and args, and that the program is in the image and on its PATH",
    ),
    FailureCode.COMMAND_NOT_EXECUTABLE: _user(
        "the program is there but cannot be run: no permission, wrong format or architecture (126 from a shell)",
        "make the file executable, give a script its #! line, or build the image for the nodes' architecture",
    ),
    FailureCode.START_FAILED: _user(
        "the container could not be started for another reason", "check command, args and the image's settings"
    ),
    FailureCode.OOM_KILLED: _user(
        "the kernel killed the process: it needed more than its memory limit",
        "raise resources.memory, or make the job use less",
    ),
    FailureCode.OOM_CHILD_SUSPECTED: _user(
        "the kernel killed a process of the container for memory, and the main process ended with a code of its own",
        "raise resources.memory, or run fewer worker processes",
    ),
    FailureCode.SIGKILL_UNEXPLAINED: _user(
        "SIGKILL (137) that the kernel did not report as out of memory, and no deadline, cancel or eviction",
        "look for what sends SIGKILL in the job itself, such as a parent that gives up on a worker; a node that was "
        "out of memory as a whole looks like this too",
    ),
    FailureCode.TERMINATED: _user(
        "SIGTERM (143) that came neither from a deadline nor from a cancel or an eviction",
        "look for what sends SIGTERM in the job itself, such as a supervisor or a timeout command",
    ),
    FailureCode.SEGMENTATION_FAULT: _user(
        "SIGSEGV (139): the process used memory that it may not",
        "look at the last lines of the log; native extensions built for another library version are a usual cause",
    ),
    FailureCode.ABORTED: _user(
        "SIGABRT (134): the process gave itself up",
        "look at the last lines of the log: a failed assertion or an uncaught C++ exception stands there",
    ),
    FailureCode.ILLEGAL_INSTRUCTION: _user(
        "SIGILL (132): the processor does not know an instruction",
        "build for an older processor: the program uses instructions that the node does not have",
    ),
    FailureCode.FLOATING_POINT_EXCEPTION: _user(
        "SIGFPE (136): an arithmetic error, mostly a whole number divided by 0", _READ_THE_LOG
    ),
    FailureCode.BUS_ERROR: _user(
        "SIGBUS (135): memory that could not be provided",
        "a full /dev/shm (64Mi in every container) is the usual cause: use fewer loader workers, or files for shared "
        "memory",
    ),
    FailureCode.KILLED_BY_SIGNAL: _user("another signal ended the process; it is named", _READ_THE_LOG),
    FailureCode.DEADLINE_EXCEEDED: _user(
        "the timeout passed while the job ran, or between its attempts; beats the 143 or 137 that it causes",
        "raise timeout_seconds (it counts from acceptance: waiting and retries included), or make the job shorter",
    ),
    FailureCode.EPHEMERAL_STORAGE_EXCEEDED: _user(
        "the job wrote more to its container's disk, logs included, than every job may",
        "write less to local disk: send results to object storage, and log less",
    ),
    FailureCode.IMAGE_NOT_FOUND: _user(
        "the registry has no such image or tag", "check the image's name and tag, and that it was pushed"
    ),
    FailureCode.IMAGE_ACCESS_DENIED: _user(
        "the registry does not let the node pull the image, or has no such repository",
        "check the image's name; for a private registry ask the platform's operators for access",
    ),
    FailureCode.IMAGE_NAME_INVALID: _user("the kubelet cannot read the image's name", "correct the image's name"),
    FailureCode.IMAGE_RUNS_AS_ROOT: _user(
        "the image must run as root, and no job may", "give the image a user other than root (USER, by number)"
    ),
    FailureCode.REGISTRY_UNAVAILABLE: _infra(
        "the registry could not be reached, was failing, or limits the rate of pulls",
        "submit the job again later; if the registry's name is right, tell the platform's operators",
    ),
    FailureCode.IMAGE_PULL_FAILED: _infra(
        "the node could not pull or unpack the image for another reason",
        "read the runtime's message; where it is not about the image, tell the platform's operators",
    ),
    FailureCode.CONTAINER_CONFIG_ERROR: _infra(
        "the kubelet could not work out the container's settings",
        "submit the job again; if it happens again, tell the platform's operators",
    ),
    FailureCode.SANDBOX_FAILED: _infra(
        "the node could not set up the pod's network or sandbox",
        "submit the job again; if it happens again, tell the platform's operators",
    ),
    FailureCode.RUNTIME_FAILED: _infra(
        "the node's container runtime or GPU driver failed to set the container up",
        "submit the job again; if it happens again, tell the platform's operators which node it was",
    ),
    FailureCode.ADMISSION_REJECTED: _infra(
        "the node that the pod was bound to refused it: room or devices were gone by then. Counts against the retries",
        "submit the job again, with a retry or two; if it happens again, tell the platform's operators",
    ),
    FailureCode.UNSCHEDULABLE: _infra(
        "no node could take the pod before the deadline; says for want of what",
        "submit the job again with a longer timeout_seconds, which counts the wait, or ask for less",
    ),
    FailureCode.QUOTA_BACKSTOP: Meaning(
        Category.POLICY, True,
        "the namespace's ResourceQuota refused the pod until the deadline",
        "submit the job again when less of the namespace is in use; pods made past Runway count there too",
    ),
    FailureCode.POD_SECURITY_REFUSED: Meaning(
        Category.RUNWAY, False,
        "the namespace's Pod Security level refused the pod, though every manifest keeps level restricted",
        "tell the platform's operators: nothing in the job can change this",
    ),
    FailureCode.POD_CREATION_REFUSED: Meaning(
        Category.POLICY, False,
        "the API server refused the pod for another reason: a webhook, a LimitRange, a missing service account",
        "read the refusal; it is the cluster's policy, so ask the platform's operators",
    ),
    FailureCode.EVICTED_MEMORY: _infra("the node ran out of memory and the kubelet evicted the pod", _SUBMIT_AGAIN),
    FailureCode.EVICTED_DISK: _infra(
        "the node ran out of disk or inodes and the kubelet evicted the pod",
        "submit the job again; if it writes much to local disk, write less",
    ),
    FailureCode.EVICTED_PIDS: _infra(
        "the node ran out of process ids and the kubelet evicted the pod",
        "submit the job again; if it starts very many processes, start fewer",
    ),
    FailureCode.EVICTED: _infra("the pod was evicted for another reason", _SUBMIT_AGAIN),
    FailureCode.DRAINED: _infra(
        "the pod was evicted through the API: a drain, an upgrade, a consolidation of nodes", _SUBMIT_AGAIN
    ),
    FailureCode.PREEMPTED: _infra("the pod made room for one of higher priority", _SUBMIT_AGAIN),
    FailureCode.NODE_TAINTED: _infra("its node was tainted NoExecute while it answered", _SUBMIT_AGAIN),
    FailureCode.NODE_LOST: _infra("its node stopped answering, or was removed", _SUBMIT_AGAIN),
    FailureCode.NODE_SHUTDOWN: _infra("its node was shut down", _SUBMIT_AGAIN),
    FailureCode.CONTAINER_LOST: _infra(
        "the node lost track of the container, such as over a restart of its runtime; how it ended is not known",
        _SUBMIT_AGAIN,
    ),
    FailureCode.POD_DELETED: _infra(
        "somebody deleted the pod, past Runway. Counts against the retries",
        "submit the job again; ask who deletes pods in the namespace",
    ),
    FailureCode.UNKNOWN: Meaning(
        Category.INFRA, False,
        "anything else, with Kubernetes' own words as evidence",
        "look at the Job itself: kubectl describe job, in the namespace named in this view",
    ),
}  # fmt: skip
