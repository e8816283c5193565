"""Follow the logs of terminating pods: the kubelet deletes a log with its pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from runway.backoff import Timing
from runway.errors import ClusterError, PublicError
from runway.fair_share import FairBudget, FairSlots
from runway.jobs.log_excerpt import RAW_BYTES, excerpt_of
from runway.jobs.models import Excerpt
from runway.kube.client import KubeClient
from runway.kube.log_tail import follow_tail
from runway.kube.objects import Pod

log = structlog.get_logger()

MAX_FOLLOWED: Final = 16
"""Logs at once, divided fairly: at most half of them in one namespace."""
MAX_BYTES: Final = 2 << 20
"""Captured logs without a record. Beyond it the oldest of the largest tenant are dropped."""
MAX_FOLLOW_SECONDS: Final = 900.0
"""Maximum duration per log: a pod created outside Runway can have any grace period."""
MARGIN_SECONDS: Final = 10.0
"""Added to the grace period of a pod."""
PAUSE_SECONDS: Final = 1.0
"""Maximum pause, with jitter, after an empty or failed read, to avoid a busy loop of requests."""


@dataclass(frozen=True, slots=True)
class CapturedLog:
    """The excerpt of a followed log; `whole`: it includes the end of the log."""

    excerpt: Excerpt
    whole: bool


class LogCapture:
    """Follows logs in one task each. The owner must call `close`."""

    def __init__(self, kubernetes: KubeClient, timing: Timing) -> None:
        self._kubernetes = kubernetes
        self._timing = timing
        self._following: dict[str, asyncio.Task[None]] = {}
        self._captured: dict[str, CapturedLog] = {}
        """Both by the uid of the pod."""
        self._slots = FairSlots(MAX_FOLLOWED)
        self._budget: FairBudget[str] = FairBudget(MAX_BYTES)

    def follows(self, pod: Pod) -> bool:
        return pod.metadata.uid in self._following

    def of(self, pod: Pod) -> CapturedLog | None:
        """Return the captured log of this pod, if it was followed and not empty."""
        return self._captured.get(pod.metadata.uid)

    def follow(self, pod: Pod, secrets: tuple[str, ...] | None, done: Callable[[], None]) -> None:
        """Follow the log of a running, terminating pod if the limits allow it; call `done` afterwards."""
        uid = pod.metadata.uid
        if not pod.terminating or pod.container.running is None or uid in self._following or uid in self._captured:
            return
        namespace = pod.metadata.namespace
        if not self._slots.has_room(namespace):
            log.info("too many terminating pods to follow all logs", pod=pod.metadata.name)
            return
        self._slots.take(namespace)
        self._following[uid] = asyncio.create_task(self._follow(pod, secrets, done))

    async def close(self) -> None:
        tasks = list(self._following.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._following.clear()
        self._slots = FairSlots(MAX_FOLLOWED)  # A task that was cancelled before its first turn has kept its slot.

    async def _follow(self, pod: Pod, secrets: tuple[str, ...] | None, done: Callable[[], None]) -> None:
        uid = pod.metadata.uid
        try:
            await self._capture(pod, secrets)
            if uid not in self._captured:
                await self._timing.sleep(PAUSE_SECONDS * (0.5 + 0.5 * self._timing.jitter()))
        finally:
            self._slots.release(pod.metadata.namespace)
            self._following.pop(uid, None)
        done()

    async def _capture(self, pod: Pod, secrets: tuple[str, ...] | None) -> None:
        name, uid = pod.metadata.name, pod.metadata.uid
        grace = pod.metadata.deletion_grace_period_seconds or pod.spec.termination_grace_period_seconds or 0
        try:
            seconds = min(grace + MARGIN_SECONDS, MAX_FOLLOW_SECONDS)
            tail = await follow_tail(self._kubernetes, pod, RAW_BYTES, seconds)
            excerpt = excerpt_of(name, tail.log, secrets, cut=tail.cut)
            if excerpt is not None:
                self._captured[uid] = CapturedLog(excerpt, tail.whole)
                self._budget.put(pod.metadata.namespace, uid, len(excerpt.text.encode()))
                for _, excess in self._budget.excess():
                    del self._captured[excess]
        except (ClusterError, PublicError) as error:
            log.info("log of a terminating pod not followed", pod=name, reason=str(error))
        except Exception:
            log.exception("log of a terminating pod not followed", pod=name)
