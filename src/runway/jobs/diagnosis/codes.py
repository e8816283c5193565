"""The stable codes of failures and conditions, with the meaning and hint of each.

`scripts/generate_failure_tables.py` writes the tables of docs/features.md from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self


class Category(StrEnum):
    """The party that has to act: the job's owner, the operators, the policy's owner, or Runway's developers."""

    USER = "user"
    INFRA = "infra"
    POLICY = "policy"
    RUNWAY = "runway"


_USER: Final = (Category.USER, False)
_INFRA: Final = (Category.INFRA, True)
_READ_LOG: Final = "read the last lines of the log"
_RESUBMIT: Final = "resubmit the job; the failure was not caused by it"
_RESUBMIT_OR_CONTACT: Final = "resubmit the job, and contact the platform operators if it fails again"


class FailureCode(StrEnum):
    """Stable codes of the reasons why a job or an attempt did not succeed.

    `retryable`: the same specification may succeed if the caller submits it again.
    """

    category: Category
    retryable: bool
    meaning: str
    advice: str

    def __new__(cls, code: str, category: Category, retryable: bool, meaning: str, advice: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.category, member.retryable, member.meaning, member.advice = category, retryable, meaning, advice
        return member

    # fmt: off
    EXIT_NONZERO = ("exit_nonzero", *_USER, "the process exited with a non-zero code", _READ_LOG)
    COMMAND_NOT_FOUND = ("command_not_found", *_USER,
        "the image lacks the program, its interpreter or its loader, or the shell did not find it (exit code 127)",
        ("check command, args and PATH; if the file is in the image, check its line endings (LF, not CRLF), "
         "the interpreter of its #! line and its dynamic loader"))
    COMMAND_NOT_EXECUTABLE = ("command_not_executable", *_USER,
        "the program is not executable: missing permission, wrong format or wrong architecture (126 from a shell)",
        ("make the file executable, give a script LF line endings and a #! line with an interpreter of the image, "
         "or build the image for the nodes' architecture"))
    START_FAILED = ("start_failed", *_USER,
        "the container failed to start for another reason", "check command, args, working_dir and the image's settings")
    OOM_KILLED = ("oom_killed", *_USER,
        "the kernel killed the process because it exceeded its memory limit",
        "raise resources.memory, or reduce the job's memory use, which includes /dev/shm (resources.shared_memory)")
    OOM_CHILD_SUSPECTED = ("oom_child_suspected", *_USER,
        "the kernel killed a process of the container for memory, and the main process exited with its own code",
        "raise resources.memory, or run fewer worker processes")
    SIGKILL_UNEXPLAINED = ("sigkill_unexplained", *_USER,
        ("SIGKILL (137) without an out-of-memory report, deadline, cancellation or eviction; "
         "a node that is out of memory can also cause it"),
        "check which process of the job sends SIGKILL, for example a parent that stops a worker")
    TERMINATED = ("terminated", *_USER,
        "SIGTERM (143) without a deadline, cancellation or eviction",
        "check which process of the job sends SIGTERM, for example a supervisor or a timeout command")
    SEGMENTATION_FAULT = ("segmentation_fault", *_USER,
        ("SIGSEGV (139): the process accessed memory outside its own; "
         "native extensions built for another library version are a common cause"),
        "read the last lines of the log, and check the versions of native extensions")
    ABORTED = ("aborted", *_USER,
        "SIGABRT (134): the process aborted",
        "read the last lines of the log for a failed assertion or an uncaught C++ exception")
    ILLEGAL_INSTRUCTION = ("illegal_instruction", *_USER,
        "SIGILL (132): the program uses an instruction that the node's processor does not support",
        "build the program for an older processor")
    FLOATING_POINT_EXCEPTION = ("floating_point_exception", *_USER,
        "SIGFPE (136): an arithmetic error, usually an integer division by zero", _READ_LOG)
    BUS_ERROR = ("bus_error", *_USER,
        "SIGBUS (135): the system could not provide memory; a full /dev/shm is the usual cause",
        "raise resources.shared_memory, and resources.memory with it, or use fewer data loader workers")
    KILLED_BY_SIGNAL = ("killed_by_signal", *_USER,
        "another signal killed the process; the message names it", _READ_LOG)
    DEADLINE_EXCEEDED = ("deadline_exceeded", *_USER,
        "the timeout passed while the job ran or between its attempts; takes precedence over the resulting 143 or 137",
        "raise timeout_seconds, which includes waiting and retries, or shorten the job")
    GPU_IDLE = ("gpu_idle", *_USER,
        "the GPUs of the job were idle for the time that the policy allows, and Runway ended it",
        "find out with runway logs why the job does not use its GPUs, or resubmit it without GPUs")
    GPU_HARDWARE = ("gpu_hardware", *_INFRA,
        "the GPUs of the pod's node are faulty, as the node's health monitor reports", _RESUBMIT)
    DISRUPTED_TOO_OFTEN = ("disrupted_too_often", *_INFRA,
        "the cloud interrupted the job in a spot pool too often, and Runway ended it",
        "resubmit the job in a pool that is not spot, or in shorter parts")
    EPHEMERAL_STORAGE_EXCEEDED = ("ephemeral_storage_exceeded", *_USER,
        "the job exceeded its limit of local disk, which includes /scratch, other files of its container and its log",
        "raise resources.disk, or write less to local disk and to the log")
    SHARED_MEMORY_EXCEEDED = ("shared_memory_exceeded", *_USER,
        "the kubelet evicted the job because its files in /dev/shm exceeded their limit",
        "raise resources.shared_memory, or use fewer data loader workers")
    IMAGE_NOT_FOUND = ("image_not_found", *_USER,
        "the registry has no such image or tag, or none for the nodes' architecture",
        ("check the image's name and tag, that the image was pushed, and that it was built for the nodes' "
         "architecture (docker build --platform linux/amd64)"))
    IMAGE_ACCESS_DENIED = ("image_access_denied", *_USER,
        "the registry denies access to the image or has no such repository",
        "check the image's name, and ask the platform operators for access to a private registry")
    IMAGE_NAME_INVALID = ("image_name_invalid", *_USER, "the image name is invalid", "correct the image's name")
    IMAGE_RUNS_AS_ROOT = ("image_runs_as_root", *_USER,
        "the image runs as root, which no job may do", "set a numeric USER other than 0 in the image")
    REGISTRY_UNAVAILABLE = ("registry_unavailable", *_INFRA,
        "the registry is unreachable, failing or rate limiting",
        "check the registry's name, resubmit the job later, and contact the platform operators if it fails again")
    IMAGE_PULL_FAILED = ("image_pull_failed", *_INFRA,
        "the node failed to pull or unpack the image for another reason",
        "read the runtime's message, and contact the platform operators if the image is not the cause")
    CONTAINER_CONFIG_ERROR = ("container_config_error", *_INFRA,
        "the kubelet could not resolve the container's configuration", _RESUBMIT_OR_CONTACT)
    SECRET_MISSING = ("secret_missing", *_USER,
        "a Secret or key that secrets names does not exist in the tenant's namespace",
        "create the Secret with this key, or correct the reference in secrets")
    VOLUME_MISSING = ("volume_missing", Category.POLICY, False,
        "the claim of a volume does not exist in the tenant's namespace, or is being deleted",
        "ask the platform operators to create the claim")
    VOLUME_NOT_BOUND = ("volume_not_bound", *_INFRA,
        "the claim of a volume has no PersistentVolume", "ask the platform operators why the claim is not bound")
    VOLUME_ZONE_CONFLICT = ("volume_zone_conflict", *_INFRA,
        "no suitable node can reach the volume, usually because it is in another zone",
        "ask the platform operators for nodes in the volume's zone, or for a volume that all zones can mount")
    VOLUME_MOUNT_FAILED = ("volume_mount_failed", *_INFRA,
        "the node failed to attach or mount a volume", _RESUBMIT_OR_CONTACT)
    SANDBOX_FAILED = ("sandbox_failed", *_INFRA,
        "the node failed to set up the pod's network or sandbox", _RESUBMIT_OR_CONTACT)
    RUNTIME_FAILED = ("runtime_failed", *_INFRA,
        "the node's container runtime or GPU driver failed to set up the container",
        "resubmit the job, and report the node to the platform operators if it fails again")
    ADMISSION_REJECTED = ("admission_rejected", *_INFRA,
        "the node rejected every pod of the job, usually because resources or devices were in use",
        _RESUBMIT_OR_CONTACT)
    UNSCHEDULABLE = ("unschedulable", *_INFRA,
        "the scheduler found no node for the pod before the deadline; the message names the missing resource",
        "resubmit the job with a longer timeout_seconds, which includes waiting, or request less")
    START_TIMEOUT = ("start_timeout", *_INFRA,
        ("no container started within the job's start_timeout_seconds, for a reason that Kubernetes does not report; "
         "or one started at the moment when a start deadline ended the job"),
        "resubmit the job, with a longer start_timeout_seconds if its image is large")
    QUOTA_BACKSTOP = ("quota_backstop", Category.POLICY, True,
        "the namespace's ResourceQuota rejected the pod until the deadline; pods created outside Runway also count",
        "resubmit the job when the namespace uses less")
    POD_SECURITY_REFUSED = ("pod_security_refused", Category.RUNWAY, False,
        "the namespace's Pod Security level rejected the pod, although every manifest meets level restricted",
        "contact the platform operators; no change to the job can fix this")
    POD_CREATION_REFUSED = ("pod_creation_refused", Category.POLICY, False,
        "the API server rejected the pod for another reason: a webhook, a LimitRange or a missing service account",
        "read the rejection, and ask the platform operators about the cluster's policy")
    POD_CREATION_FAILED = ("pod_creation_failed", *_INFRA,
        "the API server failed to create the pod until the deadline, as with an unavailable webhook",
        _RESUBMIT_OR_CONTACT)
    EVICTED_MEMORY = ("evicted_memory", *_INFRA,
        "the node ran out of memory, and the kubelet evicted the pod", _RESUBMIT)
    EVICTED_DISK = ("evicted_disk", *_INFRA,
        "the node ran out of disk or inodes, and the kubelet evicted the pod",
        "resubmit the job, with less local output if it writes much to local disk")
    EVICTED_PIDS = ("evicted_pids", *_INFRA,
        "the node ran out of process ids, and the kubelet evicted the pod",
        "resubmit the job, with fewer processes if it starts many")
    EVICTED = ("evicted", *_INFRA, "the pod was evicted for another reason", _RESUBMIT)
    DRAINED = ("drained", *_INFRA,
        "the pod was evicted through the API: a drain, an upgrade or a consolidation of nodes", _RESUBMIT)
    PREEMPTED = ("preempted", *_INFRA, "the pod was preempted for a pod of higher priority", _RESUBMIT)
    NODE_TAINTED = ("node_tainted", *_INFRA, "the pod's node was tainted NoExecute while it was ready", _RESUBMIT)
    NODE_LOST = ("node_lost", *_INFRA, "the pod's node stopped responding or was removed", _RESUBMIT)
    NODE_SHUTDOWN = ("node_shutdown", *_INFRA, "the pod's node was shut down", _RESUBMIT)
    CONTAINER_LOST = ("container_lost", *_INFRA,
        "the node lost track of the container, for example in a restart of its runtime; the exit code is unknown",
        _RESUBMIT)
    POD_DELETED = ("pod_deleted", *_INFRA,
        "the pod was deleted outside Runway; counts against the retries",
        "resubmit the job, and ask who deletes pods in the namespace")
    OTHER_CONTAINER_RUNNING = ("other_container_running", Category.INFRA, False,
        "the job's container succeeded, but another container, which was injected into the pod, ran until the timeout",
        "ask the platform operators to end the injected container with the job, or not to inject it into jobs")
    OTHER_CONTAINER_FAILED = ("other_container_failed", *_INFRA,
        "the job's container did not fail, but another container, which was injected into the pod, failed",
        "resubmit the job, and ask the platform operators about the injected container if it fails again")
    UNKNOWN = ("unknown", Category.INFRA, False,
        "any other failure, with Kubernetes' message as evidence",
        "run kubectl describe job in the namespace that this view names")
    # fmt: on


class ConditionCode(StrEnum):
    """Stable codes of the reasons why a job waits."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        member = str.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    POD_NOT_CREATED = "pod_not_created", "Kubernetes has not created the pod yet"
    QUOTA_BACKSTOP = "quota_backstop", "the namespace's ResourceQuota rejects the pod; Kubernetes keeps retrying"
    POD_SECURITY_REFUSED = "pod_security_refused", "the namespace's Pod Security level rejects the pod"
    POD_CREATION_REFUSED = "pod_creation_refused", "the API server rejects the pod for another reason"
    POD_CREATION_FAILED = (
        "pod_creation_failed",
        "the API server fails to create the pod, as after a change of the ResourceQuota; Kubernetes keeps retrying",
    )
    SUSPENDED = "suspended", "the Job was suspended outside Runway"
    UNSCHEDULABLE = "unschedulable", "no node fits the pod; the message gives the reasons, requests and free capacity"
    NODE_STARTING = "node_starting", "an autoscaler starts a node for the pod; the message quotes it"
    POOL_AT_MAXIMUM = "pool_at_maximum", "the pool has its maximum number of nodes, and none has room for the pod"
    NO_CAPACITY = "no_capacity", "the autoscaler failed to get a node from the cloud; the message quotes it"
    IMAGE_PULL_FAILING = "image_pull_failing", "the node cannot pull the image; the message quotes the registry"
    SECRET_MISSING = "secret_missing", "a Secret or key does not exist; the job starts once someone creates it"
    VOLUME_NOT_READY = (
        "volume_not_ready",
        "a volume is missing, not bound, in another zone or not mounted; the message names its claim",
    )
    CONTAINER_NOT_STARTING = (
        "container_not_starting",
        "the node cannot set up the sandbox or container; the message quotes it",
    )
    NODE_UNREACHABLE = (
        "node_unreachable",
        "the pod's node does not respond or is not ready; the job's state does not change",
    )
    GPU_IDLE = "gpu_idle", "GPUs of the running job are idle; the message has the measured figures"
    GPU_HARDWARE = "gpu_hardware", "the node's health monitor reports faulty GPUs"
    TERMINATING = "terminating", "the pod is terminating: it has a deletion timestamp and has not ended"
    OTHER_CONTAINER_RUNNING = (
        "other_container_running",
        "the job's container has ended, and another container keeps the pod alive; the job keeps its quota",
    )
    OUTCOME_PENDING = (
        "outcome_pending",
        "no pod of the job runs any more, and Kubernetes' Job controller has not finished the Job yet",
    )
    RETRYING = "retrying", "the last attempt failed; the next one is due after Kubernetes' back-off"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The diagnosis of a pod or of events. `hint` replaces the advice of the table if it is more specific."""

    code: FailureCode
    message: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    hint: str | None = None
