"""What OpenAPI shows of requests and of answers that have no class of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from runway.jobs.view import JobView, State


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
    state: State | None
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


_TEXTS: Final = {"type": ["array", "null"], "items": {"type": "string"}}

JOB_SPEC_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "JobSpec",
    "required": ["image", "resources"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": ["string", "null"], "description": "A label for people, 1 to 63 characters"},
        "image": {"type": "string", "description": "From an allowed repository; GET /v1/policy lists them"},
        "command": {**_TEXTS, "description": "Replaces the image's entry point; reaches the process verbatim"},
        "args": {**_TEXTS, "description": "Arguments; reach the process verbatim"},
        "env": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "resources": {
            "type": "object",
            "required": ["cpu", "memory"],
            "additionalProperties": False,
            "properties": {
                "cpu": {"type": "string", "description": "A Kubernetes quantity such as 500m or 2"},
                "memory": {"type": "string", "description": "A Kubernetes quantity such as 512Mi or 8Gi"},
                "gpu": {"type": ["integer", "null"], "minimum": 0},
                "gpu_type": {"type": ["string", "null"]},
            },
        },
        "timeout_seconds": {
            "type": ["integer", "null"],
            "description": "The whole life of the job from acceptance: waiting, image pull and retries included",
        },
        "retries": {"type": ["integer", "null"], "minimum": 0},
        "grace_period_seconds": {"type": ["integer", "null"], "description": "Between SIGTERM and SIGKILL"},
        "max_cost_usd": {"type": ["string", "null"], "description": "Refuse the job if it could cost more"},
    },
    "examples": [
        {
            "name": "train-resnet",
            "image": "runway.local/busybox:1",
            "command": ["sh", "-c", "echo hello"],
            "resources": {"cpu": "500m", "memory": "64Mi"},
            "timeout_seconds": 600,
        }
    ],
}

DRY_RUN_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "DryRun",
    "required": ["decision", "violations", "cost", "quota", "manifest", "warnings"],
    "properties": {
        "decision": {"type": "string", "enum": ["admitted", "refused"]},
        "violations": {"type": "array", "items": {"type": "object"}},
        "cost": {"type": ["object", "null"]},
        "quota": {"type": "object"},
        "manifest": {"type": ["object", "null"]},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
