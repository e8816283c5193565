"""How long quota stays held after a job has ended, as the metric tells it; the test plays Kubernetes' controllers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from runway.controllers.sync import Observer
from runway.jobs.manifest import Placement, job_manifest
from runway.kube.client import KubeClient
from runway.telemetry.metrics import Metrics
from tests.support.builders import COST, policy, spec
from tests.support.fake_cluster import NOW, FakeKubernetes
from tests.support.virtual_time import VirtualLoop

NAMESPACE = "runway-vision"
ENDED = datetime.fromisoformat(NOW)
"""When every container of the fake cluster ends, and every verdict is given."""


class Clock:
    """The wall clock: so many seconds after `ENDED`."""

    late = 0.0

    def __call__(self) -> datetime:
        return ENDED + timedelta(seconds=self.late)


class World:
    """An API server, and observers of it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.server = FakeKubernetes({NAMESPACE})
        self.clock = Clock()
        self.policy = policy()
        self._tasks: list[asyncio.Task[None]] = []

    def observer(self) -> Metrics:
        """The metrics of an observer that has just listed everything."""
        metrics = Metrics()
        observer = Observer(
            KubeClient(self.server, 2.5),
            self.policy,
            metrics,
            resync_seconds=900,
            clock=self.loop.time,
            now=self.clock,
        )
        self._tasks.append(self.loop.create_task(observer.run()))
        self.loop.wait(1)
        assert observer.synced
        return metrics

    def create(self, name: str, retries: int = 0) -> None:
        """A job of Runway's."""
        placement = Placement(name, "vision", NAMESPACE, self.policy.pools["cpu"], COST)
        manifest: dict[str, Any] = dict(job_manifest(spec(retries=retries), placement, self.policy.limits))
        self.server.add("jobs", {**manifest, "status": {}})
        self.loop.wait(1)

    def close(self) -> None:
        """No observer goes on."""
        for task in self._tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))


@pytest.fixture
def world() -> Iterator[World]:
    loop = VirtualLoop()
    world = World(loop)
    yield world
    world.close()
    loop.close()


def released(metrics: Metrics) -> tuple[float, float]:
    """How many releases were timed, and what they took together."""
    told = [metrics.registry.get_sample_value(f"runway_quota_release_seconds_{part}") for part in ("count", "sum")]
    return told[0] or 0.0, told[1] or 0.0


def test_a_success_is_timed_once_from_its_containers_end(world: World) -> None:
    metrics = world.observer()
    world.create("rw-1")
    pod = world.server.start_pod("rw-1")
    world.clock.late = 0.25
    world.server.end_pod(pod)
    world.loop.wait(1)
    assert released(metrics) == (1, 0.25)
    world.clock.late = 7
    world.server.complete("rw-1")
    world.loop.wait(1)
    world.server.remove_pod(pod)
    world.server.delete_job("rw-1")
    world.loop.wait(1)
    assert released(metrics) == (1, 0.25)


def test_a_failure_is_timed_from_its_verdict_and_not_between_attempts(world: World) -> None:
    metrics = world.observer()
    world.create("rw-1", retries=1)
    for _ in range(2):
        world.server.end_pod(world.server.start_pod("rw-1"), exit_code=1)
        world.loop.wait(1)
    assert released(metrics) == (0, 0)
    world.clock.late = 1.5
    world.server.fail("rw-1")
    world.loop.wait(1)
    assert released(metrics) == (1, 1.5)


def test_what_had_ended_before_the_start_is_no_release(world: World) -> None:
    """A restart lists Jobs first and their ended pods after them: nothing was held by this process."""
    world.create("rw-succeeded")
    world.server.end_pod(world.server.start_pod("rw-succeeded"))
    world.create("rw-failed")
    world.server.end_pod(world.server.start_pod("rw-failed"), exit_code=1)
    world.server.fail("rw-failed")
    world.clock.late = 3600
    assert released(world.observer()) == (0, 0)


def test_an_end_that_a_lost_watch_told_late_is_as_late_as_it_was(world: World) -> None:
    metrics = world.observer()
    world.create("rw-1")
    pod = world.server.start_pod("rw-1")
    world.loop.wait(1)
    world.server.go_down()
    world.server.end_pod(pod)
    world.server.compact()
    world.clock.late = 40
    world.server.come_back()
    world.loop.wait(10)
    assert released(metrics) == (1, 40)


def test_a_clock_that_is_behind_makes_it_nothing_and_never_less(world: World) -> None:
    metrics = world.observer()
    world.create("rw-1")
    world.clock.late = -5
    world.server.end_pod(world.server.start_pod("rw-1"))
    world.loop.wait(1)
    assert released(metrics) == (1, 0)


def test_a_job_that_is_deleted_has_no_end_that_could_be_told(world: World) -> None:
    metrics = world.observer()
    world.create("rw-1")
    pod = world.server.start_pod("rw-1")
    world.loop.wait(1)
    world.server.delete_job("rw-1")
    world.server.remove_pod(pod)
    world.loop.wait(10)
    assert released(metrics) == (0, 0)
