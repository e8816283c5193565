"""The overview: the quota of each tenant as bars, and the health of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from heapq import nlargest
from itertools import islice
from typing import Final

from runway.admission.quota import Row, TenantQuota
from runway.api.dependencies import AppState
from runway.console.templating import show_cores, show_micro_usd
from runway.errors import PublicError
from runway.jobs.models import JobState
from runway.jobs.resources import ZERO, ResourceVector
from runway.state.job_store import JobKey
from runway.text import show_bytes

NAMES: Final = {
    "gpu": "GPU", "cpu": "CPU", "memory": "Memory", "disk": "Disk", "jobs": "Jobs", "usd_per_hour": "USD an hour"
}  # fmt: skip
_SHOW: Final[dict[str, Callable[[int], str]]] = {
    "cpu": show_cores, "memory": show_bytes, "disk": show_bytes, "usd_per_hour": show_micro_usd
}  # fmt: skip
MAX_TENANTS: Final = 100
"""Tenants on the overview; each adds 1.6 kB to the page."""
MAX_HOLDERS: Final = 50
"""Jobs on the page of a tenant that use its quota, those with the most GPUs, then CPU, first."""
MAX_JOBS_SCANNED: Final = 2000
"""Jobs that the page compares for that, which bounds its cost."""
RECENT: Final = timedelta(hours=1)
MAX_FAILURES: Final = 5
"""The failures of that time on the overview, latest first."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar, in percent of the limit. `kind` is running, terminating or reserved."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One resource of a tenant or a pool. `full`: nothing is free. Not `allowed`: the limit is 0."""

    name: str
    used: str
    reserved: str | None
    terminating: str | None
    limit: str
    free: str
    allowed: bool
    full: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """A job that uses quota. `state` is None for the remaining pods of a deleted Job, and for pods of other owners."""

    id: str
    name: str | None
    state: JobState | None
    held: ResourceVector
    terminating: bool


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """A tenant at a glance. `ceiling` is the maximum cost of its active jobs, and `budget` has its parts, in USD.

    Nothing of an idle tenant uses or reserves quota.
    """

    name: str
    namespace: str
    is_idle: bool
    bars: tuple[Bar, ...]
    states: dict[JobState, int]
    waiting_since: datetime | None
    ceiling: Decimal
    budget: dict[str, object] | None

    @property
    def jobs(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class WatchHealth:
    """One watch; `age` is the time since its last event, in seconds."""

    kind: str
    synced: bool
    disconnect_reason: str | None
    age: float


@dataclass(frozen=True, slots=True)
class Health:
    """The state of this process.

    `rejects_writes` is the reason why it is not leader, `stopped` the reason of an emergency stop, `broken` a failure,
    `unsupported` the reason why it leaves the cluster alone.
    """

    leader: bool
    rejects_writes: str | None
    stopped: str | None
    broken: str | None
    unsupported: str | None
    watches: tuple[WatchHealth, ...]
    jobs: int
    streams: int
    max_streams: int
    instance: str | None


def busiest(use: AppState, tenants: list[str]) -> list[str]:
    """Return the tenants of the overview in the order of the policy: of many, those with the highest usage."""
    if len(tenants) <= MAX_TENANTS:
        return tenants
    accounts = use.cluster.ledger.accounts
    most = set(nlargest(MAX_TENANTS, tenants, key=lambda tenant: _size(accounts[tenant].used)))
    return [tenant for tenant in tenants if tenant in most]


def _size(used: ResourceVector) -> tuple[int, int, int, int]:
    return used.gpu, used.jobs, used.cpu, used.memory


def tenant_summary(use: AppState, tenant: str) -> TenantSummary:
    """Return a tenant's quota, its jobs by state, its longest wait, and the maximum cost of its active jobs."""
    cluster, account, now = use.cluster, use.cluster.ledger.accounts[tenant], use.now()
    return TenantSummary(
        tenant,
        use.policy.tenants[tenant].namespace,
        account.used == account.reserved == ZERO,
        bars_of(account, now),
        {state: cluster.stats.states[tenant, state] for state in JobState},
        cluster.stats.longest_pending(tenant),
        Decimal(account.used.ceiling).scaleb(-6),
        account.budget_to_json(now),
    )


def health_of(use: AppState) -> Health:
    """Return the health of this process. It never raises: people read it when something is wrong."""
    cluster = use.cluster
    return Health(
        leader=use.leadership.is_leader,
        rejects_writes=_rejects_writes(use),
        stopped=use.leadership.stop_reason,
        broken=cluster.failure,
        unsupported=cluster.unsupported,
        watches=tuple(
            WatchHealth(kind, watch.synced, watch.disconnect_reason, cluster.age(watch))
            for kind, watch in cluster.all_watches.items()
        ),
        jobs=len(cluster.store),
        streams=use.limits.streams.total(),
        max_streams=use.settings.max_streams,
        instance=use.settings.instance,
    )


def holders_of(use: AppState, tenant: str) -> tuple[list[Holder], int]:
    """Return the jobs that use a tenant's quota, those with the most GPUs first, and their total number."""
    account, namespace = use.cluster.ledger.accounts[tenant], use.policy.tenants[tenant].namespace
    first = islice(account.users(), MAX_JOBS_SCANNED)
    largest = nlargest(
        MAX_HOLDERS, first, key=lambda entry: (entry[1].amounts.gpu, entry[1].amounts.cpu, entry[1].amounts.memory)
    )
    holders = [
        Holder(
            job_id,
            use.cluster.name_of(key := JobKey(namespace, job_id)),
            use.cluster.stats.state(key),
            usage.amounts,
            usage.terminating != ZERO,
        )
        for job_id, usage in largest
    ]
    return holders, account.used.jobs


def recent_failures(use: AppState, tenants: list[str]) -> tuple[list[JobKey], int]:
    """Return the latest jobs of these tenants that failed in the last hour, and the number of all of them."""
    since = use.now() - RECENT
    found = [place for tenant in tenants for place in use.cluster.stats.failed_since(tenant, since)]
    return [key for _, key in nlargest(MAX_FAILURES, found)], len(found)


def bars_of(account: TenantQuota, now: datetime) -> tuple[Bar, ...]:
    """Return a bar for each limited amount, and one for the budget."""
    bars = [_row_bar(account, row, limit) for row, limit in account.limits.items()]
    if account.budget is not None:
        used = account.budget.spent(now) + account.used.ceiling
        name = f"USD in {account.budget.hours} h"
        bars.append(bar_of(name, show_micro_usd, account.budget.limit, used, account.reserved.ceiling))
    return tuple(bars)


def _row_bar(account: TenantQuota, row: Row, limit: int) -> Bar:
    name = NAMES.get(row.name) or f"GPU {row.gpu_type}"
    amounts = map(row.amount, (account.used, account.reserved, account.terminating))
    return bar_of(name, _SHOW.get(row.name, str), limit, *amounts)


def bar_of(
    name: str, show: Callable[[int], str], limit: int, used: int, reserved: int = 0, terminating: int = 0
) -> Bar:
    """Return the bar of one resource. `show` formats its amounts."""
    return Bar(
        name=name,
        used=show(used),
        reserved=show(reserved) if reserved else None,
        terminating=show(terminating) if terminating else None,
        limit=show(limit),
        free=show(max(0, limit - used - reserved)),
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


def _rejects_writes(use: AppState) -> str | None:
    try:
        use.leadership.require_leader()
    except PublicError as error:
        return error.detail
    return None
