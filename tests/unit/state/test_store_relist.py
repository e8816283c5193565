"""Apply a list in steps, with events and responses in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runway.backoff import Timing
from runway.controllers.sync import OBJECTS_PER_SLICE, ClusterSync
from runway.kube.client import KubeClient
from runway.kube.objects import Job, Pod
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey, JobStore
from runway.telemetry import Metrics
from tests.support.builders import NAMESPACE, ended, job, pod, policy, running
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

STEPS: Final = 12
"""More steps than most lists here have."""

Change = tuple[Job | Pod, bool]
"""An object, and whether this event deletes it."""


def _lives(names: list[tuple[str, bool, bool]], make: Callable[[str, str, int, bool], Job | Pod]) -> list[Change]:
    """Events in version order, from 1 on; the name of a deleted object can be reused."""
    lives, finished = dict.fromkeys("abc", 0), dict.fromkeys("abc", False)
    changes = []
    for version, (name, deleted, ends) in enumerate(names, start=1):
        finished[name] = finished[name] or ends
        changes.append((make(name, f"{name}-{lives[name]}", version, finished[name]), deleted))
        if deleted:
            lives[name], finished[name] = lives[name] + 1, False
    return changes


def _job(name: str, uid: str, version: int, finished: bool) -> Job:
    return job(name, uid=uid, version=version, created=int(uid[2:]), outcome="Complete" if finished else None)


def _pod(name: str, uid: str, version: int, finished: bool) -> Pod:
    made = pod(name, of="a", version=version, state=ended() if finished else running())
    return replace(made, metadata=replace(made.metadata, uid=uid))


def _as_of(changes: list[Change], at: int) -> dict[str, Job | Pod]:
    there: dict[str, Job | Pod] = {}
    for item, deleted in changes[:at]:
        there.pop(item.metadata.name, None)
        if not deleted:
            there[item.metadata.name] = item
    return there


class WatchedStore:
    """A store that applies the events of one kind."""

    def __init__(self, changes: list[Change]) -> None:
        self.store = JobStore()
        self._changes = changes
        self._seen = 0

    def watch(self, until: int) -> None:
        """Apply all events up to this version."""
        for item, deleted in self._changes[self._seen : until]:
            if isinstance(item, Job):
                (self.store.delete_job if deleted else self.store.upsert_job)(item)
            else:
                (self.store.delete_pod if deleted else self.store.upsert_pod)(item)
        self._seen = max(self._seen, until)

    def watch_next(self) -> None:
        """Apply the next event."""
        self.watch(self._seen + 1)

    def lose_until(self, at: int) -> None:
        """Lose the watch; the next one starts after this version."""
        self._seen = at

    def respond(self, which: int) -> None:
        """Apply the late response to a write that is older than the list."""
        item, deleted = self._changes[which]
        if isinstance(item, Job) and not deleted:
            self.store.upsert_job(item)

    def versions(self) -> dict[str, str]:
        """Return the stored versions by name."""
        found: dict[str, Job | Pod] = {}
        for name in "abc":
            record = self.store.get(JobKey(NAMESPACE, name))
            if record is not None:
                found |= {name: record.job} if record.job else {}
                found |= record.pods
        return {name: item.metadata.resource_version for name, item in found.items()}


@pytest.mark.parametrize("kind", ["jobs", "pods"])
@settings(max_examples=100)
@given(
    names=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=4, max_size=10),
    listed=st.integers(1, 10),
    behind=st.integers(0, 5),
    beside=st.booleans(),
    between=st.lists(
        st.tuples(st.sampled_from(["step", "watch", "response"]), st.integers(0, 9)), min_size=4, max_size=STEPS
    ),
)
def test_events_between_steps_lead_to_current_state(
    kind: str, names: list[tuple[str, bool, bool]], listed: int, behind: int, beside: bool,
    between: list[tuple[str, int]],
) -> None:  # fmt: skip
    """The list runs beside a watch that is behind, or replaces a lost watch."""
    changes = _lives(names, _job if kind == "jobs" else _pod)
    at = min(listed, len(changes))
    watched = WatchedStore(changes)
    watched.watch(max(0, at - behind))
    with watched.store.track_deletions() as deleted:
        there: Any = list(_as_of(changes, at).values())
        replace: Any = watched.store.replace_jobs if kind == "jobs" else watched.store.replace_pods
        steps: Iterator[list[JobKey]] = replace(there, at, deleted)
        for what, which in between:
            if what == "step":
                next(steps, None)
            elif what == "response":
                watched.respond(which % len(changes))
            elif beside:
                watched.watch_next()
        for _ in steps:
            pass
    if not beside:
        watched.lose_until(at)
    watched.watch(len(changes))
    there = _as_of(changes, len(changes))
    assert watched.versions() == {name: item.metadata.resource_version for name, item in there.items()}


def test_usage_between_steps_is_never_below_the_list() -> None:
    """A job ended and another replaced it: no reader must find its quota free in between."""
    store = JobStore()
    store.upsert_job(job("first", version=5))
    store.upsert_pod(pod("first-1", of="first", version=6, state=running()))
    jobs = [job("first", version=7, outcome="Complete"), job("second", version=9)]
    pods = [pod("first-1", of="first", version=7, state=ended()), pod("second-1", of="second", version=9)]

    def unfinished_jobs() -> int:
        records = [store.get(JobKey(NAMESPACE, name)) for name in ("first", "second")]
        return sum(bool(record and record.job and not record.job.finished) for record in records)

    def running_pods() -> int:
        records = [store.get(JobKey(NAMESPACE, name)) for name in ("first", "second")]
        return sum(not item.is_terminal for record in records if record for item in record.pods.values())

    assert min(unfinished_jobs() for _ in store.replace_jobs(jobs, version=10)) == 1
    assert min(running_pods() for _ in store.replace_pods(pods, version=10)) == 1


def test_new_job_is_visible_during_relist() -> None:
    store = JobStore()
    steps = store.replace_jobs([job("a", version=5), job("made", version=8)], version=10)
    next(steps)
    store.upsert_job(job("made", version=8))
    assert [key.name for _, key in store.newest_first()] == ["made", "a"]
    assert list(chain(*steps)) == []


@pytest.mark.parametrize("steps_before", range(6))
def test_stale_response_does_not_resurrect_deleted_job(
    steps_before: int,
) -> None:
    store = JobStore()
    store.upsert_job(job("a", version=3))
    steps = store.replace_jobs([job("a", version=3), job("c", version=4)], version=10)
    for _ in range(steps_before):
        next(steps, None)
    store.upsert_job(job("made-and-deleted", version=8))
    for _ in steps:
        pass
    assert sorted(key.name for _, key in store.newest_first()) == ["a", "c"]


@pytest.mark.parametrize("steps_before", range(6))
def test_stale_pod_lookup_does_not_resurrect_deleted_pod(
    steps_before: int,
) -> None:
    store = JobStore()
    store.upsert_job(job("a", version=1))
    steps = store.replace_pods([pod("first", of="a", version=3), pod("last", of="a", version=4)], version=10)
    for _ in range(steps_before):
        next(steps, None)
    store.upsert_looked_up_pod(pod("gone", of="a", version=8))
    for _ in steps:
        pass
    record = store.get(JobKey(NAMESPACE, "a"))
    assert record is not None
    assert sorted(record.pods) == ["first", "last"]


def test_older_list_resurrects_nothing() -> None:
    """The watch continues from the newer list, and reports no earlier deletion."""
    store = JobStore()
    older_jobs, older_pods = (
        store.replace_jobs([job("a", version=5)], version=6),
        store.replace_pods([pod(version=5)], version=6),
    )
    assert [*chain(*store.replace_jobs([], 10)), *chain(*store.replace_pods([], 10))] == []
    assert [*chain(*older_jobs), *chain(*older_pods)] == []
    assert len(store) == 0


class Many:
    """A sync loop with many objects, and its state at each turn of the event loop."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(self._look)
        self.server = FakeKubernetes({NAMESPACE})
        self.metrics = Metrics()
        self.known: list[tuple[int, bool]] = [(0, False)]
        self.cluster = ClusterState(policy(), self.metrics, clock=self.loop.time)
        client, timing = KubeClient(self.server, 2.5), Timing(self.loop.time)
        self.sync = ClusterSync(client, self.cluster, self.metrics, timing, resync_seconds=100)

    def _look(self) -> None:
        if hasattr(self, "cluster"):
            self.known.append((len(self.cluster.store), self.cluster.synced))

    def most_in_a_turn(self) -> int:
        """Return the largest change of the number of known Jobs between two turns."""
        numbers = [number for number, _ in self.known]
        return max(abs(after - before) for before, after in pairwise(numbers))


