"""What the overview shows: each tenant's quota as bars, and the health of the control plane. O(tenants)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from heapq import nlargest
from itertools import islice
from typing import Final

from runway.admission.quota import Amounts, TenantQuota
from runway.api.app_state import AppState
from runway.console.filters import amount
from runway.errors import PublicError
from runway.jobs.view import JobState
from runway.state.job_store import JobKey
from runway.state.watch_status import WatchStatus

NAMES: Final = {"gpu": "GPU", "cpu": "CPU", "memory": "Memory", "jobs": "Jobs"}
MAX_TENANTS: Final = 100
"""Tenants on the overview: each takes 1.6 kB of the page."""
MAX_HOLDERS: Final = 50
"""Holders of a tenant's quota that are shown, those with the most GPUs, then CPU, first."""
MAX_JOBS_SCANNED: Final = 2000
"""Holders that are looked at for that: a page's cost has a bound, whatever a policy allows."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar, in percent of the limit. `kind`: running (used, not told to end), terminating, reserved."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One resource of a tenant, as a bar and in words. `full`: nothing is free. Not `allowed`: the limit is 0."""

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
    """A job that holds quota. `state` is None where only pods of a deleted Job, or of something else, are left."""

    id: str
    state: JobState | None
    held: Amounts
    terminating: bool


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """A tenant at a glance. `ceiling` is what its jobs that are not over can cost at most, in USD."""

    name: str
    namespace: str
    bars: tuple[Bar, ...]
    states: dict[JobState, int]
    waiting_since: datetime | None
    ceiling: Decimal


@dataclass(frozen=True, slots=True)
class WatchHealth:
    """One watch: what it is of, whether it has listed everything, why contact is lost, and seconds since it heard."""

    kind: str
    synced: bool
    lost: str | None
    age: float


@dataclass(frozen=True, slots=True)
class Health:
    """The control plane, as this process knows it.

    `may_not_write` says why it is not the writer, `stopped` why submissions are stopped, `broken` what has failed.
    """

    writer: bool
    may_not_write: str | None
    stopped: str | None
    broken: str | None
    synced: bool
    watches: tuple[WatchHealth, ...]
    jobs: int
    streams: int
    max_streams: int
    instance: str | None


def busiest(use: AppState, tenants: list[str]) -> list[str]:
    """The tenants that the overview shows, in the policy's order: where there are many, those that use most."""
    if len(tenants) <= MAX_TENANTS:
        return tenants
    accounts = use.observer.ledger.accounts
    most = set(nlargest(MAX_TENANTS, tenants, key=lambda tenant: _size(accounts[tenant].used)))
    return [tenant for tenant in tenants if tenant in most]


def _size(used: Amounts) -> tuple[int, int, int, int]:
    return used.gpu, used.jobs, used.cpu, used.memory


def tenant_summary(use: AppState, tenant: str) -> TenantSummary:
    """A tenant's quota, its jobs by state, how long the one has waited that waits longest, and what they can cost."""
    observer = use.observer
    return TenantSummary(
        tenant,
        use.policy.tenants[tenant].namespace,
        bars_of(observer.ledger.accounts[tenant]),
        {state: observer.tallies.states[tenant, state] for state in JobState},
        observer.tallies.longest_pending(tenant),
        observer.tallies.active_ceiling[tenant],
    )


def health_of(use: AppState) -> Health:
    """How this process is doing. It never raises: this is what is looked at when something is wrong."""
    observer = use.observer
    return Health(
        writer=use.writer.is_leader,
        may_not_write=_may_not_write(use),
        stopped=use.writer.stop_reason,
        broken=observer.broken,
        synced=observer.synced,
        watches=tuple(
            WatchHealth(kind, watch.synced, watch.disconnect_reason, observer.age(watch))
            for kind, watch in _watches(use).items()
        ),
        jobs=len(observer.store),
        streams=use.limits.streams.total(),
        max_streams=use.settings.max_streams,
        instance=use.settings.instance,
    )


def holders_of(use: AppState, tenant: str) -> tuple[list[Holder], int]:
    """Who holds a tenant's quota, those with the most GPUs first, and how many there are in all."""
    account, namespace = use.observer.ledger.accounts[tenant], use.policy.tenants[tenant].namespace
    first = islice(account.bookings.items(), MAX_JOBS_SCANNED)
    largest = nlargest(
        MAX_HOLDERS, first, key=lambda entry: (entry[1].amounts.gpu, entry[1].amounts.cpu, entry[1].amounts.memory)
    )
    holders = [
        Holder(
            job_id,
            use.observer.tallies.state(JobKey(namespace, job_id)),
            booking.amounts,
            booking.terminating != Amounts(),
        )
        for job_id, booking in largest
    ]
    return holders, len(account.bookings)


def bars_of(account: TenantQuota) -> tuple[Bar, ...]:
    """A bar for each resource."""
    return tuple(_bar(account, name) for name in Amounts.__struct_fields__)


def _bar(account: TenantQuota, resource: str) -> Bar:
    limit, used, reserved, terminating = (
        int(getattr(amounts, resource))
        for amounts in (account.limit, account.used, account.reserved, account.terminating)
    )
    show = amount(resource)
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
    """The parts side by side. A quota that was lowered can be exceeded; the bar ends at its limit all the same."""
    parts, left = [], 0.0
    for kind, held in amounts.items():
        width = min(100 * held / limit, 100 - left) if limit else 0.0
        if width > 0:
            parts.append(Part(kind, round(left, 2), round(width, 2)))
            left += width
    return tuple(parts)


def _may_not_write(use: AppState) -> str | None:
    try:
        use.writer.require_leader()
    except PublicError as error:
        return error.detail
    return None


def _watches(use: AppState) -> dict[str, WatchStatus]:
    return use.observer.watches | use.observer.surroundings.watches
