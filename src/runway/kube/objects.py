"""Kubernetes objects and the messages that wrap them.

They have only the fields that Runway reads, because decoding is most of the work of a watch. Names follow the API:
https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec
from msgspec.structs import replace

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Bound(Enum):
    """The limit of a field in the decoder."""

    WORD = "one printable line"
    MESSAGE = "printable lines; a long one loses its middle"
    LOG_TAIL = "unchanged; a long one loses its start"
    INT32 = "Kubernetes' 32-bit range"
    SECONDS = "0 to MAX_SECONDS"


Word = Annotated[str, Bound.WORD]
Message = Annotated[str, Bound.MESSAGE]
Int32 = Annotated[int, Bound.INT32]
Seconds = Annotated[int, Bound.SECONDS]

MAX_SECONDS: Final = 10 * 366 * 24 * 3600
"""Kubernetes accepts 64-bit durations; ten years count as forever."""


def is_possible_year(year: int) -> bool:
    """Return whether a time of this year is plausible. Arithmetic with other years can overflow."""
    return 1970 <= year <= 2200


LABEL_CONTROLLER: Final = "batch.kubernetes.io/controller-uid"
"""https://kubernetes.io/docs/reference/labels-annotations-taints/#batchkubernetesio-controller-uid"""
LABEL_JOB_NAME: Final = "batch.kubernetes.io/job-name"
"""https://kubernetes.io/docs/reference/labels-annotations-taints/#batchkubernetesio-job-name"""
CONTAINER: Final = "job"
"""The name of the container that runs the job."""
CLAIM_VOLUME_PREFIX: Final = "claim-"
"""The prefix of a pod's volumes that are claims, so that no name is one of Runway, EKS or Kubernetes."""
VOLUME_SCRATCH: Final = "scratch"
VOLUME_SHARED_MEMORY: Final = "shared-memory"
"""The names of the volumes that every job has. The kubelet's messages contain them."""
GPU_RESOURCE: Final = "nvidia.com/gpu"
DISK_RESOURCE: Final = "ephemeral-storage"
_LOG_ALREADY_GONE: Final = "Error on reading termination message from logs"
"""The kubelet writes this as the termination message if it has already removed the log of a deleted pod."""


