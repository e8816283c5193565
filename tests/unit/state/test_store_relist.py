"""A list is taken in step by step, with events and answers in between: it ends with what Kubernetes said last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runway.controllers.sync import OBJECTS_PER_SLICE, Observer
from runway.kube.client import KubeClient
from runway.kube.objects import Job, Pod
from runway.state.job_store import JobKey, JobStore
from runway.telemetry.metrics import Metrics
from tests.support.builders import NAMESPACE, ended, job, pod, policy, running
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

STEPS: Final = 12
"""More than the take-in of most lists here has."""

Change = tuple[Job | Pod, bool]
"""An object, and whether it was deleted by this change."""


def _lives(names: list[tuple[str, bool, bool]], make: Callable[[str, str, int, bool], Job | Pod]) -> list[Change]:
    """Changes in the order of their versions, from 1 on; the name of what was deleted can come again."""
    lives, over = dict.fromkeys("abc", 0), dict.fromkeys("abc", False)
    changes = []
    for version, (name, deleted, ends) in enumerate(names, start=1):
        over[name] = over[name] or ends
        changes.append((make(name, f"{name}-{lives[name]}", version, over[name]), deleted))
        if deleted:
            lives[name], over[name] = lives[name] + 1, False
    return changes


def _job(name: str, uid: str, version: int, over: bool) -> Job:
    return job(name, uid=uid, version=version, created=int(uid[2:]), verdict="Complete" if over else None)


def _pod(name: str, uid: str, version: int, over: bool) -> Pod:
    made = pod(name, of="a", version=version, state=ended() if over else running())
    return replace(made, metadata=replace(made.metadata, uid=uid))


def _as_of(changes: list[Change], at: int) -> dict[str, Job | Pod]:
    there: dict[str, Job | Pod] = {}
    for item, deleted in changes[:at]:
        there.pop(item.metadata.name, None)
        if not deleted:
            there[item.metadata.name] = item
    return there


class Told:
    """A store that is told of the changes of one kind."""

    def __init__(self, changes: list[Change]) -> None:
        self.store = JobStore(lambda _: None)
        self._changes = changes
        self._seen = 0

    def watch(self, until: int) -> None:
        """The watch tells of everything up to this version."""
        for item, deleted in self._changes[self._seen : until]:
            if isinstance(item, Job):
                (self.store.delete_job if deleted else self.store.upsert_job)(item)
            else:
                (self.store.delete_pod if deleted else self.store.upsert_pod)(item)
        self._seen = max(self._seen, until)

    def go_on(self) -> None:
        """The watch tells of the next change."""
        self.watch(self._seen + 1)

    def go_on_from(self, at: int) -> None:
        """The watch was lost; the next one begins after this version."""
        self._seen = at

    def answer(self, which: int) -> None:
        """Only now the answer to a write is read that was done before the newest one of the list."""
        item, deleted = self._changes[which]
        if isinstance(item, Job) and not deleted:
            self.store.upsert_job(item)

    def versions(self) -> dict[str, str]:
        """What the store has, and in which version."""
        found: dict[str, Job | Pod] = {}
        for name in "abc":
            record = self.store.get(JobKey(NAMESPACE, name))
            if record is not None:
                found |= {name: record.job} if record.job else {}
                found |= record.pods
        return {name: item.metadata.resource_version for name, item in found.items()}


@pytest.mark.parametrize("kind", ["jobs", "pods"])
@settings(max_examples=300)
@given(
    names=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=4, max_size=10),
    listed=st.integers(1, 10),
    behind=st.integers(0, 5),
    beside=st.booleans(),
    between=st.lists(
        st.tuples(st.sampled_from(["step", "watch", "answer"]), st.integers(0, 9)), min_size=4, max_size=STEPS
    ),
)
def test_whatever_comes_between_two_steps_it_ends_with_the_truth(
    kind: str, names: list[tuple[str, bool, bool]], listed: int, behind: int, beside: bool,
    between: list[tuple[str, int]],
) -> None:  # fmt: skip
    """A list beside a watch that is behind it, or in place of a watch that was lost before it."""
    changes = _lives(names, _job if kind == "jobs" else _pod)
    at = min(listed, len(changes))
    told = Told(changes)
    told.watch(max(0, at - behind))
    with told.store.track_deletions() as deleted:
        there: Any = list(_as_of(changes, at).values())
        take_in: Any = told.store.replace_jobs if kind == "jobs" else told.store.replace_pods
        steps: Iterator[int] = take_in(there, at, deleted)
        for what, which in between:
            if what == "step":
                next(steps, None)
            elif what == "answer":
                told.answer(which % len(changes))
            elif beside:
                told.go_on()
        for _ in steps:
            pass
    if not beside:
        told.go_on_from(at)
    told.watch(len(changes))
    there = _as_of(changes, len(changes))
    assert told.versions() == {name: item.metadata.resource_version for name, item in there.items()}


def test_between_two_steps_never_less_is_held_than_in_the_list() -> None:
    """A job has ended and another was made in its place: whoever asks in between must not find the place free."""
    store = JobStore(lambda _: None)
    store.upsert_job(job("first", version=5))
    store.upsert_pod(pod("first-1", of="first", version=6, state=running()))
    jobs = [job("first", version=7, verdict="Complete"), job("second", version=9)]
    pods = [pod("first-1", of="first", version=7, state=ended()), pod("second-1", of="second", version=9)]

    def held() -> int:
        records = [store.get(JobKey(NAMESPACE, name)) for name in ("first", "second")]
        return sum(bool(record and record.job and not record.job.finished) for record in records)

    def running_pods() -> int:
        records = [store.get(JobKey(NAMESPACE, name)) for name in ("first", "second")]
        return sum(not item.is_terminal for record in records if record for item in record.pods.values())

    assert min(held() for _ in store.replace_jobs(jobs, at=10)) == 1
    assert min(running_pods() for _ in store.replace_pods(pods, at=10)) == 1


def test_who_has_just_made_a_job_finds_it_while_a_list_that_has_it_is_taken_in() -> None:
    store = JobStore(lambda _: None)
    steps = store.replace_jobs([job("a", version=5), job("made", version=8)], at=10)
    next(steps)
    store.upsert_job(job("made", version=8))
    assert [key.name for _, key in store.newest_first()] == ["made", "a"]
    assert sum(steps) == 0


@pytest.mark.parametrize("steps_before", range(6))
def test_an_answer_about_a_job_that_the_list_no_longer_has_brings_nothing_back_whenever_it_is_read(
    steps_before: int,
) -> None:
    store = JobStore(lambda _: None)
    store.upsert_job(job("a", version=3))
    steps = store.replace_jobs([job("a", version=3), job("c", version=4)], at=10)
    for _ in range(steps_before):
        next(steps, None)
    store.upsert_job(job("made-and-deleted", version=8))
    for _ in steps:
        pass
    assert sorted(key.name for _, key in store.newest_first()) == ["a", "c"]


@pytest.mark.parametrize("steps_before", range(6))
def test_a_pod_that_was_looked_up_before_the_list_and_is_not_in_it_is_gone_whenever_the_answer_is_read(
    steps_before: int,
) -> None:
    store = JobStore(lambda _: None)
    store.upsert_job(job("a", version=1))
    steps = store.replace_pods([pod("first", of="a", version=3), pod("last", of="a", version=4)], at=10)
    for _ in range(steps_before):
        next(steps, None)
    store.upsert_looked_up_pod(pod("gone", of="a", version=8))
    for _ in steps:
        pass
    record = store.get(JobKey(NAMESPACE, "a"))
    assert record is not None
    assert sorted(record.pods) == ["first", "last"]


def test_a_list_older_than_one_that_is_in_brings_nothing_back() -> None:
    """The watch goes on from the newer one, and tells no more of what was deleted before it."""
    store = JobStore(lambda _: None)
    older_jobs, older_pods = store.replace_jobs([job("a", version=5)], at=6), store.replace_pods([pod(version=5)], at=6)
    assert sum(store.replace_jobs([], at=10)) + sum(store.replace_pods([], at=10)) == 0
    assert sum(older_jobs) + sum(older_pods) == 0
    assert len(store) == 0


class Many:
    """An observer of many objects, and what it knew at each turn of the loop."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(self._look)
        self.server = FakeKubernetes({NAMESPACE})
        self.metrics = Metrics()
        self.known: list[tuple[int, bool]] = [(0, False)]
        self.observer = Observer(
            KubeClient(self.server, 2.5), policy(), self.metrics, resync_seconds=100, clock=self.loop.time
        )

    def _look(self) -> None:
        if hasattr(self, "observer"):
            self.known.append((len(self.observer.store), self.observer.synced))

    def most_in_a_turn(self) -> int:
        """By how many the Jobs that are known have changed from one turn to the next, at most."""
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
        task = made.loop.create_task(made.observer.run())
        made.loop.wait(1)
        yield made
    finally:
        if task is not None:
            task.cancel()
            made.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        made.loop.close()


