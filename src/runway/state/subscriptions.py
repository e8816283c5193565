"""Notify subscribers that a job changed.

A subscriber reads the current state, waits, and reads again. Several changes between two reads are one notification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runway.state.job_store import JobKey


class Subscriptions:
    """The subscribers by job, and those of all jobs. A job without subscribers takes no memory."""

    def __init__(self) -> None:
        self._by_job: dict[JobKey, set[Subscription]] = {}
        self._all_jobs: list[ChangedJobs] = []

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

    def subscribe_all(self) -> ChangedJobs:
        """Subscribe to the changes of all jobs, as long as the process runs."""
        changed = ChangedJobs()
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


class ChangedJobs:
    """The jobs that changed since they were last taken, each once, in the order of their changes."""

    def __init__(self) -> None:
        self._keys: dict[JobKey, None] = {}
        self._added = asyncio.Event()

    def add(self, key: JobKey) -> None:
        self._keys[key] = None
        self._added.set()

    async def take(self) -> JobKey:
        while not self._keys:
            self._added.clear()
            await self._added.wait()
        key = next(iter(self._keys))
        del self._keys[key]
        return key
