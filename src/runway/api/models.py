"""The models of the API's responses beside the job: quota, policy, problems.

The server and the command line share them (`runway.jobs.models`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from runway.errors import Violation
from runway.jobs.models import (
    CostView,
    Count,
    JobId,
    JobState,
    JobView,
    Model,
    NonNegative,
    OneOf,
    Positive,
    Quantity,
    Ratio,
    TenantName,
    Time,
    Usd,
    text,
)

PolicyHash = Annotated[str, text(pattern="^[0-9a-f]{64}$")]
RequestId = Annotated[str, text(pattern="^[A-Za-z0-9._-]{1,128}$")]
Gpu = Annotated[Count, Field(description="Whole GPUs.")]
Cpu = Annotated[Quantity, Field(description="CPU, as a Kubernetes quantity.")]
Memory = Annotated[Quantity, Field(description="Memory, as a Kubernetes quantity.")]


@dataclass(frozen=True, slots=True)
class JobList(Model):
    """One page of jobs."""

    jobs: list[JobView]
    """The jobs, newest first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


@dataclass(frozen=True, slots=True)
class AmountsView(Model):
    """Resources in Kubernetes quantities, and a number of jobs."""

    gpu: Gpu
    cpu: Cpu
    memory: Memory
    jobs: Count
    """Unfinished jobs."""
    disk: Quantity | None = None
    """Ephemeral storage, as a Kubernetes quantity; null if the quota does not limit it."""
    gpu_types: dict[str, Count] = field(default_factory=dict)
    """Whole GPUs by type; a limit has only the types that the quota limits."""
    usd_per_hour: Usd | None = None
    """The hourly prices of unfinished jobs; null if the quota does not limit them."""


@dataclass(frozen=True, slots=True)
class BudgetView(Model):
    """A budget and its parts. The times of Kubernetes decide which jobs finished in the window."""

    usd: Usd
    """The limit."""
    hours: Positive
    """The length of the rolling window."""
    spent: Usd
    """The actual cost of jobs that finished in the window; the ceiling where that is unknown."""
    committed: Usd
    """The ceilings of unfinished jobs."""
    reserved: Usd
    """The ceilings of creates in flight."""
    free: Usd
    """The rest."""
    available_at: Time | None = None
    """In a refusal: when finished jobs leave enough of the budget; null if only unfinished jobs can."""


Limit = Annotated[AmountsView, Field(description="The quota limit.")]
Used = Annotated[AmountsView, Field(description="The usage of the tenant's jobs and pods in the cluster.")]
Reserved = Annotated[AmountsView, Field(description="The reservations for creates in flight.")]


@dataclass(frozen=True, slots=True)
class HolderView(Model):
    """A job that uses some of a tenant's quota."""

    id: str
    """The job, or the pod that was created outside Runway."""
    state: Annotated[str, OneOf(JobState)] | None
    """The state of the job; null if only pods of a deleted Job are left."""
    gpu: Gpu
    cpu: Cpu
    memory: Memory
    terminating: bool
    """Whether a pod of the job is terminating."""
    disk: Quantity | None = None
    """Ephemeral storage, as a Kubernetes quantity."""
    gpu_types: dict[str, Count] = field(default_factory=dict)
    """The GPUs by type; a pod created outside Runway can count for several types."""
    usd_per_hour: Usd | None = None
    """The hourly price."""
    orphaned: bool = False
    """Whether a pod runs on although its Job was deleted. It uses the quota until someone deletes it, or it ends."""
    name: str | None = None
    """The name of the job, if it has one."""


@dataclass(frozen=True, slots=True)
class TenantQuotaView(Model):
    """The limit and usage of one tenant's quota."""

    tenant: TenantName
    """The tenant."""
    namespace: str
    """The Kubernetes namespace of the tenant."""
    limit: Limit
    used: Used
    reserved: Reserved
    held_by_terminating: AmountsView
    """The part of `used` that only terminating pods use."""
    jobs: list[HolderView]
    """The jobs that use the quota."""
    budget: BudgetView | None = None
    """The budget; null without one."""


@dataclass(frozen=True, slots=True)
class QuotaView(Model):
    """The quota of one tenant or of all tenants."""

    tenants: list[TenantQuotaView]
    """The tenant that the header names, or all tenants."""


