"""What stands around the jobs: the warnings about them, and the nodes. It explains, and decides nothing.

The two watches here are apart from those of Jobs and pods: quota, readiness and states never depend on them. Where RBAC
refuses them, or they fail in any other way, it is logged once, tried again ever more seldom, and less is explained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from runway.jobs.snapshot import FreeCapacity
from runway.kube.api_types import Object
from runway.kube.client import NODES, WARNINGS, KubeClient, Resource
from runway.kube.objects import Event, Job, Node, Pod
from runway.kube.reflector import Bookmark, Disconnected, Relisted, reflect
from runway.state.job_store import JobKey
from runway.state.node_capacity import NodeCache
from runway.state.undecodable_objects import UndecodableObjects
from runway.state.warning_events import WarningEventCache
from runway.state.watch_status import WatchStatus
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

MAX_BACKOFF_SECONDS: Final = 60.0
"""Between two tries of a watch that is refused: longer than for what quota depends on."""


class DiagnosticsSync:
    """Owns what is known of warnings and nodes. `run` is the one task that feeds it; pods come from the observer.

    `changed` is called with each job that something around it has changed for.
    """

    def __init__(
        self,
        kubernetes: KubeClient,
        namespaces: Iterable[str],
        metrics: Metrics,
        changed: Callable[[JobKey], None],
        undecodable: UndecodableObjects,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._kubernetes = kubernetes
        self._metrics = metrics
        self._changed = changed
        self._undecodable = undecodable
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self.warnings = WarningEventCache(namespaces)
        self.nodes = NodeCache()
        self.watches = {kind.name: WatchStatus(last_event_at=clock()) for kind in (WARNINGS, NODES)}
        for kind in self.watches:
            metrics.watch_losses.labels(kind)  # From 0 on, or the first would not show as an increase.

    async def run(self) -> None:
        """Keep up until cancelled. A defect here is logged, and must not take the rest of Runway along."""
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follow(WARNINGS, self.warnings.replace, self._change_warning))
                    tasks.create_task(self._follow(NODES, self.nodes.replace_nodes, self._change_node))
            except Exception:
                log.exception("watching events and nodes failed")
            await self._sleep(MAX_BACKOFF_SECONDS)

    def events(self, job: Job, pods: Iterable[Pod]) -> tuple[Event, ...]:
        """The warnings about a Job and its pods, oldest first."""
        return self.warnings.for_job(job, pods)

    def free_capacity(self, pods: Sequence[Pod]) -> FreeCapacity | None:
        """What is free for the last of these pods, where it has no node; None where it has, or no node is known.

        It may be gone, as after a deadline: the verdict of a job that waited in vain says what there was.
        """
        last = pods[-1] if pods else None
        return None if last is None or last.spec.node_name or last.is_terminal else self.nodes.free_capacity_for(last)

    async def _follow(
        self,
        kind: Resource[Object],
        replace: Callable[[Iterable[Object]], set[JobKey]],
        change: Callable[[str, Object], set[JobKey]],
    ) -> None:
        watch = self.watches[kind.name]
        news_of = reflect(
            self._kubernetes,
            kind,
            sleep=self._sleep,
            jitter=self._jitter,
            clock=self._clock,
            longest=MAX_BACKOFF_SECONDS,
        )
        async for news in news_of:
            if isinstance(news, Disconnected):
                self._metrics.watch_losses.labels(kind.name).inc()
                if watch.disconnect_reason is None:
                    log.warning("watch lost; jobs are explained without it", kind=kind.name, reason=news.reason)
                watch.disconnect_reason = news.reason
                continue
            if watch.disconnect_reason is not None:
                log.info("watch is back", kind=kind.name)
            watch.last_event_at, watch.disconnect_reason = self._clock(), None
            if isinstance(news, Relisted):
                watch.synced = True
                self._undecodable.replace(kind.name, news.items)
                self._notify(replace(news.items))
            elif not isinstance(news, Bookmark):
                self._undecodable.change(kind.name, news.object, deleted=news.type == "DELETED")
                self._notify(change(news.type, news.object))

    def _change_warning(self, type_: str, event: Event) -> set[JobKey]:
        key = self.warnings.drop(event) if type_ == "DELETED" else self.warnings.put(event)
        return set() if key is None else {key}

    def _change_node(self, type_: str, node: Node) -> set[JobKey]:
        return self.nodes.delete_node(node) if type_ == "DELETED" else self.nodes.upsert_node(node)

    def _notify(self, keys: set[JobKey]) -> None:
        for key in keys:
            self._changed(key)
