"""Follow one kind of object, and track the health of its watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog

from runway.kube.client import KubeClient, Resource
from runway.kube.objects import Object, WatchEvent
from runway.kube.reflector import MAX_BACKOFF_SECONDS, Bookmark, Disconnected, Relisted, reflect
from runway.state.cluster_state import WatchStatus
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()


async def follow(
    kubernetes: KubeClient,
    kind: Resource[Object],
    watch: WatchStatus,
    metrics: Metrics,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    jitter: Callable[[], float],
    max_backoff_seconds: float = MAX_BACKOFF_SECONDS,
) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object], None]:
    """Yield every list and every event of a kind, forever.

    `watch` counts as synced and connected only after the consumer has applied the list.
    """
    updates = reflect(
        kubernetes, kind, sleep=sleep, jitter=jitter, clock=clock, max_backoff_seconds=max_backoff_seconds
    )
    async for update in updates:
        if isinstance(update, Disconnected):
            if watch.disconnect_reason != update.reason:
                log.warning("watch lost", kind=kind.name, reason=update.reason)
            watch.mark_disconnected(update.reason, clock())
            metrics.watch_losses.labels(kind.name).inc()
            continue
        watch.last_event_at = clock()
        if isinstance(update, Relisted):
            watch.replace_undecodable(update.items)
            yield update
            watch.synced = True
        elif not isinstance(update, Bookmark):
            watch.update_undecodable(update.object, deleted=update.type == "DELETED")
            yield update
        if watch.disconnect_reason is not None:
            log.info("watch restored", kind=kind.name)
        watch.mark_connected()