@dataclass(frozen=True, slots=True)
class UsageView(Model):
    """The resource usage of a job; null is unknown, never 0.

    CPU, throttling and GPU figures belong to the last attempt, and `memory_peak_bytes` to all attempts.
    """

    id: JobId
    """The job."""
    source: Annotated[str, text(enum=["prometheus", "kept"])] | None
    """`prometheus` for a new query, `kept` for the stored usage of a finished job, null without a source."""
    problem: str | None
    """The reason why the source returned no figures."""
    cpu_seconds: NonNegative | None
    """CPU time of the last attempt."""
    cpu_cores: NonNegative | None
    """Mean CPU usage since the container started, in cores."""
    cpu_limit_cores: NonNegative | None
    """The job's `resources.cpu`, in cores."""
    memory_bytes: Count | None
    """The working set: memory that the kernel cannot reclaim easily."""
    memory_peak_bytes: Count | None
    """The peak memory need over all attempts."""
    memory_limit_bytes: Count | None
    """The job's `resources.memory`, in bytes."""
    throttled_ratio: Ratio | None
    """The share of the job's CPU periods in which the CPU limit throttled it."""
    cpu_periods: Count | None
    """The number of CPU periods of 100 ms in which the job ran."""
    gpu_utilisation: Ratio | None
    """Mean utilisation of the job's GPUs; null unless Prometheus scrapes NVIDIA's DCGM exporter."""
    sampled_at: Time | None
    """The time of the last CPU sample."""
    findings: list[str]
    """Plain-language findings: throttling, or memory near its limit."""


@dataclass(frozen=True, slots=True)
class QuotaSummary(Model):
    """A tenant's quota at the moment of a decision."""

    limit: Limit
    used: Used
    reserved: Reserved
    budget: BudgetView | None = None
    """The budget; null without one."""
    requested: AmountsView | None = None
    """The request of the job; null if the specification itself is refused."""


@dataclass(frozen=True, slots=True)
class DryRun(Model):
    """The decision on a specification, without a submission."""

    decision: Annotated[str, text(enum=["admitted", "refused"])]
    """The decision if the job were submitted now."""
    violations: list[Violation]
    """All reasons for a refusal."""
    cost: CostView | None
    """The estimated cost; null if the specification itself is refused."""
    quota: QuotaSummary
    """The tenant's quota at this moment."""
    manifest: dict[str, Any] | None
    """The Kubernetes Job of a submission; null if the specification itself is refused."""
    warnings: list[str]
    """The warnings of the Kubernetes API server, and whether no node has room for the job now."""


@dataclass(frozen=True, slots=True)
class QuantityRange(Model):
    """Inclusive bounds, in Kubernetes quantities."""

    min: Quantity
    """The minimum."""
    max: Quantity
    """The maximum."""


@dataclass(frozen=True, slots=True)
class TimeoutBounds(Model):
    """The bounds and the default of `timeout_seconds`."""

    min: Count
    """The minimum."""
    max: Count
    """The maximum."""
    default: Count
    """The value of a job that sets none."""


@dataclass(frozen=True, slots=True)
class GraceBounds(Model):
    """The maximum and the default of `grace_period_seconds`."""

    max: Count
    """The maximum."""
    default: Count
    """The value of a job that sets none."""


@dataclass(frozen=True, slots=True)
class UpperBound(Model):
    """An upper bound."""

    max: Count
    """The maximum."""


@dataclass(frozen=True, slots=True)
class StorageBounds(Model):
    """The default of `resources.disk`, under its name of version 0.7."""

    per_job: Quantity
    """Bytes, as a Kubernetes quantity."""


@dataclass(frozen=True, slots=True)
class DiskBounds(Model):
    """The bounds and the default of `resources.disk`, in Kubernetes quantities."""

    min: Quantity
    """The minimum."""
    max: Quantity
    """The maximum."""
    default: Quantity
    """The value of a job that sets none."""


@dataclass(frozen=True, slots=True)
class UserBounds(Model):
    """The bounds and the default of `user`."""

    min: Positive
    """The minimum."""
    max: Positive
    """The maximum."""
    default: Positive
    """The value of a job that sets none."""


@dataclass(frozen=True, slots=True)
class StartTimeoutsView(Model):
    """Seconds that one cause may keep a job from starting before Runway ends the job; null for no limit."""

    image: Positive | None
    """The image does not exist, or access to it is denied."""
    registry: Positive | None
    """The registry fails, or the pull fails for an unknown reason."""
    config: Positive | None
    """The node cannot create the container, as with a missing Secret."""
    unschedulable: Positive | None
    """No node fits the pod."""


@dataclass(frozen=True, slots=True)
class IdleGpuView(Model):
    """When GPUs are idle, and the consequence."""

    below_percent: Positive
    """The utilisation below which a GPU is idle."""
    for_seconds: Positive
    """The time for which each GPU of a job must be below it."""
    action: Annotated[str, text(enum=["report", "cancel"])]
    """Whether Runway reports idle GPUs, or ends the job."""