@pytest.fixture
def many() -> Iterator[Many]:
    made = Many()
    task: asyncio.Task[None] | None = None
    try:
        for number in range(8 * OBJECTS_PER_SLICE):
            manifest: Any = {"metadata": {"name": f"job-{number}", "namespace": NAMESPACE, "labels": {}}}
            made.server.add("jobs", manifest | {"spec": {"template": {"spec": {"containers": []}}}, "status": {}})
        task = made.loop.create_task(made.sync.run())
        made.loop.wait(1)
        yield made
    finally:
        if task is not None:
            task.cancel()
            made.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        made.loop.close()


def test_event_loop_runs_during_relist_and_state_is_not_synced(many: Many) -> None:
    assert many.known[-1] == (8 * OBJECTS_PER_SLICE, True)
    assert many.most_in_a_turn() <= OBJECTS_PER_SLICE
    assert not any(synced for number, synced in many.known if number < 8 * OBJECTS_PER_SLICE)


def test_event_loop_runs_while_missing_jobs_are_removed_and_counted(many: Many) -> None:
    many.known = many.known[-1:]
    for number in range(5 * OBJECTS_PER_SLICE):
        many.server.lose("jobs", f"job-{number}")
    many.loop.wait(120)
    assert many.known[-1] == (3 * OBJECTS_PER_SLICE, True)
    assert many.most_in_a_turn() <= OBJECTS_PER_SLICE
    drift = many.metrics.registry.get_sample_value("runway_resync_corrections_total", {"kind": "jobs"})
    assert drift == 5 * OBJECTS_PER_SLICE


def test_resync_overtaken_by_relist_resurrects_nothing(many: Many) -> None:
    """The resync waits for a slow watch, which is then lost with the deletion of a job."""
    server, manifest = many.server, {"metadata": {"name": "brief", "namespace": NAMESPACE, "labels": {}}}
    server.mute = True
    server.add("jobs", manifest | {"spec": {"template": {"spec": {"containers": []}}}, "status": {}})
    server.calls.clear()
    while not server.calls:
        many.loop.wait(0.1)
    server.remove("jobs", server.job("brief"))
    server.compact()
    server.go_down()
    many.loop.wait(0.1)
    server.come_back()
    server.mute = False
    many.loop.wait(20)
    assert many.cluster.store.get(JobKey(NAMESPACE, "brief")) is None
