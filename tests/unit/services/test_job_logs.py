"""Logs over broken connections, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runway.backoff import Timing
from runway.controllers.sync import ClusterSync
from runway.errors import AmbiguousOutcome, KubernetesUnavailable, NotExecuted, StreamInterrupted
from runway.fair_share import FairSemaphore
from runway.jobs.annotations import LABEL_MANAGED_BY, MANAGED_BY
from runway.kube.client import KubeClient
from runway.kube.transport import Response
from runway.services.job_logs import (
    IDLE_SECONDS,
    RECONNECT_TIMEOUT_SECONDS,
    ROTATION_BYTES,
    LogQuery,
    OpenLog,
    open_log,
)
from runway.services.watch_job import HEARTBEAT_SECONDS, Heartbeat, JobUpdated, watch_job
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics
from tests.support.builders import policy
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import SECOND, Cut, FakeLog
from tests.support.virtual_time import VirtualLoop

RESET = AmbiguousOutcome("the connection to the Kubernetes API broke: reset")
KEY = JobKey("runway-vision", "rw-" + "a" * 20)
POD = f"{KEY.name}-0"


class World:
    """An observer of one job that runs, and the log of its pod."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
        self.opened: OpenLog | None = None
        self.fake = FakeKubernetes({"runway-vision"})
        self.kubernetes = KubeClient(self.fake, 2.5)
        metrics = Metrics()
        self.cluster = ClusterState(policy(), metrics, clock=self.loop.time)
        timing = Timing(self.loop.time, jitter=lambda: 0.0)
        self.sync = ClusterSync(self.kubernetes, self.cluster, metrics, timing, resync_seconds=1e6)
        template = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "job"}]}}
        metadata = {"name": KEY.name, "namespace": KEY.namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}}
        self.fake.add("jobs", {"metadata": metadata, "spec": {"template": template}, "status": {}})
        self.fake.start_pod(KEY.name)
        self.fake.logs[POD] = self.log = FakeLog()

    async def seen(self, condition: Callable[[], object]) -> None:
        """Return once the store has observed the change."""
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 (in virtual time)
                await asyncio.sleep(0.01)

    async def end(self, exit_code: int = 0) -> None:
        """End the container, and report it to the store."""
        self.fake.end_pod(POD, exit_code)
        await self.seen(lambda: self.cluster.attempts(KEY)[0].is_terminal)

    async def read(self, query: LogQuery, got: bytearray) -> None:
        """Read the log into `got` to its end, and raise errors of the read."""
        log = await open_log(
            self.kubernetes,
            self.cluster,
            KEY,
            query,
            FairSemaphore(1),
            now=lambda: self.now,
            clock=self.loop.time,
            jitter=lambda: 0.0,
        )
        self.opened = log
        async with aclosing(log.chunks) as chunks:
            async for chunk in chunks:
                got += chunk


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    observing = asyncio.create_task(made.sync.run())
    try:
        await made.seen(lambda: made.cluster.synced and made.cluster.attempts(KEY))
        yield made
    finally:
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)


def virtually(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def played() -> None:
        async with world() as made:
            await scenario(made)

    loop = VirtualLoop()
    try:
        loop.run_until_complete(played())
    finally:
        loop.close()


def task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


FOLLOW = LogQuery(follow=True)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("error", [RESET, None])
def test_broken_connections_lose_and_repeat_nothing(error: Exception | None, timestamps: bool) -> None:
    """If the API server loses the kubelet, it ends the response normally: `error` is None then."""

    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"a", b"b", b"b", step=0)
        world.log.write(b"in two", partial=True)
        world.log.cuts = [Cut(150, error), Cut(2, error), Cut(97, error)]
        reading = task(world.read(LogQuery(follow=True, timestamps=timestamps), got))
        await world.seen(lambda: b"in two" in got)
        world.log.write(b" parts", b"end")
        await world.seen(lambda: b"end" in got)
        await world.end()
        await reading
        lines = [line.split(b"Z ")[-1] for line in got.splitlines()]
        assert lines == [b"a", b"b", b"b", b"in two parts", b"end"]
        assert got.count(b"2026-11-24T08:00:00.") == (5 if timestamps else 0)

    virtually(scenario)


def test_end_after_a_break_is_confirmed_by_another_read() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one")
        world.log.cuts = [Cut(35)]
        reading = task(world.read(FOLLOW, got))
        await world.seen(lambda: got)
        world.log.write(b"two", b"three")
        await world.end()
        await reading
        assert got == b"one\ntwo\nthree\n"

    virtually(scenario)


@pytest.mark.parametrize("query", [LogQuery(), FOLLOW])
def test_log_that_ends_before_its_container_is_reopened(query: LogQuery) -> None:
    """As where the API server loses the kubelet in the middle of the log of a container that has ended."""

    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(*(b"line %d" % number for number in range(5)))
        await world.end()
        world.log.cuts = [Cut(100), Cut(3), Cut(160)]
        await world.read(query, got)
        assert got == b"".join(b"line %d\n" % number for number in range(5))

    virtually(scenario)


