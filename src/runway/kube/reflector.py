"""Keep up with one kind of object: three nested generators with one concern each.

- `reflect` never ends: after any failure it backs off and lists again.
- `_list_then_watch` lists once, then watches, and renews the watch until its version expires.
- `KubeClient.watch` is one HTTP call with bookmarks and an inactivity time-out.

A consumer that replaces its state by each `Relisted` and applies each `WatchEvent` has the state of Kubernetes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic

from runway.backoff import Backoff, Timing
from runway.errors import ClusterError, PublicError, ResourceExpired
from runway.kube.client import KubeClient, Resource
from runway.kube.decode import IsKnown
from runway.kube.objects import Metadata, Object, WatchEvent

MAX_BACKOFF_SECONDS: Final = 5.0
NO_VERSION: Final = Metadata().resource_version
"""The version of an object with unreadable metadata: the watch continues from the version before it."""


@dataclass(frozen=True, slots=True)
class Relisted(Generic[Object]):
    """Every object as of one resource version."""

    items: deque[Object]
    """The consumer pops the items, to free memory gradually."""
    version: int
    requested_at: float
    """Monotonic seconds: the list contains everything written before."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is lost: the known state ages until the next list."""

    reason: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """The API server reported progress without a change."""

    version: int


async def reflect(
    kubernetes: KubeClient,
    kind: Resource[Object],
    timing: Timing,
    max_backoff_seconds: float = MAX_BACKOFF_SECONDS,
    is_known: IsKnown = lambda _: False,
) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object] | Bookmark | Disconnected, None]:
    """Yield lists and events of all objects of a kind, forever. An event of a known version is a bookmark."""
    backoff = Backoff(timing.jitter, longest=max_backoff_seconds)
    while True:
        try:
            async with aclosing(_list_then_watch(kubernetes, kind, backoff, timing, is_known)) as updates:
                async for update in updates:
                    yield update
        except (ClusterError, PublicError) as error:
            yield Disconnected(str(error))
        await timing.sleep(backoff.next())


async def _list_then_watch(
    kubernetes: KubeClient, kind: Resource[Object], backoff: Backoff, timing: Timing, is_known: IsKnown
) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object] | Bookmark, None]:
    requested_at = timing.clock()
    listing = await kubernetes.list(kind)
    version = listing.metadata.resource_version
    items = deque(listing.items)
    del listing
    yield Relisted(items, int(version), requested_at)
    while True:
        received, began = False, timing.clock()
        try:
            async with aclosing(kubernetes.watch(kind, version, is_known)) as events:
                async for event in events:
                    received = True
                    if event.object.metadata.resource_version != NO_VERSION:
                        version = event.object.metadata.resource_version
                    yield Bookmark(int(version)) if event.type == "BOOKMARK" else event
        except ResourceExpired:
            return
        if not kind.has_bookmarks and timing.clock() - began >= kind.watch_seconds / 2:
            received = True  # The server ended a quiet watch in time.
            yield Bookmark(int(version))
        # The server closes each watch after some minutes. Pause after one without an event, to avoid a busy loop.
        if received:
            backoff.reset()
        else:
            await timing.sleep(backoff.next())
