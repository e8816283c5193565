"""Watch warning events and nodes, for diagnosis only.

Quota, readiness and job states never depend on these watches. A failure, such as missing RBAC, is retried with back-off
and only makes explanations less precise.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import structlog

from runway.controllers.watch_loop import follow
from runway.kube.client import NODES, WARNINGS, KubeClient, Resource
from runway.kube.objects import Object, WatchEvent
from runway.kube.reflector import Relisted
from runway.state.cluster_state import ClusterState
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

MAX_BACKOFF_SECONDS: Final = 60.0
"""Longer than for Jobs and pods, because quota does not depend on these watches."""


class DiagnosticsSync:
    """Feeds the warnings and nodes of the cluster state. `run` is its only task."""

    def __init__(
        self,
        kubernetes: KubeClient,
        cluster: ClusterState,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kubernetes = kubernetes
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        for kind in cluster.diagnostic_watches:
            metrics.watch_losses.labels(kind)  # From 0 on: the first loss shows as an increase.

    async def run(self) -> None:
        """Watch until cancelled. A defect is logged, and does not end the process."""
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._sync_warnings())
                    tasks.create_task(self._sync_nodes())
            except Exception:
                log.exception("watching events and nodes failed")
            await self._sleep(MAX_BACKOFF_SECONDS)

    async def _sync_warnings(self) -> None:
        warnings = self._cluster.warnings
        async for update in self._follow(WARNINGS):
            if isinstance(update, Relisted):
                self._cluster.notify(warnings.replace(update.items))
            elif update.type == "DELETED":
                self._cluster.notify(warnings.delete(update.object))
            else:
                self._cluster.notify(warnings.upsert(update.object))

    async def _sync_nodes(self) -> None:
        nodes = self._cluster.nodes
        async for update in self._follow(NODES):
            if isinstance(update, Relisted):
                self._cluster.notify(nodes.replace_nodes(update.items))
            elif update.type == "DELETED":
                self._cluster.notify(nodes.delete_node(update.object))
            else:
                self._cluster.notify(nodes.upsert_node(update.object))

    def _follow(self, kind: Resource[Object]) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object], None]:
        return follow(
            self._kubernetes,
            kind,
            self._cluster.diagnostic_watches[kind.name],
            self._metrics,
            clock=self._clock,
            sleep=self._sleep,
            jitter=self._jitter,
            max_backoff_seconds=MAX_BACKOFF_SECONDS,
        )