def test_tail_stays_a_tail_after_a_break() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(*(b"line %d" % number for number in range(5)))
        world.log.cuts = [Cut(0, RESET), Cut(60, RESET)]
        reading = task(world.read(LogQuery(follow=True, tail=2), got))
        await world.seen(lambda: b"line 4" in got)
        await world.end()
        await reading
        assert got == b"line 3\nline 4\n"
        assert [query.get("tailLines") for query in world.log.queries[:3]] == ["2", "2", None]

    virtually(scenario)


def test_megabytes_without_newline_are_passed_on() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(*[b"x" * 16384] * 150, partial=True)
        world.log.write(b"end")
        world.log.cuts = [Cut(1_000_000, RESET), Cut(2_000_000)]
        await world.end()
        await world.read(FOLLOW, got)
        assert got == b"x" * 16384 * 150 + b"end\n"

    virtually(scenario)


def test_kubelet_error_text_is_not_log() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one")
        world.log.cuts = [Cut(35, said=b"failed to create fsnotify watcher: too many open files")]
        reading = task(world.read(FOLLOW, got))
        await world.seen(lambda: got)
        world.log.write(b"two")
        await world.seen(lambda: b"two" in got)
        await world.end()
        await reading
        assert got == b"one\ntwo\n"

    virtually(scenario)


def test_restarted_kubelet_that_does_not_know_the_pod_yet() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one")
        world.log.cuts = [Cut(35, RESET)]
        reading = task(world.read(FOLLOW, got))
        await world.seen(lambda: got)
        del world.fake.logs[POD]
        await asyncio.sleep(20)
        world.log.write(b"two")
        world.fake.logs[POD] = world.log
        await world.seen(lambda: b"two" in got)
        await world.end()
        await reading
        assert got == b"one\ntwo\n"

    virtually(scenario)


@pytest.mark.parametrize("cut", [Cut(35, RESET), Cut(35, NotExecuted("refused")), Cut(35)])
def test_unavailable_log_is_interrupted_after_timeout(cut: Cut) -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one", b"two")
        world.log.cuts = [cut] * 1000
        begun = world.loop.time()
        with pytest.raises(StreamInterrupted):
            await world.read(FOLLOW, got)
        assert got == b"one\n"
        assert RECONNECT_TIMEOUT_SECONDS <= world.loop.time() - begun <= RECONNECT_TIMEOUT_SECONDS + 10
        assert len(world.log.queries) < 60, "there are pauses"

    virtually(scenario)


def test_silent_log_is_reopened_and_loses_nothing() -> None:
    """A silent connection counts as dead, but silence alone is no failure."""

    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one")
        reading = task(world.read(FOLLOW, got))
        for _ in range(5):
            await asyncio.sleep(IDLE_SECONDS)
            world.log.drop(AmbiguousOutcome("the Kubernetes API sent nothing for 120 s"))
        await asyncio.sleep(1)
        world.log.write(b"two")
        await world.seen(lambda: b"two" in got)
        assert len(world.log.queries) == 6
        await world.end()
        await reading
        assert got == b"one\ntwo\n"

    virtually(scenario)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("tail", [None, 1])
@pytest.mark.parametrize("attempt", [None, 1])
def test_log_that_may_be_rotated_says_when_its_first_line_was_written(
    follow: bool, tail: int | None, attempt: int | None
) -> None:
    """https://github.com/kubernetes/kubernetes/issues/11046: the kubelet serves only the newest file of a large log."""

    async def scenario(world: World) -> None:
        world.log.write(*[b"early"] * 3)
        world.log.rotate()
        world.log.write(b"late", step=20 * SECOND)
        world.log.write(b"last")
        await world.end()
        got = bytearray()
        await world.read(LogQuery(follow=follow, tail=tail, attempt=attempt), got)
        assert bytes(got) == (b"late\nlast\n" if tail is None else b"last\n")
        assert world.opened is not None
        assert world.opened.first_line_at == "2026-11-24T08:00:20.000003000Z"
        assert world.opened.warning == (
            "the first line is from 2026-11-24 08:00:20 UTC, 20s after the container started; "
            "earlier lines are missing if the log was too large for the node"
        )

    virtually(scenario)


def test_log_that_begins_with_its_container_has_no_warning() -> None:
    async def scenario(world: World) -> None:
        world.log.write(b"early", step=2 * SECOND)
        world.log.write(b"late", step=20 * SECOND)
        await world.end()
        await world.read(LogQuery(), bytearray())
        assert world.opened is not None
        assert world.opened.first_line_at == "2026-11-24T08:00:02.000000000Z"
        assert world.opened.warning is None

    virtually(scenario)


@pytest.mark.parametrize(("ran", "is_suspicious"), [(5, False), (60, True)])
def test_empty_log_of_a_container_that_ran_for_long_may_be_rotated(ran: int, is_suspicious: bool) -> None:
    async def scenario(world: World) -> None:
        world.now += timedelta(seconds=ran)
        await world.read(LogQuery(), bytearray())
        assert world.opened is not None
        assert world.opened.first_line_at is None
        assert (world.opened.warning is not None) == is_suspicious

    virtually(scenario)


