"""What is kept per tenant about its jobs, so that a scrape or a page need not look at each: states, money, waiting."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from runway.jobs.annotations import cost_of, spec_of, usd
from runway.jobs.view import JobState, pending_since, state_of
from runway.kube.objects import Job, Pod
from runway.state.job_store import JobKey


class JobStat(msgspec.Struct, frozen=True, gc=False):
    """What a job adds to the sums of its tenant. `ceiling` is in USD, and nothing once the job is over."""

    state: JobState
    ceiling: Decimal
    pending_since: datetime | None


def job_stat(job: Job, pods: list[Pod], gone: frozenset[str]) -> JobStat:
    """Worked out from a Job and its pods, the names of those that are gone among them."""
    spec, cost = spec_of(job), cost_of(job)
    state = state_of(job, pods, gone, spec.retries if spec else 0)
    ceiling = (usd(cost.ceiling) if cost and not state.is_finished else None) or Decimal()
    return JobStat(state, ceiling, pending_since(job, pods) if state is JobState.PENDING else None)


class JobStats:
    """The sums, changed with each job that changes."""

    def __init__(self, tenants: Iterable[str]) -> None:
        tenants = tuple(tenants)
        self.states: Counter[tuple[str, JobState]] = Counter()
        """How many jobs a tenant has in a state."""
        self.active_ceiling: dict[str, Decimal] = dict.fromkeys(tenants, Decimal())
        """What a tenant's unfinished jobs may cost at most, in USD."""
        self._tallies: dict[JobKey, JobStat] = {}
        self._pending: dict[str, list[tuple[datetime, JobKey]]] = {tenant: [] for tenant in tenants}
        """By tenant, the jobs that wait, longest first."""

    def put(self, tenant: str, key: JobKey, tally: JobStat | None) -> None:
        """What a job adds from now on; None where there is none by this name any more."""
        before, pending = self._tallies.pop(key, None), self._pending[tenant]
        if before is not None:
            self.states[tenant, before.state] -= 1
            self.active_ceiling[tenant] -= before.ceiling
            if before.pending_since is not None:
                del pending[bisect_left(pending, (before.pending_since, key))]
        if tally is not None:
            self._tallies[key] = tally
            self.states[tenant, tally.state] += 1
            self.active_ceiling[tenant] += tally.ceiling
            if tally.pending_since is not None:
                insort(pending, (tally.pending_since, key))

    def state(self, key: JobKey) -> JobState | None:
        """The state of a job; None where there is no such Job, or it is not one of Runway's."""
        tally = self._tallies.get(key)
        return None if tally is None else tally.state

    def longest_pending(self, tenant: str) -> datetime | None:
        """Since when the tenant's job waits that has waited longest; None where none does."""
        pending = self._pending[tenant]
        return pending[0][0] if pending else None