@dataclass(frozen=True, slots=True)
class LimitsView(Model):
    """The bounds of a job specification."""

    cpu: QuantityRange
    """Bounds of `resources.cpu`."""
    memory: QuantityRange
    """Bounds of `resources.memory`."""
    gpu: UpperBound
    """The bound of `resources.gpu`."""
    timeout_seconds: TimeoutBounds
    """Bounds of `timeout_seconds`."""
    grace_period_seconds: GraceBounds
    """Bounds of `grace_period_seconds`."""
    retries: UpperBound
    """The bound of `retries`."""
    start_timeout_seconds: StartTimeoutsView
    """The limits on a job's start, by cause."""
    disk: DiskBounds
    """Bounds of `resources.disk`."""
    user: UserBounds
    """Bounds of `user`."""
    ephemeral_storage: StorageBounds
    """The ephemeral storage of a job that sets no `resources.disk`. Use `disk` instead."""
    idle_gpu: IdleGpuView | None
    """The limit of idle GPUs; null without one."""
    retention_seconds: Count
    """Seconds until Kubernetes deletes a finished job."""
    secrets_in_env: Annotated[str, text(enum=["refuse", "allow"])] = "allow"
    """Whether Runway refuses names in `env` that look like credentials. Version 0.7 allows them."""


@dataclass(frozen=True, slots=True)
class ImagesView(Model):
    """The images that the policy allows."""

    allow: list[str]
    """Repositories, or `prefix/*`."""


@dataclass(frozen=True, slots=True)
class NodeView(Model):
    """The capacity of one node of a pool."""

    cpu: Cpu
    memory: Memory
    gpu: Gpu


@dataclass(frozen=True, slots=True)
class GpuShareView(Model):
    """The most that a job may request for each of its GPUs."""

    cpu: Cpu
    memory: Memory


@dataclass(frozen=True, slots=True)
class FreeView(Model):
    """The free capacity of a pool now. CPU, memory and GPUs are the most of one node, perhaps of different nodes."""

    nodes: Count
    """The number of ready nodes that accept new pods."""
    cpu: Cpu
    memory: Memory
    gpu: Gpu
    gpu_total: Count
    """The free GPUs of all these nodes."""


@dataclass(frozen=True, slots=True)
class PoolView(Model):
    """Nodes of one type, and their prices."""

    instance_type: str
    """The instance type of the nodes."""
    gpu_type: str | None
    """The type of the GPUs; null without GPUs."""
    spot: bool
    """Whether the cloud may interrupt the nodes. Only jobs that name a spot pool run in it."""
    node: NodeView
    """The capacity of one node."""
    max_nodes: Positive | None
    """The maximum number of nodes; null if the policy gives none."""
    per_gpu: GpuShareView | None
    """The maximum CPU and memory of a job for each of its GPUs; null without a bound."""
    hourly_usd: Usd
    """The hourly price of a node."""
    hourly_usd_per: dict[str, str]
    """The hourly prices of one `cpu`, one `memory_gib` and one `gpu`."""
    free: FreeView | None = None
    """The free capacity now; null while no node is known."""


@dataclass(frozen=True, slots=True)
class CapacityView(Model):
    """The sum of the quotas of one resource beside what the pools can hold."""

    resource: Annotated[str, text(enum=["gpu", "cpu", "memory"])]
    """The resource."""
    gpu_type: str | None
    """The GPU type; null for CPU and memory, which pools without GPUs hold."""
    quotas: Quantity
    """The sum of the quotas of all tenants."""
    pools: Quantity | None
    """What the pools hold with their maximum number of nodes; null if a pool has no `max_nodes`."""
    sufficient: bool | None
    """Whether the pools can hold all quotas at once; null if that is unknown."""


@dataclass(frozen=True, slots=True)
class RateView(Model):
    """A request rate."""

    per_minute: Positive
    """Sustained requests a minute."""
    burst: Positive
    """Maximum requests at once."""


@dataclass(frozen=True, slots=True)
class TenantRateView(Model):
    """The rates of one tenant."""

    per_minute: Positive
    """Sustained submissions a minute."""
    burst: Positive
    """Maximum submissions at once."""
    reads: RateView
    """The rate of reads."""
    streams: Positive
    """Maximum open log and event streams."""


@dataclass(frozen=True, slots=True)
class BudgetLimit(Model):
    """A limit of spending in a rolling window."""

    usd: Usd
    """The limit."""
    hours: Positive
    """The length of the window."""


@dataclass(frozen=True, slots=True)
class VolumeView(Model):
    """A volume that a job can mount."""

    path: str
    """The path in the container."""
    read_only: bool
    """Whether jobs can only read it."""