LINE = b"x" * 9_000
MUCH = [LINE] * (ROTATION_BYTES // len(LINE) + 1)


def test_log_that_is_read_too_slowly_breaks_off_where_the_node_skipped_a_file() -> None:
    """https://github.com/kubernetes/kubernetes/issues/126564: 434,000 lines were missing without a sign."""

    async def scenario(world: World) -> None:
        got = bytearray()
        reading = task(world.read(FOLLOW, got))
        await asyncio.sleep(0.1)
        world.log.write(*MUCH)
        world.log.rotate()
        world.log.write(b"after the gap", step=10 * SECOND)
        with pytest.raises(StreamInterrupted, match="rotated the log"):
            await reading
        assert b"after the gap" not in got

    virtually(scenario)


def test_rotated_log_that_is_read_in_time_has_no_gap() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        reading = task(world.read(FOLLOW, got))
        world.log.write(b"one")
        await asyncio.sleep(10)
        world.log.write(*MUCH, step=10 * SECOND // len(MUCH))
        await asyncio.sleep(30)
        world.log.rotate()
        world.log.write(b"next file", step=30 * SECOND)
        await world.seen(lambda: b"next file" in got)
        world.log.write(*MUCH)
        world.log.rotate()
        world.log.write(b"a file without a pause")
        await world.end()
        await reading
        assert got.count(b"\n") == 2 * len(MUCH) + 3

    virtually(scenario)


def test_pauses_of_a_log_that_is_read_late_are_no_gaps() -> None:
    async def scenario(world: World) -> None:
        world.log.write(*MUCH)
        world.log.write(*[b"hourly"] * 100, step=3600 * SECOND)
        await world.end()
        got = bytearray()
        await world.read(FOLLOW, got)
        assert got.count(b"hourly") == 100

    virtually(scenario)


def test_log_rotated_while_the_node_was_unreachable_breaks_off() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one")
        reading = task(world.read(FOLLOW, got))
        await world.seen(lambda: got)
        world.log.write(*[b"lost"] * 10)
        world.log.rotate()
        world.log.write(b"later", step=20 * SECOND)
        world.log.drop(RESET)
        with pytest.raises(StreamInterrupted, match="rotated the log"):
            await reading
        assert b"later" not in got
        assert world.log.open == 0

    virtually(scenario)


def test_log_rotated_while_it_was_silent_continues() -> None:
    async def scenario(world: World) -> None:
        got = bytearray()
        world.log.write(b"one")
        reading = task(world.read(FOLLOW, got))
        await world.seen(lambda: got)
        world.log.rotate()
        world.log.drop(AmbiguousOutcome("the Kubernetes API sent nothing for 120 s"))
        await asyncio.sleep(5)
        world.log.write(b"two", step=125 * SECOND)
        await world.seen(lambda: b"two" in got)
        await world.end()
        await reading
        assert got == b"one\ntwo\n"

    virtually(scenario)


def test_unresponsive_api_server_is_a_problem_after_timeout() -> None:
    async def scenario(world: World) -> None:
        world.log.stuck = True
        with pytest.raises(KubernetesUnavailable, match="did not answer within 10 s"):
            await world.read(FOLLOW, bytearray())
        assert world.log.open == 0

    virtually(scenario)


def test_failing_api_server_is_a_problem_before_the_log_starts() -> None:
    async def scenario(world: World) -> None:
        world.log.cuts = [Cut(0, NotExecuted("no connection to the Kubernetes API: refused"))]
        world.log.refusals = [Response(500, b"{}")]
        with pytest.raises(KubernetesUnavailable):
            await world.read(FOLLOW, bytearray())

    virtually(scenario)


def test_unchanged_job_sends_heartbeats() -> None:
    async def scenario(world: World) -> None:
        begun = world.loop.time()
        async with aclosing(watch_job(world.cluster, KEY, None, lambda view: view)) as news:
            assert isinstance(await anext(news), JobUpdated)
            for number in range(1, 4):
                assert isinstance(await anext(news), Heartbeat)
                assert world.loop.time() - begun == pytest.approx(number * HEARTBEAT_SECONDS, abs=0.1)
            assert len(world.cluster.subscriptions) == 1
        assert len(world.cluster.subscriptions) == 0

    virtually(scenario)


def test_final_view_is_sent_after_skipped_changes() -> None:
    async def scenario(world: World) -> None:
        async with aclosing(watch_job(world.cluster, KEY, None, lambda view: view)) as news:
            first = await anext(news)
            await world.end(exit_code=1)
            world.fake.fail(KEY.name)
            await world.seen(lambda: world.cluster.job(KEY).finished)  # type: ignore[union-attr]
            rest = [item async for item in news]
        assert isinstance(first, JobUpdated)
        assert not first.over
        assert len(rest) == 1
        assert isinstance(rest[0], JobUpdated)
        assert rest[0].over

    virtually(scenario)
