"""Notify subscribers that a job changed.

A subscriber reads the current state, waits, and reads again. Several changes between two reads are one notification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runway.fair_share import FairQueue, FairSlots, Owner
from runway.state.job_store import JobKey


class Subscriptions:
    """The subscribers by job, and those of all jobs. A job without subscribers takes no memory."""

    def __init__(self) -> None:
        self._by_job: dict[JobKey, set[Subscription]] = {}
        self._all_jobs: list[JobQueue] = []

    def __len__(self) -> int:
        return len(self._by_job)

    @contextmanager
    def subscribe(self, key: JobKey) -> Iterator[Subscription]:
        subscription = Subscription()
        subscriptions = self._by_job.setdefault(key, set())
        subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            subscriptions.discard(subscription)
            if not subscriptions:
                del self._by_job[key]

    def subscribe_all(self) -> JobQueue:
        """Subscribe to the changes of all jobs, as long as the process runs."""
        changed = JobQueue()
        self._all_jobs.append(changed)
        return changed

    def notify(self, key: JobKey) -> None:
        for subscription in self._by_job.get(key, ()):
            subscription.notify()
        for changed in self._all_jobs:
            changed.add(key)


class Subscription:
    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change since the last wait, at most this long; return whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class JobQueue:
    """Jobs to process, each once. Tenants take turns, and changes of one job while it waits are one entry.

    `limit` bounds the jobs that are processed at once, divided fairly. The caller then calls `done` for each taken job.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._queue: FairQueue[JobKey] = FairQueue()
        self._slots = None if limit is None else FairSlots(limit)
        self._changed = asyncio.Event()
        self._first = asyncio.Lock()
        """Held by the one caller that waits for a change: a change must not wake all of them."""

    def add(self, key: JobKey) -> None:
        self._queue.put(key.namespace, key)
        self._changed.set()

    async def take(self) -> JobKey:
        """Wait for the next job whose tenant has a free slot. Other tasks have a turn before, even if one waits."""
        async with self._first:
            if self._queue:
                await asyncio.sleep(0)
            while (found := self._queue.take(self._has_room)) is None:
                self._changed.clear()
                await self._changed.wait()
            owner, key = found
            if self._slots is not None:
                self._slots.take(owner)
        return key

    def done(self, key: JobKey) -> None:
        """Free the slot of a job."""
        if self._slots is not None:
            self._slots.release(key.namespace)
            self._changed.set()

    def _has_room(self, owner: Owner) -> bool:
        return self._slots is None or self._slots.has_room(owner)
