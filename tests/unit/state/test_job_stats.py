"""Sums over the jobs of a tenant: its recent failures and its longest wait."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.models import JobState
from runway.state.cluster_state import JobStat, JobStats
from runway.state.job_store import JobKey
from tests.support.builders import moment

TENANTS = ("vision", "speech")
times = st.integers(0, 20).map(moment)
stats = st.one_of(
    st.none(),
    st.builds(JobStat, st.just(JobState.FAILED), failed_at=times),
    st.builds(JobStat, st.just(JobState.PENDING), pending_since=times),
    st.just(JobStat(JobState.RUNNING)),
)


@given(
    changes=st.lists(st.tuples(st.sampled_from(TENANTS), st.sampled_from("abcd"), stats), max_size=40),
    since=times,
)
def test_failures_and_waits_follow_every_change(
    changes: list[tuple[str, str, JobStat | None]], since: datetime
) -> None:
    found, now = JobStats(TENANTS), dict[tuple[str, str], JobStat | None]()
    for tenant, name, stat in changes:
        found.put(tenant, JobKey(tenant, name), stat)
        now[tenant, name] = stat
    for tenant in TENANTS:
        known = {JobKey(*place): stat for place, stat in now.items() if place[0] == tenant and stat is not None}
        failed = sorted((stat.failed_at, key) for key, stat in known.items() if stat.failed_at is not None)
        waits = [stat.pending_since for stat in known.values() if stat.pending_since is not None]
        assert found.failed_since(tenant, moment(0)) == failed
        assert found.failed_since(tenant, since) == [place for place in failed if place[0] >= since]
        assert found.longest_pending(tenant) == min(waits, default=None)
