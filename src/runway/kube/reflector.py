"""Keep up with one kind of object: three nested generators, each with one concern.

- `reflect` goes on for ever: whatever fails, it backs off and lists again.
- `_list_then_watch` lists once, then watches, renewing the watch until its version has expired.
- `Kubernetes.watch` is one HTTP call, with bookmarks and an inactivity time-out.

What comes out is a `Snapshot` whenever everything was listed, then `Change`s. A consumer that replaces its state by
each snapshot and applies each change holds what Kubernetes holds, however often the connection is lost.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic

from runway.errors import ClusterError, PublicError, ResourceExpired
from runway.kube.api_types import Object, WatchEvent
from runway.kube.backoff import Backoff
from runway.kube.client import KubeClient, Resource
from runway.kube.objects import Metadata

NO_VERSION: Final = Metadata().resource_version
"""Of an object whose metadata cannot be read: the watch continues from the version before it."""


@dataclass(frozen=True, slots=True)
class Relisted(Generic[Object]):
    """Everything there is, as of one resource version."""

    items: deque[Object]
    """To be taken out by whoever takes it in, so that it is not kept, and not all freed at once."""
    version: int
    asked: float
    """When it was asked for, in monotonic seconds: it holds all that was written before."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Contact was lost: what is known grows old until the next snapshot."""

    reason: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """The API server has spoken, though nothing changed."""


async def reflect(
    kubernetes: KubeClient,
    kind: Resource[Object],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
    longest: float = 5.0,
) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object] | Bookmark | Disconnected, None]:
    """Snapshots and changes of all objects of a kind, for ever; at most `longest` seconds from one try to the next."""
    backoff = Backoff(jitter, longest=longest)
    while True:
        try:
            async with aclosing(_list_then_watch(kubernetes, kind, backoff, sleep, clock)) as changes:
                async for change in changes:
                    yield change
        except (ClusterError, PublicError) as error:
            yield Disconnected(str(error))
        await sleep(backoff.next())


async def _list_then_watch(
    kubernetes: KubeClient,
    kind: Resource[Object],
    backoff: Backoff,
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float],
) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object] | Bookmark, None]:
    """One list, then watches from where it ended, until the version has expired or a call fails."""
    asked = clock()
    listing = await kubernetes.list(kind)
    version = listing.metadata.resource_version
    items = deque(listing.items)
    del listing
    yield Relisted(items, int(version), asked)
    while True:
        spoke = False
        try:
            async with aclosing(kubernetes.watch(kind, version)) as changes:
                async for change in changes:
                    spoke = True
                    if change.object.metadata.resource_version != NO_VERSION:
                        version = change.object.metadata.resource_version
                    yield Bookmark() if change.type == "BOOKMARK" else change
        except ResourceExpired:
            return
        # The server closed the watch in good order, as it does every few minutes: go on from the last version seen.
        # One that only ever closes at once is not called again without a pause.
        if spoke:
            backoff.reset()
        else:
            await sleep(backoff.next())
