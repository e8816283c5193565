"""Sums over the jobs of a tenant, so that a scrape does not read every job."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from runway.jobs.annotations import cost_of, spec_of, usd
from runway.jobs.models import JobState
from runway.jobs.view import pending_since, state_of
from runway.kube.objects import Job, Pod
from runway.state.job_store import JobKey


class JobStat(msgspec.Struct, frozen=True, gc=False):
    """The contribution of one job. `ceiling` is its cost ceiling in USD, and zero once the job is finished."""

    state: JobState
    ceiling: Decimal
    pending_since: datetime | None


def job_stat(job: Job, pods: list[Pod], deleted_pods: frozenset[str]) -> JobStat:
    """Compute the contribution of a job. `deleted_pods` names those of its pods that Kubernetes deleted."""
    spec, cost = spec_of(job), cost_of(job)
    state = state_of(job, pods, deleted_pods, spec.retries if spec else 0)
    ceiling = (usd(cost.ceiling) if cost and not state.is_finished else None) or Decimal()
    return JobStat(state, ceiling, pending_since(job, pods) if state is JobState.PENDING else None)


class JobStats:
    """The sums of each tenant, updated with each change of a job."""

    def __init__(self, tenants: Iterable[str]) -> None:
        tenants = tuple(tenants)
        self.states: Counter[tuple[str, JobState]] = Counter()
        """The number of jobs by tenant and state."""
        self.active_ceiling: dict[str, Decimal] = dict.fromkeys(tenants, Decimal())
        """The cost ceiling of each tenant's unfinished jobs, in USD."""
        self._stats: dict[JobKey, JobStat] = {}
        self._pending: dict[str, list[tuple[datetime, JobKey]]] = {tenant: [] for tenant in tenants}
        """The pending jobs of each tenant, longest first."""

    def put(self, tenant: str, key: JobKey, stat: JobStat | None) -> None:
        """Replace the contribution of a job; None removes it."""
        before, pending = self._stats.pop(key, None), self._pending[tenant]
        if before is not None:
            self.states[tenant, before.state] -= 1
            self.active_ceiling[tenant] -= before.ceiling
            if before.pending_since is not None:
                del pending[bisect_left(pending, (before.pending_since, key))]
        if stat is not None:
            self._stats[key] = stat
            self.states[tenant, stat.state] += 1
            self.active_ceiling[tenant] += stat.ceiling
            if stat.pending_since is not None:
                insort(pending, (stat.pending_since, key))

    def state(self, key: JobKey) -> JobState | None:
        """Return the state of a job; None without a Job of this name that Runway created."""
        stat = self._stats.get(key)
        return None if stat is None else stat.state

    def longest_pending(self, tenant: str) -> datetime | None:
        """Return the start of the longest current wait of a tenant's jobs; None without a pending job."""
        pending = self._pending[tenant]
        return pending[0][0] if pending else None
