"""One Runway process: the real components on a simulated network, without HTTP."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import datetime
from typing import Any, Final, TypeVar

from runway.backoff import Timing
from runway.controllers.job_recorder import JobRecorder
from runway.controllers.leadership import Leadership
from runway.controllers.start_deadlines import StartDeadlines
from runway.controllers.sync import ClusterSync, DiagnosticsSync
from runway.errors import Unavailable
from runway.jobs.models import JobView
from runway.kube.client import KubeClient
from runway.kube.leader_election import LeaderElector, LeaseLock
from runway.policy import Policy
from runway.services.cancel import cancel
from runway.services.submit import Submitter
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics
from tests.model.apiserver import ApiServer
from tests.model.wire import Wire

CALL_SECONDS: Final = 2.5
RESYNC_SECONDS: Final = 900.0
"""Longer than the time to converge at the end of a history: only a lost event may need a resync."""

METRICS: Final = Metrics()
"""Of all processes of all histories."""
_TOKENS: Final = itertools.count()
"""Random tokens, unique across processes."""
OWNER: Final[ContextVar[Process | None]] = ContextVar("OWNER", default=None)

_Result = TypeVar("_Result")


class Process:
    """A Runway process from its start to its exit.

    `identity` is its `RUNWAY_INSTANCE`. `skew` is the speed of its clock: 1.02 gains a second in fifty.
    """

    def __init__(self, api: ApiServer, policy: Policy, identity: str, seed: int, skew: float) -> None:
        rng = random.Random(seed)
        self.identity = identity
        self.alive = True
        self.stopping = False
        self.gained: int | None = None
        """The `ApiServer.mark` at which this process last acquired the Lease."""
        self.wire = Wire(api, self)
        self._api = api
        self._skew = skew
        self._boot = rng.uniform(0, 1e6)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests: list[asyncio.Task[None]] = []
        self.kubernetes = KubeClient(self.wire, CALL_SECONDS)
        self.cluster = ClusterState(policy, METRICS, clock=self.clock, now=api.now)
        timing = Timing(self.clock, api.now, self.wire.sleep, rng.random)
        self.sync = ClusterSync(
            self.kubernetes, self.cluster, METRICS, timing, resync_seconds=RESYNC_SECONDS, slice_steps=1 + seed % 2
        )
        self.diagnostics = DiagnosticsSync(self.kubernetes, self.cluster, METRICS, timing)
        self.election = LeaderElector(self.kubernetes, LeaseLock("default", "runway-writer", identity), timing)
        self.writer = Leadership(self.election, self.cluster, self.sync, CALL_SECONDS, timing)
        self.starts = StartDeadlines(
            self.kubernetes, self.cluster, self.writer, METRICS, policy.limits.start_timeout_seconds, timing
        )
        self.recorder = JobRecorder(self.kubernetes, self.cluster, self.writer, METRICS, timing)
        self.submitter = Submitter(
            policy,
            self.kubernetes,
            self.cluster,
            self.sync,
            self.writer,
            METRICS,
            clock=lambda: int(self.clock() * 1e9),
            now=api.now,
            sleep=self.wire.sleep,
            jitter=rng.random,
            token=lambda: f"random-{next(_TOKENS)}",
        )
        self.main = self.spawn(self._main())

    def clock(self) -> float:
        """Return this process's monotonic clock in seconds since its machine's boot."""
        return self._boot + self._api.loop.time() * self._skew

    @property
    def frozen(self) -> bool:
        """Whether the process is stopped (SIGSTOP)."""
        return not self.wire.running.is_set()

    @property
    def is_leader(self) -> bool:
        """Whether a submission would pass the leader check now."""
        if not self.alive or not self.writer.is_leader:
            return False
        try:
            self.writer.require_leader()
        except Unavailable:
            return False
        return True

    def spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Start a task that ends with this process, like the tasks that it starts."""
        context = copy_context()
        context.run(OWNER.set, self)
        return self._api.loop.create_task(work, context=context)

    def serve(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Handle a request as soon as the process is not frozen."""
        self._requests.append(self.spawn(self._when_running(work)))

    def give_up(self, back: int) -> None:
        """Close the connection of a caller; a frozen process does not notice it."""
        if self.serving and not self.frozen:
            self.serving[-1 - back % len(self.serving)].cancel()

    @property
    def serving(self) -> list[asyncio.Task[None]]:
        """The requests in progress, oldest first."""
        self._requests = [task for task in self._requests if not task.done()]
        return self._requests

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Track a task of this process."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_job(self, key: JobKey, now: datetime) -> JobView:
        """Cancel a job, as DELETE /v1/jobs/{id} does."""
        return await cancel(self.kubernetes, self.cluster, self.writer, key, lambda: now)

    async def stop(self) -> None:
        """Finish the requests in progress, then shut down, as on SIGTERM."""
        self.stopping = True
        await asyncio.gather(*self.serving, return_exceptions=True)
        self.main.cancel()
        await asyncio.gather(self.main, return_exceptions=True)
        self._end()

    def kill(self) -> None:
        """Cancel all tasks without sending or answering anything, as on SIGKILL."""
        self._end()
        self.wire.running.set()
        for _ in range(10):
            if not self._tasks:
                break
            for task in self._tasks:
                task.cancel()
            self._api.loop.turns(2)

    def _end(self) -> None:
        self.alive = False
        self.wire.dead = True
        self._api.connections.remove(self.wire)

    async def _when_running(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self.wire.running.wait()
        await work()

    async def _main(self) -> None:
        """Run the controllers, as the lifespan of `runway.app` does."""
        await self.election.try_acquire_or_renew()
        controllers = (self.sync, self.diagnostics, self.writer, self.starts, self.recorder)
        loops = (self.election.run, *(controller.run for controller in controllers))
        tasks = [self.spawn(run()) for run in loops]
        try:
            await asyncio.gather(*tasks)
        finally:
            await self.submitter.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.election.release()


def uncharged_usd() -> dict[str, float]:
    """Return what jobs cost beyond their ceilings in all histories, by reason, as the metric has counted it."""
    total: dict[str, float] = defaultdict(float)
    for family in METRICS.uncharged_cost.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                total[sample.labels["reason"]] += sample.value
    return total


def owned_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    """Create a task that belongs to the process of its creator."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **options)
    owner = (context or copy_context()).get(OWNER)
    if owner is not None:
        owner.adopt(task)
    return task