def test_others_have_their_turn_while_a_long_list_is_taken_in_and_are_told_that_it_is_not_in_yet(many: Many) -> None:
    assert many.known[-1] == (8 * OBJECTS_PER_SLICE, True)
    assert many.most_in_a_turn() <= OBJECTS_PER_SLICE
    assert not any(synced for number, synced in many.known if number < 8 * OBJECTS_PER_SLICE)


def test_others_have_their_turn_while_what_is_missing_is_dropped_and_each_is_counted_once(many: Many) -> None:
    many.known = many.known[-1:]
    for number in range(5 * OBJECTS_PER_SLICE):
        many.server.lose("jobs", f"job-{number}")
    many.loop.wait(120)
    assert many.known[-1] == (3 * OBJECTS_PER_SLICE, True)
    assert many.most_in_a_turn() <= OBJECTS_PER_SLICE
    drift = many.metrics.registry.get_sample_value("runway_resync_corrections_total", {"kind": "jobs"})
    assert drift == 5 * OBJECTS_PER_SLICE


def test_a_resync_that_is_overtaken_by_the_list_after_a_lost_watch_brings_nothing_back(many: Many) -> None:
    """It waits for a watch that is behind; meanwhile that is lost, with the news of a job that was made and deleted."""
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
    assert many.observer.store.get(JobKey(NAMESPACE, "brief")) is None
