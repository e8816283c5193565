"""The logs of pods that were told to end, followed to their end: the kubelet removes a log together with its pod."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from runway.errors import ClusterError, PublicError
from runway.jobs.log_excerpt import Excerpt, excerpt_of
from runway.kube.client import KubeClient
from runway.kube.log_tail import follow_tail
from runway.kube.objects import Pod
from runway.state.byte_budget import ByteBudget

log = structlog.get_logger()

MAX_FOLLOWED: Final = 16
"""Logs that are followed at once."""
MAX_FOLLOWED_PER_TENANT: Final = 8
"""Of these in one namespace, so that no tenant takes all of them."""
MAX_BYTES: Final = 2 << 20
"""Of the ends of logs that wait for their record; beyond it the oldest of the tenant with most of them go."""
MAX_FOLLOW_SECONDS: Final = 900.0
"""How long one log is followed at most: a pod that was created outside Runway can have any grace period."""
MARGIN_SECONDS: Final = 10.0
"""How much longer than its grace period a pod may take to end."""

PAUSE_SECONDS: Final = 1.0
"""At most, with jitter, before a log that held nothing or could not be read is followed again. A cause such as an API
server that refuses connections answers at once, and without a pause each answer would bring the next request."""


@dataclass(frozen=True, slots=True)
class CapturedLog:
    """The end of a log as it was followed; `whole`: to its very end."""

    excerpt: Excerpt
    whole: bool


class LogCapture:
    """Follows logs, each in a task of its own that ends by itself; whoever owns this must `close` it."""

    def __init__(
        self,
        kubernetes: KubeClient,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kubernetes = kubernetes
        self._sleep = sleep
        self._jitter = jitter
        self._following: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, CapturedLog] = {}
        """Both by the pod's uid."""
        self._followed: Counter[str] = Counter()
        """How many logs are followed, by namespace."""
        self._budget: ByteBudget[str] = ByteBudget(MAX_BYTES)

    def follows(self, pod: Pod) -> bool:
        """Whether the end of this pod's log is still to come."""
        return pod.metadata.uid in self._following

    def of(self, pod: Pod) -> CapturedLog | None:
        """The end of this pod's log, if it was followed and held anything."""
        return self._ends.get(pod.metadata.uid)

    def follow(self, pod: Pod, secrets: tuple[str, ...] | None, done: Callable[[], None]) -> None:
        """Follow this pod's log, if it was told to end and runs, and there is room; `done` is called after that."""
        uid = pod.metadata.uid
        if not pod.terminating or pod.container.running is None or uid in self._following or uid in self._ends:
            return
        namespace = pod.metadata.namespace
        if len(self._following) >= MAX_FOLLOWED or self._followed[namespace] >= MAX_FOLLOWED_PER_TENANT:
            log.info("too many pods end at once to follow all their logs", pod=pod.metadata.name)
            return
        self._followed[namespace] += 1
        self._following[uid] = asyncio.create_task(self._follow(pod, secrets, done))

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = list(self._following.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._following.clear()

    async def _follow(self, pod: Pod, secrets: tuple[str, ...] | None, done: Callable[[], None]) -> None:
        uid = pod.metadata.uid
        try:
            await self._read(pod, secrets)
            if uid not in self._ends:
                await self._sleep(PAUSE_SECONDS * (0.5 + 0.5 * self._jitter()))
        finally:
            self._followed[pod.metadata.namespace] -= 1
            self._following.pop(uid, None)
        done()

    async def _read(self, pod: Pod, secrets: tuple[str, ...] | None) -> None:
        """Follow the log to its end, and keep what it held."""
        namespace, name, uid = pod.metadata.namespace, pod.metadata.name, pod.metadata.uid
        grace = pod.metadata.deletion_grace_period_seconds or pod.spec.termination_grace_period_seconds or 0
        try:
            seconds = min(grace + MARGIN_SECONDS, MAX_FOLLOW_SECONDS)
            end = await follow_tail(self._kubernetes, namespace, name, seconds)
            excerpt = excerpt_of(name, end.log, secrets, cut=end.cut)
            if excerpt is not None:
                self._ends[uid] = CapturedLog(excerpt, end.whole)
                self._budget.put(namespace, uid, len(excerpt.text.encode()))
                for _, excess in self._budget.excess():
                    del self._ends[excess]
        except (ClusterError, PublicError) as error:
            log.info("log of an ending pod not followed", pod=name, reason=str(error))
        except Exception:
            log.exception("log of an ending pod not followed", pod=name)
