"""The shapes of Runway's answers, as far as the command line reads them; `-o json` passes on every other member too.

Amounts are Kubernetes quantities, money is USD as a decimal string, times are RFC 3339 in UTC, None means unknown.
"""

from __future__ import annotations

from typing import TypedDict


class Resources(TypedDict):
    cpu: str
    memory: str
    gpu: int
    gpu_type: str | None


class Spec(TypedDict):
    name: str | None
    image: str
    command: list[str]
    args: list[str]
    env: dict[str, str]
    resources: Resources
    timeout_seconds: int
    retries: int
    grace_period_seconds: int
    max_cost_usd: str | None


class Condition(TypedDict):
    code: str
    message: str
    since: str | None


class Attempt(TypedDict):
    pod: str
    node: str | None
    state: str
    exit_code: int | None
    signal: str | None
    reason: str | None
    created_at: str | None
    bound_at: str | None
    started_at: str | None
    finished_at: str | None
    counted: bool
    cause: str | None
    message: str | None


class Failure(TypedDict):
    code: str
    category: str
    retryable: bool
    message: str
    hint: str | None
    evidence: dict[str, object]


class CostLine(TypedDict):
    resource: str
    quantity: str
    hourly: str


class Cost(TypedDict):
    currency: str
    rate_card: str
    hourly: str
    ceiling: str
    actual: str | None
    lines: list[CostLine]


class KubernetesName(TypedDict):
    namespace: str
    job: str


class Excerpt(TypedDict):
    pod: str
    text: str
    truncated: bool


class Usage(TypedDict):
    """What a job used, as far as it is known; ratios are from 0 to 1."""

    cpu_cores: float | None
    cpu_limit_cores: float | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    memory_limit_bytes: int | None
    throttled_ratio: float | None
    gpu_utilisation: float | None


class JobView(TypedDict):
    """One job. `spec` and `cost` are None for a Job that did not come through Runway."""

    id: str
    tenant: str
    name: str | None
    state: str
    spec: Spec | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    conditions: list[Condition]
    attempts: list[Attempt]
    attempts_left_out: int
    disruptions: int
    failure: Failure | None
    cost: Cost | None
    kubernetes: KubernetesName
    excerpt: Excerpt | None
    usage: Usage | None


class JobPage(TypedDict):
    jobs: list[JobView]
    next_cursor: str | None


class Amounts(TypedDict):
    gpu: int
    cpu: str
    memory: str
    jobs: int


class QuotaHolder(TypedDict):
    """A job that holds quota. `state` is None where only pods of a deleted Job are left."""

    id: str
    state: str | None
    gpu: int
    cpu: str
    memory: str
    terminating: bool


class TenantQuota(TypedDict):
    tenant: str
    namespace: str
    limit: Amounts
    used: Amounts
    reserved: Amounts
    held_by_terminating: Amounts
    jobs: list[QuotaHolder]


class QuotaPage(TypedDict):
    tenants: list[TenantQuota]


class Violation(TypedDict):
    field: str
    code: str
    message: str
    observed: str | None
    limit: str | None
    hint: str | None


class QuotaNow(TypedDict):
    limit: Amounts
    used: Amounts
    reserved: Amounts


class DryRun(TypedDict):
    """What a submission would come to. `cost` and `manifest` are None where the spec itself is refused."""

    decision: str
    violations: list[Violation]
    cost: Cost | None
    quota: QuotaNow
    manifest: dict[str, object] | None
    warnings: list[str]


OVER = frozenset({"succeeded", "failed", "cancelled"})
"""The states that a job does not leave."""


def attempts_begun(view: JobView) -> int:
    """How many attempts there are, those that the view leaves out included."""
    return view["attempts_left_out"] + len(view["attempts"])


def is_over(view: JobView) -> bool:
    """Whether the job has reached a state that it does not leave."""
    return view["state"] in OVER