@dataclass(frozen=True, slots=True)
class OwnView(Model):
    """The names that the jobs of one tenant may use."""

    volumes: dict[str, VolumeView]
    """The volumes by name."""
    secrets: list[str]
    """The Kubernetes Secrets."""
    images: ImagesView
    """The images: the tenant's own list, or the common one."""


@dataclass(frozen=True, slots=True)
class TenantView(Model):
    """The policy of one tenant."""

    namespace: str
    """The Kubernetes namespace of the tenant."""
    quota: AmountsView
    """The quota limit."""
    budget: BudgetLimit | None
    """The budget; null without one."""
    rate: TenantRateView
    """The rate limits."""
    own: OwnView | None = None
    """The tenant's volumes, Secrets and images; null unless `X-Tenant-ID` names the tenant."""


@dataclass(frozen=True, slots=True)
class PolicyView(Model):
    """The policy in force."""

    hash: PolicyHash
    """The same as `policy_hash` of `/readyz`."""
    limits: LimitsView
    """The bounds of every job."""
    images: ImagesView
    """The allowed images."""
    pools: dict[str, PoolView]
    """The pools by name."""
    capacity: list[CapacityView]
    """The quotas compared with the pools."""
    tenants: dict[str, TenantView]
    """The tenants by name."""


@dataclass(frozen=True, slots=True)
class HealthView(Model):
    """The process is alive."""

    status: Annotated[str, text(const="alive")]
    """Alive."""


@dataclass(frozen=True, slots=True)
class UndecodableView(Model):
    """A Kubernetes object with a part that Runway cannot decode."""

    kind: str
    """The resource: `jobs`, `pods`, `events` or `nodes`."""
    namespace: str
    """The namespace; empty for a node."""
    name: str
    """The name of the object."""
    fields: list[str]
    """The parts that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class ReadyView(Model):
    """The process has listed the cluster and is in contact with Kubernetes."""

    status: Annotated[str, text(const="ready")]
    """Ready."""
    role: Annotated[str, text(enum=["writer", "reader"])]
    """`writer` for the leader, which alone submits and cancels; `reader` for any other process."""
    submissions: Annotated[str, text(enum=["open", "stopped"])]
    """`stopped` during an emergency stop."""
    stop_reason: str | None
    """The operator's reason for an emergency stop; null if submissions are open."""
    policy_hash: PolicyHash
    """The policy in force: `runway policy check FILE` shows the hash of a file."""
    watch_age_seconds: dict[str, float]
    """By kind: seconds since the last watch event."""
    jobs: Count
    """The number of jobs in the cluster."""
    undecodable_objects: Count
    """The number of Kubernetes objects with a part that cannot be decoded."""
    undecodable: list[UndecodableView]
    """The first 20 of these objects; docs/runbooks.md explains how to remove them."""


@dataclass(frozen=True, slots=True)
class RefusedQuota(Model):
    """A tenant's quota at the moment of a refusal."""

    limit: Limit
    used: Used
    reserved: Reserved
    requested: AmountsView
    """The request of the refused job."""
    budget: BudgetView | None = None
    """The budget; null without one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, as RFC 9457 defines it: `application/problem+json`."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}

    type: Annotated[str, text(format="uri", pattern="^urn:runway:problem:[a-z_]+$")]
    """The URI of the error code."""
    title: str
    """The fixed title of the error code."""
    status: Annotated[int, WithJsonSchema({"type": "integer", "minimum": 400, "maximum": 599})]
    """The HTTP status."""
    detail: str
    """The observed value and the limit."""
    code: Annotated[str, text(pattern="^[a-z_]+$")]
    """A stable code for programs."""
    hint: str
    """The next step, as one sentence."""
    request_id: RequestId
    """The id of the request in Runway's log."""
    violations: list[Violation]
    """All faults of the request; empty for an error without a faulty field."""
    quota: RefusedQuota | None = None
    """With `quota_exceeded`: the tenant's quota at the moment of the refusal."""
    held_by: list[str] | None = None
    """With `quota_exceeded`: the first 50 jobs that use the exceeded resources."""
    held_by_count: Count | None = None
    """With `quota_exceeded`: the number of these jobs."""
    held_by_names: dict[str, str] | None = None
    """With `quota_exceeded`: the names of the listed jobs that have one, by id."""
    excerpt: str | None = None
    """With `logs_gone`: the stored end of the log."""
    pod: str | None = None
    """With `logs_gone`: the deleted pod."""
    logs_url: Annotated[str, text(format="uri")] | None = None
    """With `logs_gone`: the link to the stored logs, if the policy has one."""
    id: JobId | None = None
    """With `outcome_unknown`: the job that may exist."""