class _KubeObject(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Absent fields default to the empty value. Without cycles the garbage collector can skip objects (`gc=False`)."""


class Metadata(_KubeObject, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: Seconds | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    unreadable: tuple[str, ...] = msgspec.field(name="runway.internal/unreadable", default=())
    """The fields that could not be decoded. The decoder sets this; the API has no such field."""


class Condition(_KubeObject, frozen=True):
    type: Word
    status: Word
    reason: Word | None = None
    message: Message | None = None
    last_transition_time: Time | None = None


class ResourceRequirements(_KubeObject, frozen=True):
    requests: dict[str, str] = {}


class ContainerResources(ResourceRequirements, frozen=True):
    limits: dict[str, str] = {}
    """Empty after decoding: the requests then have those that had no request."""


class Container(_KubeObject, frozen=True):
    name: str
    resources: ContainerResources = ContainerResources()
    restart_policy: str | None = None


class Toleration(_KubeObject, frozen=True):
    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None


class PodSpec(_KubeObject, frozen=True):
    node_name: str | None = None
    resources: ResourceRequirements = ResourceRequirements()
    """Pod-level requests; they replace the requests of the containers.

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#pod-level-resource-specification
    """
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    termination_grace_period_seconds: Seconds | None = None


class ClaimSource(_KubeObject, frozen=True):
    claim_name: Word = ""


class Volume(_KubeObject, frozen=True):
    name: Word = ""
    persistent_volume_claim: ClaimSource | None = None


class TemplateSpec(PodSpec, frozen=True):
    """The pod spec of a Job. Only its volumes are read, because those of its pods are the same."""

    volumes: tuple[Volume, ...] = ()


class PodTemplate(_KubeObject, frozen=True):
    spec: TemplateSpec = TemplateSpec()


class JobSpec(_KubeObject, frozen=True):
    template: PodTemplate = PodTemplate()
    parallelism: Int32 | None = None
    completions: Int32 | None = None
    suspend: bool | None = None
    active_deadline_seconds: Seconds | None = None
    backoff_limit: Int32 | None = None


class JobStatus(_KubeObject, frozen=True):
    conditions: tuple[Condition, ...] = ()
    start_time: Time | None = None
    failed: int = 0
    succeeded: int = 0


class Job(_KubeObject, frozen=True):
    metadata: Metadata
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def claims(self) -> dict[str, str]:
        """The PersistentVolumeClaims of the pods, by the name of the volume in the policy."""
        volumes = {volume.name: volume.persistent_volume_claim for volume in self.spec.template.spec.volumes}
        return {n.removeprefix(CLAIM_VOLUME_PREFIX): claim.claim_name for n, claim in volumes.items() if claim}

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of this type if its status is True."""
        for item in self.status.conditions:  # Without a generator, because most calls find no conditions at all.
            if item.type == type_ and item.status == "True":
                return item
        return None

    @property
    def has_outcome(self) -> bool:
        """Whether the Job is finished, or Kubernetes has announced its outcome.

        https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
        """
        return any(map(self.condition, ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")))

    @property
    def finished(self) -> bool:
        """Whether the Job is terminal: the Job controller creates no more pods.

        https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
        """
        return self.condition("Complete") is not None or self.condition("Failed") is not None


class Waiting(_KubeObject, frozen=True):
    reason: Word | None = None
    message: Message | None = None


class Running(_KubeObject, frozen=True):
    started_at: Time | None = None


class Terminated(_KubeObject, frozen=True):
    exit_code: Int32 = 0
    signal: Int32 | None = None
    reason: Word | None = None
    message: Annotated[str, Bound.LOG_TAIL] | None = None
    started_at: Time | None = None
    finished_at: Time | None = None

    @property
    def termination_message(self) -> str | None:
        """The end of the log as the kubelet recorded it; None without one, or if the kubelet could not read it.

        https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
        """
        return None if (self.message or "").startswith(_LOG_ALREADY_GONE) else self.message or None


class ContainerState(_KubeObject, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_KubeObject, frozen=True):
    name: str
    state: ContainerState = ContainerState()
    container_id: str | None = msgspec.field(default=None, name="containerID")
    """Empty until the runtime has created a container."""
    image_id: Word | None = msgspec.field(default=None, name="imageID")
    """The image that runs: `repository@sha256:...`, or only the digest. The runtime decides on the form."""


class PodStatus(_KubeObject, frozen=True):
    phase: Word = "Pending"
    reason: Word | None = None
    message: Message | None = None
    start_time: Time | None = None
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(_KubeObject, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_terminal(self) -> bool:
        """Whether no container of the pod runs or will run.

        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
        """
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether the pod has a deletion timestamp and is not terminal."""
        return self.metadata.deletion_timestamp is not None and not self.is_terminal

    @property
    def controller_uid(self) -> str | None:
        """The uid of the pod's Job; None for a pod without a Job."""
        return self.metadata.labels.get(LABEL_CONTROLLER)

    @property
    def container_name(self) -> str:
        """The container that runs the job: `job`, or the first of a pod without such a container."""
        names = [container.name for container in self.spec.containers or ()]
        names = names or [status.name for status in self.status.container_statuses]
        return CONTAINER if CONTAINER in names or not names else names[0]

    @property
    def job_status(self) -> ContainerStatus | None:
        """The status of the container that runs the job. Statuses are sorted by name."""
        name = self.container_name
        return next((status for status in self.status.container_statuses if status.name == name), None)

    @property
    def other_statuses(self) -> tuple[ContainerStatus, ...]:
        """The statuses of the containers that Runway did not create, such as injected ones; init containers first."""
        name = self.container_name
        others = tuple(status for status in self.status.container_statuses if status.name != name)
        return (*self.status.init_container_statuses, *others)

    @property
    def container(self) -> ContainerState:
        """The state of the container that runs the job; empty before the kubelet reports it."""
        own = self.job_status
        return own.state if own else ContainerState()

    @property
    def image_id(self) -> str | None:
        """The image that the job's container runs; None or empty before the kubelet reports it."""
        own = self.job_status
        return own.image_id if own else None

    @property
    def never_had_a_container(self) -> bool:
        """Whether the pod is terminal or terminating, and the runtime never created its container.

        The kubelet reports such a container as terminated with 137, ContainerStatusUnknown, and without an id:
        https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/kubelet/status/status_manager.go (TerminatePod)
        """
        own = self.job_status
        ended = own.state.terminated if own else None
        lost = ended is not None and ended.reason == "ContainerStatusUnknown"
        return lost and own is not None and not own.container_id

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of this type, with any status."""
        return next((item for item in self.status.conditions if item.type == type_), None)


def merge_pod_status(pod: Pod, known: Pod) -> Pod:
    """Return a newer state of a pod, with the fields of the known state that the kubelet overwrote.

    The kubelet deletes a terminal pod again, with a grace period of zero. It reads the log for each status, also after
    it removed the log of a deleted pod.
    """
    deletion = known.metadata
    if pod.is_terminal and deletion.deletion_timestamp is not None:
        metadata = replace(
            pod.metadata,
            deletion_timestamp=deletion.deletion_timestamp,
            deletion_grace_period_seconds=deletion.deletion_grace_period_seconds,
        )
        pod = replace(pod, metadata=metadata)
    own = pod.job_status
    now, before = pod.container.terminated, known.container.terminated
    if not own or not now or not before or now.termination_message is not None or before.termination_message is None:
        return pod
    merged = replace(own, state=replace(own.state, terminated=replace(now, message=before.message)))
    statuses = tuple(merged if status is own else status for status in pod.status.container_statuses)
    return replace(pod, status=replace(pod.status, container_statuses=statuses))


def resource_version_number(item: Job | Pod | Event | Node) -> int:
    """Return the resource version as a number, comparable within one collection since Kubernetes 1.35.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return int(item.metadata.resource_version)


class ObjectReference(_KubeObject, frozen=True):
    kind: Word = ""
    namespace: Word = ""
    name: Word = ""
    uid: Word = ""


class EventSeries(_KubeObject, frozen=True):
    last_observed_time: Time | None = None


class Event(_KubeObject, frozen=True):
    """Kubernetes usually deletes events after an hour, and counts repeated events in one object."""

    metadata: Metadata
    involved_object: ObjectReference = ObjectReference()
    type: Word = "Warning"
    """`Normal` or `Warning`."""
    reason: Word | None = None
    message: Message | None = None
    last_timestamp: Time | None = None
    event_time: Time | None = None
    series: EventSeries | None = None

    @property
    def is_warning(self) -> bool:
        return self.type != "Normal"

    @property
    def first_seen(self) -> datetime | None:
        """The time of the first occurrence: a repeated event is counted in the same object."""
        return self.metadata.creation_timestamp or self.last_seen

    @property
    def last_seen(self) -> datetime | None:
        """The time of the last occurrence. Clients of the two event APIs set different fields."""
        in_series = self.series.last_observed_time if self.series else None
        return in_series or self.last_timestamp or self.event_time or self.metadata.creation_timestamp


class Taint(_KubeObject, frozen=True):
    key: str
    effect: str = ""
    value: str | None = None


class NodeSpec(_KubeObject, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(_KubeObject, frozen=True):
    conditions: tuple[Condition, ...] = ()
    allocatable: dict[str, str] = {}


class Node(_KubeObject, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of this type, with any status."""
        return next((item for item in self.status.conditions if item.type == type_), None)


class LeaseSpec(_KubeObject, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    lease_transitions: int | None = None


class Lease(_KubeObject, frozen=True):
    metadata: Metadata
    spec: LeaseSpec = LeaseSpec()


Object = TypeVar("Object", Job, Pod, Event, Node)


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = "0"
    continue_: str | None = msgspec.field(name="continue", default=None)


class ObjectList(msgspec.Struct, Generic[Object], frozen=True, rename="camel"):
    """One page of a list, or a whole one. The resource version is that of the collection."""

    metadata: ListMeta
    items: tuple[Object, ...] = ()


class WatchEvent(msgspec.Struct, Generic[Object], frozen=True, rename="camel"):
    """One event of a watch. The object of a bookmark has only a resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


@dataclass(frozen=True, slots=True)
class MetadataFilter:
    """The labels and annotations to keep, besides Kubernetes' own labels of a Job's pods, and all labels of nodes."""

    labels: frozenset[str]
    annotations: Mapping[str, int]
    """The maximum number of characters by annotation of a Job. Longer values are cut, and so become invalid."""
