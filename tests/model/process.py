"""One Runway process: the real components on a wire, wired as `runway.app` wires them, without HTTP."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import datetime
from typing import Any, Final, TypeVar

from runway.controllers.leadership import Leadership
from runway.controllers.sync import Observer
from runway.errors import Unavailable
from runway.jobs.view import JobView
from runway.kube.client import KubeClient
from runway.kube.leader_election import LeaderElector, LeaseLock
from runway.policy import Policy
from runway.services.cancel import cancel
from runway.services.submit import Submitter
from runway.state.job_store import JobKey
from runway.telemetry.metrics import Metrics
from tests.model.apiserver import ApiServer
from tests.model.wire import Wire

CALL_SECONDS: Final = 2.5
RESYNC_SECONDS: Final = 900.0
"""Longer than the quiet at the end of a history: only a lost event may need a resync to be put right."""

METRICS: Final = Metrics()
_TOKENS: Final = itertools.count()
"""What a random token is: never the same twice, whatever process makes it."""
OWNER: Final[ContextVar[Process | None]] = ContextVar("OWNER", default=None)

_Result = TypeVar("_Result")


class Process:
    """A Runway process from its start to its end; `identity` is what `RUNWAY_INSTANCE` would say.

    `skew` is how fast its clock runs: 1.02 gains a second in fifty.
    """

    def __init__(self, api: ApiServer, policy: Policy, identity: str, seed: int, skew: float) -> None:
        rng = random.Random(seed)
        self.identity = identity
        self.alive = True
        self.stopping = False
        self.gained: int | None = None
        """When the API server last made this process the holder of the Lease, as `ApiServer.mark`."""
        self.wire = Wire(api, self)
        self._api = api
        self._skew = skew
        self._boot = rng.uniform(0, 1e6)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests: list[asyncio.Task[None]] = []
        self.kubernetes = KubeClient(self.wire, CALL_SECONDS)
        self.observer = Observer(
            self.kubernetes,
            policy,
            METRICS,
            resync_seconds=RESYNC_SECONDS,
            slice_steps=1 + seed % 2,
            clock=self.clock,
            sleep=self.wire.sleep,
            jitter=rng.random,
        )
        self.election = LeaderElector(
            self.kubernetes,
            LeaseLock("default", "runway-writer", identity),
            clock=self.clock,
            wall=api.now,
            sleep=self.wire.sleep,
            jitter=rng.random,
        )
        self.writer = Leadership(self.election, self.observer, CALL_SECONDS, sleep=self.wire.sleep, jitter=rng.random)
        self.submitter = Submitter(
            policy,
            self.kubernetes,
            self.observer,
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
        """This process's monotonic clock, in seconds since its machine was started."""
        return self._boot + self._api.loop.time() * self._skew

    @property
    def frozen(self) -> bool:
        """Whether the process is stopped where it is."""
        return not self.wire.running.is_set()

    @property
    def writes(self) -> bool:
        """Whether a submission would pass the check for the one writer now."""
        if not self.alive or not self.writer.is_leader:
            return False
        try:
            self.writer.require_leader()
        except Unavailable:
            return False
        return True

    def spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """A task that dies with this process, as do those that it starts."""
        context = copy_context()
        context.run(OWNER.set, self)
        return self._api.loop.create_task(work, context=context)

    def serve(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A request is worked on, once the process is not frozen."""
        self._requests.append(self.spawn(self._when_running(work)))

    def give_up(self, back: int) -> None:
        """The connection of a caller breaks; a process that is frozen does not see it."""
        if self.serving and not self.frozen:
            self.serving[-1 - back % len(self.serving)].cancel()

    @property
    def serving(self) -> list[asyncio.Task[None]]:
        """The requests in progress, oldest first."""
        self._requests = [task for task in self._requests if not task.done()]
        return self._requests

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task was started by this process."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_job(self, key: JobKey, now: datetime) -> JobView:
        """What DELETE /v1/jobs/{id} does."""
        return await cancel(self.kubernetes, self.observer, self.writer, key, lambda: now)

    async def stop(self) -> None:
        """SIGTERM: the requests in progress are answered, then everything ends in good order."""
        self.stopping = True
        await asyncio.gather(*self.serving, return_exceptions=True)
        self.main.cancel()
        await asyncio.gather(self.main, return_exceptions=True)
        self._end()

    def kill(self) -> None:
        """SIGKILL: nothing is sent any more, nothing is answered, nothing is remembered."""
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
        """As the lifespan of `runway.app`."""
        await self.election.try_acquire_or_renew()
        tasks = [self.spawn(run()) for run in (self.election.run, self.observer.run, self.writer.run)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await self.submitter.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.election.release()


def owned_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None, **options: Any
) -> asyncio.Task[Any]:
    """A task factory: each task belongs to the process that started it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **options)
    owner = (context or copy_context()).get(OWNER)
    if owner is not None:
        owner.adopt(task)
    return task
