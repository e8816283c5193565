"""What OpenAPI shows of requests and of answers that have no class of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runway.jobs.annotations import CostView
from runway.jobs.view import JobState, JobView
from runway.state.undecodable_objects import UndecodableObject


@dataclass(frozen=True, slots=True)
class JobList:
    """One page of jobs, newest first; `next_cursor` is null on the last page."""

    jobs: list[JobView]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class AmountsView:
    """Resources in Kubernetes quantities, and a number of jobs."""

    gpu: int
    cpu: str
    memory: str
    jobs: int


@dataclass(frozen=True, slots=True)
class HolderView:
    """A job that holds some of a tenant's quota. `state` is null where only pods of a deleted Job are left."""

    id: str
    state: JobState | None
    gpu: int
    cpu: str
    memory: str
    terminating: bool


@dataclass(frozen=True, slots=True)
class TenantQuotaView:
    """What a tenant may hold, holds, has reserved for creates in flight, and holds only for terminating pods."""

    tenant: str
    namespace: str
    limit: AmountsView
    used: AmountsView
    reserved: AmountsView
    held_by_terminating: AmountsView
    jobs: list[HolderView]


@dataclass(frozen=True, slots=True)
class QuotaView:
    """Every tenant's quota, or one tenant's."""

    tenants: list[TenantQuotaView]


@dataclass(frozen=True, slots=True)
class UsageView:
    """What a job used; null is unknown, never 0.

    CPU, throttling and GPU are of the last attempt, `memory_peak_bytes` of all. `cpu_cores` is a mean. Ratios are from
    0 to 1; `throttled_ratio` is of `cpu_periods` periods. `source` is "prometheus", or "kept" for what was kept when
    the job ended, or null where none is set up. `problem` says why the source has not answered. `findings` are what the
    figures mean, in plain words.
    """

    id: str
    source: Literal["prometheus", "kept"] | None
    problem: str | None
    cpu_seconds: float | None
    cpu_cores: float | None
    cpu_limit_cores: float | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    memory_limit_bytes: int | None
    throttled_ratio: float | None
    cpu_periods: int | None
    gpu_utilisation: float | None
    sampled_at: datetime | None
    findings: list[str]


@dataclass(frozen=True, slots=True)
class ViolationView:
    """One thing that is wrong with a request: where, what was seen, what is allowed, what to do."""

    field: str
    code: str
    message: str
    observed: str | None
    limit: str | None
    hint: str | None


@dataclass(frozen=True, slots=True)
class QuotaSummary:
    """A tenant's quota at the moment of a decision."""

    limit: AmountsView
    used: AmountsView
    reserved: AmountsView


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a submission would come to. `cost` and `manifest` are null where the specification itself is refused."""

    decision: Literal["admitted", "refused"]
    violations: list[ViolationView]
    cost: CostView | None
    quota: QuotaSummary
    manifest: dict[str, object] | None
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class QuantityRange:
    """Bounds, both included, in Kubernetes quantities."""

    min: str
    max: str


@dataclass(frozen=True, slots=True)
class TimeoutBounds:
    """Bounds of `timeout_seconds`, and what holds where a job names none."""

    min: int
    max: int
    default: int


@dataclass(frozen=True, slots=True)
class GraceBounds:
    """The most that `grace_period_seconds` may be, and what holds where a job names none."""

    max: int
    default: int


@dataclass(frozen=True, slots=True)
class UpperBound:
    """An upper bound."""

    max: int


@dataclass(frozen=True, slots=True)
class StorageBounds:
    """Scratch disk of every job."""

    per_job: str


@dataclass(frozen=True, slots=True)
class LimitsView:
    """What a job may ask for at most, and at least."""

    cpu: QuantityRange
    memory: QuantityRange
    gpu: UpperBound
    timeout_seconds: TimeoutBounds
    grace_period_seconds: GraceBounds
    retries: UpperBound
    ephemeral_storage: StorageBounds
    retention_seconds: int


@dataclass(frozen=True, slots=True)
class ImagesView:
    """Where images may come from."""

    allow: list[str]


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one node of a pool has."""

    cpu: str
    memory: str
    gpu: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """Nodes of one type, and what they and their parts cost an hour. `hourly_usd_per` has the keys of its parts."""

    instance_type: str
    gpu_type: str | None
    node: NodeView
    hourly_usd: str
    hourly_usd_per: dict[str, str]


@dataclass(frozen=True, slots=True)
class RateView:
    """Requests a minute in the long run, and at once."""

    per_minute: int
    burst: int


@dataclass(frozen=True, slots=True)
class TenantRateView:
    """Submissions a minute in the long run and at once; reads and open streams, each apart."""

    per_minute: int
    burst: int
    reads: RateView
    streams: int


@dataclass(frozen=True, slots=True)
class TenantView:
    """A team: its namespace, what it may hold, how fast it may ask."""

    namespace: str
    quota: AmountsView
    rate: TenantRateView


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policy in force: bounds, allowed images, pools with their prices, tenants."""

    limits: LimitsView
    images: ImagesView
    pools: dict[str, PoolView]
    tenants: dict[str, TenantView]


@dataclass(frozen=True, slots=True)
class HealthView:
    """The process is alive."""

    status: Literal["alive"]


@dataclass(frozen=True, slots=True)
class ReadyView:
    """The process knows the cluster, and Kubernetes is in contact. Only the writer admits and cancels."""

    status: Literal["ready"]
    role: Literal["writer", "reader"]
    submissions: Literal["open", "stopped"]
    stop_reason: str | None
    watch_age_seconds: dict[str, float]
    jobs: int
    undecodable_objects: int
    undecodable: list[UndecodableObject]
