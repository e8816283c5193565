"""Controllers that start again after a defect lose nothing that was in progress."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest

from runway.backoff import Timing
from runway.controllers.job_recorder import WORKERS, JobRecorder
from runway.controllers.leadership import Leadership
from runway.controllers.supervision import keep_running
from runway.controllers.sync import ClusterSync, DiagnosticsSync
from runway.jobs.annotations import ANNOTATION_RECORD
from runway.jobs.manifest import Placement, job_manifest
from runway.kube.client import JOBS, NODES, KubeClient
from runway.kube.leader_election import LeaderElector, LeaseLock
from runway.kube.transport import Response
from runway.state.cluster_state import ClusterState
from runway.telemetry import Metrics
from tests.support.builders import COST, policy, spec
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

NAMESPACE = "runway-vision"


class Defective(FakeKubernetes):
    """An API server with requests that hang, or raise what Runway does not expect."""

    def __init__(self, namespaces: set[str]) -> None:
        super().__init__(namespaces)
        self.defects: Counter[str] = Counter()
        """The lists that still fail, by path."""

    hangs = False
    """Whether patches hang."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        if self.hangs and method == "PATCH":
            await asyncio.sleep(float("inf"))
        if self.defects[path]:
            self.defects[path] -= 1
            raise RuntimeError("a defect")
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)


class World:
    """A synced process whose controllers the test starts."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop, self.policy, self.metrics = loop, policy(), Metrics()
        self.timing = Timing(loop.time)
        self.server = Defective({NAMESPACE})
        self.kubernetes = KubeClient(self.server, 2.5)
        self.cluster = ClusterState(self.policy, self.metrics, clock=loop.time)
        sync = ClusterSync(self.kubernetes, self.cluster, self.metrics, self.timing, resync_seconds=900)
        lock = LeaseLock("default", "runway-writer", "one")
        self.election = LeaderElector(self.kubernetes, lock, self.timing)
        self.leadership = Leadership(self.election, self.cluster, sync, 2.5, self.timing)
        self._tasks: list[asyncio.Task[None]] = []
        self._tasks.append(loop.create_task(sync.run()))
        loop.wait(1)
        assert self.cluster.synced

    def start(self, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Start a controller that starts again after a defect."""
        task = self.loop.create_task(keep_running("controller", run, self.metrics, self.timing))
        self._tasks.append(task)
        self.loop.wait(1)
        return task

    def stop(self, *tasks: asyncio.Task[None]) -> None:
        """Cancel these tasks."""
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def finish_job(self, name: str) -> None:
        """Create a job, and let it succeed."""
        placement = Placement(name, "vision", NAMESPACE, "0" * 64, self.policy.pools["cpu"], COST)
        manifest: dict[str, Any] = dict(job_manifest(spec(), placement, self.policy.limits))
        self.server.add("jobs", {**manifest, "status": {}})
        self.server.end_pod(self.server.start_pod(name))
        self.server.complete(name)
        self.loop.wait(0.1)

    def has_record(self, name: str) -> bool:
        return ANNOTATION_RECORD in self.server.job(name)["metadata"]["annotations"]

    def close(self) -> None:
        """Cancel all tasks."""
        self.stop(*self._tasks)


@pytest.fixture
def world() -> Iterator[World]:
    loop = VirtualLoop()
    world = World(loop)
    yield world
    world.close()
    loop.close()


def internal_errors(world: World) -> float | None:
    return world.metrics.registry.get_sample_value("runway_internal_errors_total")


def test_process_leads_in_the_same_term_after_a_defect_of_its_relist(world: World) -> None:
    world.server.defects[JOBS.path] = 1
    world.start(world.leadership.run)
    world.start(world.election.run)
    world.loop.wait(5)
    assert (world.server.defects[JOBS.path], internal_errors(world)) == (0, 1)
    assert (world.election.term, world.leadership.is_leader) == (1, True)


def test_node_state_is_not_current_after_a_defect_of_its_watch(world: World) -> None:
    watches = world.cluster.diagnostic_watches.values()
    world.start(DiagnosticsSync(world.kubernetes, world.cluster, world.metrics, world.timing).run)
    assert [watch.disconnect_reason for watch in watches] == [None, None]
    world.server.defects[NODES.path] = 1_000
    world.server.go_down()
    world.loop.wait(1)
    world.server.come_back()
    world.loop.wait(60)
    assert [watch.disconnect_reason for watch in watches] == ["a defect ended the watch"] * 2
    world.server.defects.clear()
    world.loop.wait(60)
    assert [watch.disconnect_reason for watch in watches] == [None, None]


def test_recorder_that_starts_again_writes_the_records_that_were_in_progress(world: World) -> None:
    world.start(world.leadership.run)
    world.start(world.election.run)
    recorder = JobRecorder(world.kubernetes, world.cluster, world.leadership, world.metrics, world.timing)
    world.server.hangs = True
    recording = world.start(recorder.run)
    names = [f"rw-{number}" for number in range(2 * WORKERS)]
    for name in names:
        world.finish_job(name)
    world.stop(recording)
    world.server.hangs = False
    world.start(recorder.run)
    world.loop.wait(30)
    assert [name for name in names if not world.has_record(name)] == []
