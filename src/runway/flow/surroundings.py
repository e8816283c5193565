"""What stands around the jobs: the warnings about them, and the nodes. It explains, and decides nothing.

The two watches here are apart from those of Jobs and pods: quota, readiness and states never depend on them. Where RBAC
refuses them, or they fail in any other way, it is logged once, tried again ever more seldom, and less is explained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from runway.cluster.client import NODES, WARNINGS, Kind, Kubernetes
from runway.cluster.nodes import Nodes
from runway.cluster.reflector import Contact, Lost, Snapshot, reflect
from runway.cluster.store import Key
from runway.cluster.types import Object
from runway.cluster.warnings import Warnings
from runway.flow.contact import Watch
from runway.flow.undecodable import UndecodableObjects
from runway.jobs.case import Room
from runway.objects import Event, Job, Node, Pod
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

LONGEST_SECONDS: Final = 60.0
"""Between two tries of a watch that is refused: longer than for what quota depends on."""


class Surroundings:
    """Owns what is known of warnings and nodes. `run` is the one task that feeds it; pods come from the observer.

    `changed` is called with each job that something around it has changed for.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        namespaces: Iterable[str],
        metrics: Metrics,
        changed: Callable[[Key], None],
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
        self.warnings = Warnings(namespaces)
        self.nodes = Nodes()
        self.watches = {kind.name: Watch(heard=clock()) for kind in (WARNINGS, NODES)}
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
            await self._sleep(LONGEST_SECONDS)

    def events(self, job: Job, pods: Iterable[Pod]) -> tuple[Event, ...]:
        """The warnings about a Job and its pods, oldest first."""
        return self.warnings.about(job, pods)

    def room(self, pods: Sequence[Pod]) -> Room | None:
        """What is free for the last of these pods, where it has no node; None where it has, or no node is known.

        It may be gone, as after a deadline: the verdict of a job that waited in vain says what there was.
        """
        last = pods[-1] if pods else None
        return None if last is None or last.spec.node_name or last.ended else self.nodes.room_for(last)

    async def _follow(
        self,
        kind: Kind[Object],
        replace: Callable[[Iterable[Object]], set[Key]],
        change: Callable[[str, Object], set[Key]],
    ) -> None:
        watch = self.watches[kind.name]
        news_of = reflect(
            self._kubernetes, kind, sleep=self._sleep, jitter=self._jitter, clock=self._clock, longest=LONGEST_SECONDS
        )
        async for news in news_of:
            if isinstance(news, Lost):
                self._metrics.watch_losses.labels(kind.name).inc()
                if watch.lost is None:
                    log.warning("watch lost; jobs are explained without it", kind=kind.name, reason=news.reason)
                watch.lost = news.reason
                continue
            if watch.lost is not None:
                log.info("watch is back", kind=kind.name)
            watch.heard, watch.lost = self._clock(), None
            if isinstance(news, Snapshot):
                watch.synced = True
                self._undecodable.replace(kind.name, news.items)
                self._tell(replace(news.items))
            elif not isinstance(news, Contact):
                self._undecodable.change(kind.name, news.object, deleted=news.type == "DELETED")
                self._tell(change(news.type, news.object))

    def _change_warning(self, type_: str, event: Event) -> set[Key]:
        key = self.warnings.drop(event) if type_ == "DELETED" else self.warnings.put(event)
        return set() if key is None else {key}

    def _change_node(self, type_: str, node: Node) -> set[Key]:
        return self.nodes.drop_node(node) if type_ == "DELETED" else self.nodes.put_node(node)

    def _tell(self, keys: set[Key]) -> None:
        for key in keys:
            self._changed(key)
