"""Measure the time from the end of a job to the release of its quota."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from runway.backoff import Timing
from runway.controllers.sync import ClusterSync
from runway.jobs.manifest import Placement, job_manifest
from runway.kube.client import KubeClient
from runway.state.cluster_state import ClusterState
from runway.telemetry import Metrics
from tests.support.builders import COST, policy, spec
from tests.support.fake_cluster import NOW, FakeKubernetes
from tests.support.virtual_time import VirtualLoop

NAMESPACE = "runway-vision"
ENDED = datetime.fromisoformat(NOW)
"""The end of every container, and the time of every terminal condition."""


class Clock:
    """A wall clock, `late` seconds after `ENDED`."""

    late = 0.0

    def __call__(self) -> datetime:
        return ENDED + timedelta(seconds=self.late)


class World:
    """An API server, and sync loops on it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.server = FakeKubernetes({NAMESPACE})
        self.clock = Clock()
        self.policy = policy()
        self._tasks: list[asyncio.Task[None]] = []

    def sync(self) -> Metrics:
        """Start a synced process, and return its metrics."""
        metrics = Metrics()
        cluster = ClusterState(self.policy, metrics, clock=self.loop.time, now=self.clock)
        sync = ClusterSync(KubeClient(self.server, 2.5), cluster, metrics, Timing(self.loop.time), resync_seconds=900)
        self._tasks.append(self.loop.create_task(sync.run()))
        self.loop.wait(1)
        assert cluster.synced
        return metrics

    def create(self, name: str, retries: int = 0) -> None:
        """Create a job."""
        placement = Placement(name, "vision", NAMESPACE, "0" * 64, self.policy.pools["cpu"], COST)
        manifest: dict[str, Any] = dict(job_manifest(spec(retries=retries), placement, self.policy.limits))
        self.server.add("jobs", {**manifest, "status": {}})
        self.loop.wait(1)

    def close(self) -> None:
        """Cancel all tasks."""
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
    """Return the number of timed releases, and their sum."""
    values = [metrics.registry.get_sample_value(f"runway_quota_release_seconds_{part}") for part in ("count", "sum")]
    return values[0] or 0.0, values[1] or 0.0


def test_success_is_timed_once_from_container_end(world: World) -> None:
    metrics = world.sync()
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


def test_failure_is_timed_from_terminal_condition_only(world: World) -> None:
    metrics = world.sync()
    world.create("rw-1", retries=1)
    for _ in range(2):
        world.server.end_pod(world.server.start_pod("rw-1"), exit_code=1)
        world.loop.wait(1)
    assert released(metrics) == (0, 0)
    world.clock.late = 1.5
    world.server.fail("rw-1")
    world.loop.wait(1)
    assert released(metrics) == (1, 1.5)


def test_job_that_ended_before_start_is_not_timed(world: World) -> None:
    """A restart lists Jobs before their terminal pods, so quota is briefly in use."""
    world.create("rw-succeeded")
    world.server.end_pod(world.server.start_pod("rw-succeeded"))
    world.create("rw-failed")
    world.server.end_pod(world.server.start_pod("rw-failed"), exit_code=1)
    world.server.fail("rw-failed")
    world.clock.late = 3600
    assert released(world.sync()) == (0, 0)


def test_end_reported_late_after_disconnect_is_timed_in_full(world: World) -> None:
    metrics = world.sync()
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


def test_clock_behind_is_timed_as_zero(world: World) -> None:
    metrics = world.sync()
    world.create("rw-1")
    world.clock.late = -5
    world.server.end_pod(world.server.start_pod("rw-1"))
    world.loop.wait(1)
    assert released(metrics) == (1, 0)


def test_deleted_job_is_not_timed(world: World) -> None:
    metrics = world.sync()
    world.create("rw-1")
    pod = world.server.start_pod("rw-1")
    world.loop.wait(1)
    world.server.delete_job("rw-1")
    world.server.remove_pod(pod)
    world.loop.wait(10)
    assert released(metrics) == (0, 0)
