"""The observe path: Kubernetes watch -> store -> ledger. Read it top to bottom.

1. One reflector for Jobs and one for pods list, then watch, all of Runway's objects in the tenants' namespaces.
2. Each snapshot replaces, and each change updates, the store.
3. Each changed record is booked in the ledger and counted by state, at once: quota is released by what is observed.
4. Runway is ready when both reflectors have brought their first snapshot.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

import structlog

from runway.admission.booking import booking_of
from runway.admission.quota import Amounts, Ledger
from runway.cluster.client import JOBS, PODS, Kind, Kubernetes
from runway.cluster.reflector import Contact, Lost, Snapshot, reflect
from runway.cluster.store import Key, Record, Store
from runway.cluster.types import Object
from runway.errors import NotReady
from runway.jobs.identity import LABEL_JOB, SELECTOR
from runway.jobs.view import JobView, State, job_view
from runway.objects import Job, Pod
from runway.policy import Policy
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()


@dataclass(slots=True)
class Watch:
    """How one reflector is doing. `heard` is monotonic seconds; `lost` says why contact is lost, if it is."""

    synced: bool = False
    heard: float = 0.0
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class _Tally:
    """What a job adds to the sums that are kept per tenant."""

    state: State
    ceiling: Decimal


class Observer:
    """Owns the store, the ledger and the two reflectors. `run` is the one task that feeds them."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        policy: Policy,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kubernetes = kubernetes
        self._tenants = {tenant.namespace: name for name, tenant in policy.tenants.items()}
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._tallies: dict[Key, _Tally] = {}
        self.store = Store(LABEL_JOB, self._changed)
        self.ledger = Ledger({name: tenant.quota for name, tenant in policy.tenants.items()})
        self.watches = {kind.name: Watch(heard=clock()) for kind in (JOBS, PODS)}
        self.states: Counter[tuple[str, State]] = Counter()
        self.active_ceiling: dict[str, Decimal] = dict.fromkeys(policy.tenants, Decimal())
        self.broken: str | None = None

    async def run(self) -> None:
        """Keep up with Kubernetes until cancelled. Should it ever fail, Runway is broken and says so."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(JOBS, self.store.replace_jobs, self._change_job))
                tasks.create_task(self._follow(PODS, self.store.replace_pods, self._change_pod))
        except Exception as error:
            self.broken = f"the observe loop failed: {error!r}"
            log.critical("observe loop failed", exc_info=True)
            raise

    @property
    def synced(self) -> bool:
        """Whether everything was listed once, so that use can be told."""
        return all(watch.synced for watch in self.watches.values())

    def require_synced(self) -> None:
        """Raise NotReady until everything was listed once, and when the view of the cluster has stopped for good."""
        if self.broken:
            raise NotReady(self.broken, retry_after=30)
        if not self.synced:
            raise NotReady("the jobs in the cluster are still being listed")

    def age(self, watch: Watch) -> float:
        """Seconds since a watch last heard from Kubernetes."""
        return max(0.0, self._clock() - watch.heard)

    def tenant_of(self, key: Key) -> str:
        """The tenant whose namespace this is."""
        return self._tenants[key.namespace]

    def view(self, key: Key) -> JobView | None:
        """The view of a job as it is known now; None where there is no such Job."""
        record = self.store.get(key)
        if record is None or record.job is None:
            return None
        return job_view(self.tenant_of(key), record.job, record.all_pods(), frozenset(record.gone))

    async def _follow(
        self,
        kind: Kind[Object],
        replace: Callable[[Iterator[Object], int], int],
        change: Callable[[str, Object], None],
    ) -> None:
        watch = self.watches[kind.name]
        async for news in reflect(self._kubernetes, kind, SELECTOR, sleep=self._sleep, jitter=self._jitter):
            if isinstance(news, Lost):
                watch.lost = news.reason
                self._metrics.watch_losses.labels(kind.name).inc()
                log.warning("watch lost", kind=kind.name, reason=news.reason)
                continue
            watch.heard, watch.lost = self._clock(), None
            if isinstance(news, Snapshot):
                corrected = replace((item for item in news.items if self._ours(item)), news.version)
                if watch.synced:
                    self._metrics.corrections.labels(kind.name).inc(corrected)
                watch.synced = True
                log.info("listed", kind=kind.name, objects=len(news.items), corrected=corrected, version=news.version)
            elif not isinstance(news, Contact) and self._ours(news.object):
                change(news.type, news.object)

    def _ours(self, item: Job | Pod) -> bool:
        """Whether an object is in a tenant's namespace: labels can be copied, a namespace cannot be claimed."""
        return item.metadata.namespace in self._tenants

    def _change_job(self, type_: str, job: Job) -> None:
        (self.store.drop_job if type_ == "DELETED" else self.store.put_job)(job)

    def _change_pod(self, type_: str, pod: Pod) -> None:
        (self.store.drop_pod if type_ == "DELETED" else self.store.put_pod)(pod)

    def _changed(self, key: Key) -> None:
        record = self.store.get(key) or Record()
        self.ledger.book(self.tenant_of(key), key.name, booking_of(record.job, record.pods.values()))
        self._tally(key)

    def _tally(self, key: Key) -> None:
        tenant, before, view = self.tenant_of(key), self._tallies.pop(key, None), self.view(key)
        if before is not None:
            self.states[tenant, before.state] -= 1
            self.active_ceiling[tenant] -= before.ceiling
        if view is not None:
            ceiling = Decimal(view.cost.ceiling) if view.cost and not view.state.over else Decimal()
            self._tallies[key] = _Tally(view.state, ceiling)
            self.states[tenant, view.state] += 1
            self.active_ceiling[tenant] += ceiling


def amounts_by_resource(amounts: Amounts) -> dict[str, float]:
    """Amounts in the units of the metrics: GPUs, CPUs, bytes, jobs."""
    return {"gpu": amounts.gpu, "cpu": amounts.cpu / 1000, "memory": amounts.memory, "jobs": amounts.jobs}
