"""Watch warning events and nodes, for diagnosis only.

Quota, readiness and job states never depend on these watches. A failure, such as missing RBAC, is retried with back-off
and only makes explanations less precise.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

import structlog

from runway.controllers.sync import follow
from runway.kube.client import NODES, WARNINGS, KubeClient, Resource
from runway.kube.objects import Object
from runway.kube.reflector import Relisted
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
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
                warnings, nodes = self._cluster.warnings, self._cluster.nodes
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._sync(WARNINGS, warnings.replace, warnings.upsert, warnings.delete))
                    tasks.create_task(self._sync(NODES, nodes.replace_nodes, nodes.upsert_node, nodes.delete_node))
            except Exception:
                log.exception("watching events and nodes failed")
            await self._sleep(MAX_BACKOFF_SECONDS)

    async def _sync(
        self,
        kind: Resource[Object],
        replace: Callable[[Iterable[Object]], Collection[JobKey]],
        upsert: Callable[[Object], Collection[JobKey]],
        delete: Callable[[Object], Collection[JobKey]],
    ) -> None:
        updates = follow(
            self._kubernetes,
            kind,
            self._cluster.diagnostic_watches[kind.name],
            self._metrics,
            clock=self._clock,
            sleep=self._sleep,
            jitter=self._jitter,
            max_backoff_seconds=MAX_BACKOFF_SECONDS,
        )
        async for update in updates:
            if isinstance(update, Relisted):
                changed = replace(update.items)
            else:
                changed = delete(update.object) if update.type == "DELETED" else upsert(update.object)
            self._cluster.notify(changed)
