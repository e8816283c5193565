"""Who wants to know when something of a job changes. State-based: a reader is told to look again, not what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runway.state.job_store import JobKey


class Subscriptions:
    """The readers, by job. Nothing is kept of a job that nobody reads."""

    def __init__(self) -> None:
        self._readers: dict[JobKey, set[Subscription]] = {}

    def __len__(self) -> int:
        return len(self._readers)

    @contextmanager
    def subscribe(self, key: JobKey) -> Iterator[Subscription]:
        """Read a job's changes from now on."""
        reader = Subscription()
        readers = self._readers.setdefault(key, set())
        readers.add(reader)
        try:
            yield reader
        finally:
            readers.discard(reader)
            if not readers:
                del self._readers[key]

    def notify(self, key: JobKey) -> None:
        """Something of this job has changed."""
        for reader in self._readers.get(key, ()):
            reader.notify()


class Subscription:
    """One reader, which looks, then waits, then looks again. However much happens meanwhile, it is told once."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """There is something to look at."""
        self._changed.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change since the last wait, but no longer than so many seconds; whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True
