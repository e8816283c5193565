"""The overview: the quota of each tenant as bars, and the health of this process."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from typing import Final, NamedTuple

from runway.admission.quota import TenantQuota
from runway.api.dependencies import AppState
from runway.console.templating import show_cores
from runway.errors import PublicError
from runway.jobs.models import JobState
from runway.jobs.resources import ZERO, ResourceVector
from runway.state.job_store import JobKey
from runway.text import show_bytes

NAMES: Final = {"gpu": "GPU", "cpu": "CPU", "memory": "Memory", "jobs": "Jobs"}
MAX_TENANTS: Final = 100
"""Tenants on the overview; each adds 1.6 kB to the page."""
MAX_HOLDERS: Final = 50
"""Jobs on the page of a tenant that use its quota, those with the most GPUs, then CPU, first."""
MAX_JOBS_SCANNED: Final = 2000
"""Jobs that the page compares for that, which bounds its cost."""


class Part(NamedTuple):
    """A part of a bar, in percent of the limit. `kind` is running, terminating or reserved."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One resource of a tenant. `full`: nothing is free. Not `allowed`: the limit is 0."""

    name: str
    used: str
    reserved: str | None
    terminating: str | None
    limit: str
    allowed: bool
    full: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that uses quota. `state` is None for pods of a deleted Job or of other owners."""

    id: str
    state: JobState | None
    held: ResourceVector
    terminating: bool


def busiest(use: AppState, tenants: list[str]) -> list[str]:
    """Return the tenants of the overview in the order of the policy: of many, those with the highest usage."""

    def size(tenant: str) -> tuple[int, int, int, int]:
        used = use.cluster.ledger.accounts[tenant].used
        return used.gpu, used.jobs, used.cpu, used.memory

    most = set(nlargest(MAX_TENANTS, tenants, key=size))
    return [tenant for tenant in tenants if tenant in most]


def holders_of(use: AppState, tenant: str) -> tuple[list[Holder], int]:
    """Return the jobs that use a tenant's quota, those with the most GPUs first, and their total number."""
    account, namespace = use.cluster.ledger.accounts[tenant], use.policy.tenants[tenant].namespace
    first = islice(account.observed.items(), MAX_JOBS_SCANNED)
    largest = nlargest(
        MAX_HOLDERS, first, key=lambda entry: (entry[1].amounts.gpu, entry[1].amounts.cpu, entry[1].amounts.memory)
    )
    holders = [
        Holder(job_id, use.cluster.stats.state(JobKey(namespace, job_id)), usage.amounts, usage.terminating != ZERO)
        for job_id, usage in largest
    ]
    return holders, len(account.observed)


def bars_of(account: TenantQuota) -> tuple[Bar, ...]:
    """Return the bars of GPUs, CPU, memory and jobs."""
    return tuple(_bar(account, resource) for resource in NAMES)


def _bar(account: TenantQuota, resource: str) -> Bar:
    limit, used, reserved, terminating = (
        int(getattr(amounts, resource))
        for amounts in (account.limit, account.used, account.reserved, account.terminating)
    )
    show = {"cpu": show_cores, "memory": show_bytes}.get(resource, str)
    return Bar(
        name=NAMES[resource],
        used=show(used),
        reserved=show(reserved) if reserved else None,
        terminating=show(terminating) if terminating else None,
        limit=show(limit),
        allowed=limit > 0,
        full=used + reserved >= limit,
        parts=_parts(limit, {"running": used - terminating, "terminating": terminating, "reserved": reserved}),
    )


def _parts(limit: int, amounts: dict[str, int]) -> tuple[Part, ...]:
    """Return the parts side by side. Usage can exceed a lowered quota; the bar ends at the limit."""
    parts, left = [], 0.0
    for kind, held in amounts.items():
        width = min(100 * held / limit, 100 - left) if limit else 0.0
        if width > 0:
            parts.append(Part(kind, round(left, 2), round(width, 2)))
            left += width
    return tuple(parts)


def rejects_writes(use: AppState) -> str | None:
    """Return the reason why this process rejects writes; None on the leader."""
    try:
        use.leadership.require_leader()
    except PublicError as error:
        return error.detail
    return None
