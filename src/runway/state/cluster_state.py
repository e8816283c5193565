"""The cluster as Kubernetes reported it: the read model of the whole process.

`ClusterSync`, `DiagnosticsSync` and the responses to Runway's own writes feed it; everything else only reads it.
Monotonic times are in seconds.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from runway.admission.quota import Ledger, finished_at, observed_usage
from runway.errors import NotReady
from runway.fair_share import FairBudget
from runway.jobs.annotations import LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY, cost_of, pool_of, spec_of, usd
from runway.jobs.gpu_idle import IdleGpus
from runway.jobs.models import ConditionView, JobState, JobView
from runway.jobs.record import Record, charge_of, record_of
from runway.jobs.snapshot import FreeCapacity, JobSnapshot, PoolSize
from runway.jobs.view import conditions_of, job_view, pending_since, state_of
from runway.kube.client import EVENTS, JOBS, NODES, PODS
from runway.kube.objects import Event, Job, Node, Pod
from runway.policy import Policy, StartTimeouts
from runway.state.job_store import JobEntry, JobKey, JobStore, job_key_of
from runway.state.node_capacity import NodeCache
from runway.state.subscriptions import Subscriptions
from runway.state.warning_events import WarningEventCache
from runway.telemetry import Metrics
from runway.text import one_line

log = structlog.get_logger()

NODES_NAMESPACE: Final = ""
MAX_UNDECODABLE: Final = 1000
"""Undecodable objects of a kind that are remembered. Beyond it the oldest of the largest namespace are dropped."""


@dataclass(slots=True)
class WatchStatus:
    """The health of one watch, and the undecodable objects of its kind."""

    kind: str
    namespaces: Collection[str]
    """The namespaces whose undecodable objects count. Anyone may create objects in the others."""
    last_event_at: float
    synced: bool = False
    listed_at: float = float("-inf")
    """When the newest applied list was requested."""
    version: int = 0
    """The resource version up to which the watch has reported every change."""
    continuous_since: float = float("-inf")
    """When the current watch began, after its list: every later change was reported. Earlier ones may be unknown."""
    disconnect_reason: str | None = None
    """None while connected."""
    disconnected_at: float | None = None
    undecodable: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Fields by namespace and name."""
    _bound: FairBudget[tuple[str, str]] = field(default_factory=lambda: FairBudget(MAX_UNDECODABLE))

    def mark_disconnected(self, reason: str, now: float) -> None:
        """Record that the connection is lost: the newest reason, and the time of the first."""
        self.disconnect_reason = reason
        if self.disconnected_at is None:
            self.disconnected_at = now

    def mark_connected(self) -> None:
        self.disconnect_reason = self.disconnected_at = None

    def replace_undecodable(self, items: Iterable[Job | Pod | Event | Node]) -> None:
        before, self.undecodable, self._bound = self.undecodable, {}, FairBudget(MAX_UNDECODABLE)
        for item in items:
            if item.metadata.unreadable:
                self._add_undecodable(item, before)

    def update_undecodable(self, item: Job | Pod | Event | Node, *, deleted: bool) -> None:
        """Add or remove the object of an event. O(1)."""
        if item.metadata.unreadable and not deleted:
            self._add_undecodable(item, self.undecodable)
        elif self.undecodable:
            self.undecodable.pop((item.metadata.namespace, item.metadata.name), None)
            self._bound.discard(item.metadata.namespace, (item.metadata.namespace, item.metadata.name))

    def _add_undecodable(self, item: Job | Pod | Event | Node, before: dict[tuple[str, str], tuple[str, ...]]) -> None:
        namespace, name, fields = item.metadata.namespace, item.metadata.name, item.metadata.unreadable
        if namespace not in self.namespaces:
            return
        if before.get((namespace, name)) != fields:
            log.warning("object not readable", kind=self.kind, namespace=namespace, name=one_line(name), fields=fields)
        self.undecodable[namespace, name] = fields
        self._bound.put(namespace, (namespace, name))
        for _, excess in self._bound.excess():
            del self.undecodable[excess]


class JobStat(msgspec.Struct, frozen=True, gc=False):
    """The contribution of one job."""

    state: JobState
    failed_at: datetime | None = None
    pending_since: datetime | None = None
    waits_for: str | None = None
    """The condition of a pending job, or `NO_CONDITION`."""
    pool: str | None = None
    """The pool of a job with a pod on a node."""
    hourly: Decimal = Decimal()
    """The hourly price of that job in USD."""


_FINISHED: Final = {state: JobStat(state) for state in JobState}
"""What most finished jobs contribute, shared among them."""
NO_CONDITION: Final = "none"
"""The label of a pending job without a condition: its image is pulled, or its container is created."""


def job_stat(
    job: Job, pods: list[Pod], deleted_pods: frozenset[str], conditions: Callable[[JobState, int], list[ConditionView]]
) -> JobStat:
    """Compute the contribution of a job. `conditions` returns those of the job in a state, with a number of retries."""
    spec, cost = spec_of(job), cost_of(job)
    retries = spec.retries if spec else 0
    state = state_of(job, pods, deleted_pods, retries)
    if state.is_finished:
        condition = job.condition("Failed") if state is JobState.FAILED else None
        return JobStat(state, failed_at=condition.last_transition_time) if condition else _FINISHED[state]
    is_bound = any(pod.spec.node_name and not pod.is_terminal and pod.metadata.name not in deleted_pods for pod in pods)
    stat = JobStat(
        state,
        pool=pool_of(spec, cost) if is_bound else None,
        hourly=(usd(cost.hourly) if cost and is_bound else None) or Decimal(),
    )
    if state is not JobState.PENDING:
        return stat
    # The last condition is the most specific one: the autoscaler's follows the scheduler's.
    found = conditions(state, retries)
    waits_for = found[-1].code if found else NO_CONDITION
    return replace(stat, pending_since=pending_since(job, pods), waits_for=waits_for)


class JobStats:
    """Sums over the jobs of each tenant, so that a scrape does not read every job."""

    def __init__(self, tenants: Iterable[str]) -> None:
        tenants = tuple(tenants)
        self.states: Counter[tuple[str, JobState]] = Counter()
        """The number of jobs by tenant and state."""
        self.waiting: Counter[tuple[str, str]] = Counter()
        """The number of pending jobs by tenant and condition."""
        self.charged: dict[str, Decimal] = {}
        """The hourly price of the jobs with a pod on a node, by pool, in USD."""
        self.on_nodes: set[JobKey] = set()
        """The jobs with a pod on a node."""
        self.orphaned_pods: Counter[str] = Counter()
        """The number of orphaned pods by tenant."""
        self._orphans: dict[JobKey, int] = {}
        self._stats: dict[JobKey, JobStat] = {}
        self._pending: dict[str, list[tuple[datetime, JobKey]]] = {tenant: [] for tenant in tenants}
        """The pending jobs of each tenant, longest first."""
        self._failed: dict[str, list[tuple[datetime, JobKey]]] = {tenant: [] for tenant in tenants}
        """The failed jobs of each tenant, in the order of their ends."""

    def put(self, tenant: str, key: JobKey, stat: JobStat | None) -> None:
        """Replace the contribution of a job; None removes it."""
        before, pending, failed = self._stats.get(key), self._pending[tenant], self._failed[tenant]
        if before is not None:
            self.states[tenant, before.state] -= 1
            self._count(tenant, before, -1)
            self.on_nodes.discard(key)
            if before.pending_since is not None:
                del pending[bisect_left(pending, (before.pending_since, key))]
            if before.failed_at is not None:
                del failed[bisect_left(failed, (before.failed_at, key))]
        if stat is None:
            self._stats.pop(key, None)
        else:
            # Without a removal before, the dictionary keeps its own key: an equal one would take memory.
            self._stats[key] = stat
            self.states[tenant, stat.state] += 1
            self._count(tenant, stat, 1)
            if stat.pool is not None:
                self.on_nodes.add(key)
            if stat.pending_since is not None:
                insort(pending, (stat.pending_since, key))
            if stat.failed_at is not None:
                insort(failed, (stat.failed_at, key))

    def put_orphans(self, tenant: str, key: JobKey, number: int) -> None:
        """Replace the number of orphaned pods under a name."""
        self.orphaned_pods[tenant] += number - self._orphans.pop(key, 0)
        if number:
            self._orphans[key] = number

    def _count(self, tenant: str, stat: JobStat, sign: int) -> None:
        if stat.waits_for is not None:
            self.waiting[tenant, stat.waits_for] += sign
        if stat.pool is not None:
            self.charged[stat.pool] = self.charged.get(stat.pool, Decimal()) + sign * stat.hourly

    def state(self, key: JobKey) -> JobState | None:
        """Return the state of a job; None without a Job of this name that Runway created."""
        stat = self._stats.get(key)
        return None if stat is None else stat.state

    def longest_pending(self, tenant: str) -> datetime | None:
        """Return the start of the longest current wait of a tenant's jobs; None without a pending job."""
        pending = self._pending[tenant]
        return pending[0][0] if pending else None

    def failed_since(self, tenant: str, moment: datetime) -> list[tuple[datetime, JobKey]]:
        """Return the jobs of a tenant that failed since then, with the times, oldest first."""
        failed = self._failed[tenant]
        return failed[bisect_left(failed, moment, key=itemgetter(0)) :]


class ClusterState:
    def __init__(
        self,
        policy: Policy,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.tenants = {tenant.namespace: name for name, tenant in policy.tenants.items()}
        """The tenants by namespace. A label can be copied; only the namespace proves the tenant."""
        self.log_template = policy.logs.url_template if policy.logs else None
        limits = policy.limits.start_timeout_seconds
        self._start_timeouts = None if limits == StartTimeouts() else limits
        """The template of links to stored logs; None without one."""
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self.store = JobStore(now=now)
        self._pools = policy.pools
        budgets = {name: tenant.budget for name, tenant in policy.tenants.items() if tenant.budget is not None}
        self.ledger = Ledger({name: tenant.quota for name, tenant in policy.tenants.items()}, budgets)
        self.stats = JobStats(policy.tenants)
        self.warnings = WarningEventCache(self.tenants)
        self.nodes = NodeCache(policy.pools)
        self.subscriptions = Subscriptions()
        self.pod_observers: list[Callable[[JobKey, Pod], None]] = []
        """Called with each pod that the watch reports, in order, even if a list has shown a newer version before."""
        self._shared_view: tuple[JobKey, JobView | None] | None = None
        self._idle_gpus: dict[JobKey, IdleGpus] = {}
        namespaces = frozenset({NODES_NAMESPACE, *self.tenants})
        self.watches = {kind.name: WatchStatus(kind.name, namespaces, clock()) for kind in (JOBS, PODS)}
        self.diagnostic_watches = {kind.name: WatchStatus(kind.name, namespaces, clock()) for kind in (EVENTS, NODES)}
        """No quota, state or readiness depends on these."""
        self.pod_list_needed = asyncio.Event()
        """Set while an unfinished Job was deleted, of which a pod may be unknown."""
        self.unsupported: str | None = None
        """Why Runway leaves this cluster alone: its API server is too old. None otherwise."""
        self.failure: str | None = None
        """The defect that ended the start or the sync loop; None without one."""

    def apply_job(self, job: Job) -> None:
        """Apply the Job of a response to one of Runway's own calls."""
        self.refresh(self.store.upsert_job(job))

    def apply_pod_event(self, pod: Pod) -> None:
        """Apply a pod that the watch reports, and show this version to the observers.

        Its job counts as changed even if a list has shown the pod before: changes of its node were not notified then.
        """
        key = job_key_of(pod)
        self.store.upsert_pod(pod)
        for observe in self.pod_observers:
            observe(key, pod)
        self.refresh([key])

    def refresh(self, changed: Iterable[JobKey]) -> None:
        """Update usage, then statistics, then subscribers of the jobs that the store changed."""
        self._shared_view = None
        for key in dict.fromkeys([*changed, *self.store.drop_excess_specs()]):
            self._update_usage(key, self.store.get(key) or JobEntry())
            self._update_stats(key)
            self.subscriptions.notify(key)

    def notify(self, changed: Iterable[JobKey]) -> None:
        """Update statistics, then subscribers of the jobs whose events or nodes changed."""
        self._shared_view = None
        for key in changed:
            if self.stats.state(key) is JobState.PENDING:
                self._update_stats(key)
            self.subscriptions.notify(key)

    def _update_stats(self, key: JobKey) -> None:
        def conditions(state: JobState, retries: int) -> list[ConditionView]:
            snapshot = self.snapshot(key)
            return [] if snapshot is None else conditions_of(snapshot, state, retries)

        job = self.job(key)
        stat = job_stat(job, self.attempts(key), self.deleted_pods(key), conditions) if job else None
        self.stats.put(self.tenant_of(key), key, stat)
        self.stats.put_orphans(self.tenant_of(key), key, len(self.orphaned_pods(key)))

    def _update_usage(self, key: JobKey, entry: JobEntry) -> None:
        tenant = self.tenant_of(key)
        before = self.ledger.observed(tenant, key.name)
        usage = observed_usage(entry.job, entry.pods.values(), entry.deleted_jobs.values(), self._pools)
        has_budget = self.ledger.accounts[tenant].budget is not None
        charge = charge_of(entry.job) if has_budget and entry.job is not None else None
        self.ledger.set_observed(tenant, key.name, usage, charge)
        if before.jobs and not self.ledger.observed(tenant, key.name).jobs:
            self._observe_release(key)
        if entry.deleted_jobs:
            self.pod_list_needed.set()

    def _observe_release(self, key: JobKey) -> None:
        """Observe how long the quota release took, except in the first lists: those jobs may have ended long ago."""
        job = self.job(key)
        if not self.synced or job is None or (ended := finished_at(job, self.attempts(key))) is None:
            return
        # Clocks differ, so the end can lie slightly ahead of this process's clock.
        self._metrics.quota_release_seconds.observe(max(0.0, (self._now() - ended).total_seconds()))

    @property
    def all_watches(self) -> dict[str, WatchStatus]:
        return self.watches | self.diagnostic_watches

    @property
    def synced(self) -> bool:
        """Whether Jobs and pods were listed, so that usage is known."""
        return all(watch.synced for watch in self.watches.values())

    def require_synced(self) -> None:
        """Raise NotReady before the first lists are applied, and after the sync loop failed."""
        if self.failure:
            raise NotReady(self.failure, retry_after=30)
        if self.unsupported:
            raise NotReady(self.unsupported, retry_after=60)
        if not self.synced:
            raise NotReady("the jobs in the cluster are still being listed")

    def age(self, watch: WatchStatus) -> float:
        """Return seconds since the last event of a watch."""
        return max(0.0, self._clock() - watch.last_event_at)

    def tenant_of(self, key: JobKey) -> str:
        return self.tenants[key.namespace]

    def job(self, key: JobKey) -> Job | None:
        """Return the Job of this name if Runway created it. Other Jobs count for quota only."""
        entry = self.store.get(key)
        job = entry.job if entry else None
        return job if job and job.metadata.labels.get(LABEL_MANAGED_BY) == MANAGED_BY else None

    def name_of(self, key: JobKey) -> str | None:
        """Return the name that the caller gave a job, if any."""
        job = self.job(key)
        return None if job is None else job.metadata.labels.get(LABEL_NAME)

    def attempts(self, key: JobKey) -> list[Pod]:
        """Return the pods of the Job of this name, deleted ones included, oldest first."""
        entry = self.store.get(key)
        if entry is None or entry.job is None:
            return []
        return [pod for pod in entry.all_pods() if pod.controller_uid == entry.job.metadata.uid]

    def deleted_pods(self, key: JobKey) -> frozenset[str]:
        """Return the names of the job's pods that Kubernetes deleted."""
        entry = self.store.get(key)
        return frozenset(entry.deleted_pods) if entry else frozenset()

    def orphaned_pods(self, key: JobKey) -> list[Pod]:
        """Return the pods under this name whose Job was deleted without them (`--cascade=orphan`): they run on."""
        entry = self.store.get(key)
        if entry is None:
            return []
        uids = (None, entry.job.metadata.uid if entry.job else None)
        live = (pod for pod in entry.pods.values() if not pod.is_terminal and not pod.terminating)
        return [pod for pod in live if pod.controller_uid not in uids]

    def snapshot(self, key: JobKey) -> JobSnapshot | None:
        """Return the Job with its pods, events and nodes; None without a Job of this name that Runway created."""
        job = self.job(key)
        if job is None:
            return None
        pods = tuple(self.attempts(key))
        events, nodes = self.warnings.for_job(job, pods), self.nodes.of(pods)
        free, size = self._free_capacity(job, pods)
        idle = self._idle_gpus.get(key)
        seen = entry.deletions_seen if (entry := self.store.get(key)) else {}
        return JobSnapshot(
            self.tenant_of(key), job, pods, self.deleted_pods(key), events, nodes, free, size, idle, seen
        )

    @property
    def idle_gpus(self) -> Mapping[JobKey, IdleGpus]:
        """The jobs with idle GPUs, as last measured."""
        return self._idle_gpus

    def set_idle_gpus(self, idle: Mapping[JobKey, IdleGpus]) -> None:
        """Replace the measured jobs with idle GPUs."""
        before, self._idle_gpus = self._idle_gpus, dict(idle)
        self.notify(key for key in before.keys() | idle.keys() if before.get(key) != idle.get(key))

    def _free_capacity(self, job: Job, pods: tuple[Pod, ...]) -> tuple[FreeCapacity | None, PoolSize | None]:
        """Return the free capacity for the last pod, deleted or not, and its pool, unless it is bound to a node."""
        last = pods[-1] if pods else None
        if last is None or last.spec.node_name or last.is_terminal:
            return None, None
        pool = pool_of(spec_of(job), cost_of(job))
        return self.nodes.free_capacity_for(last), None if pool is None else self.nodes.pool_size(pool)

    def view(self, key: JobKey) -> JobView | None:
        """Return the view of a job; None without a Job of this name that Runway created."""
        snapshot = self.snapshot(key)
        return None if snapshot is None else job_view(snapshot, self.log_template, self._start_timeouts)

    def shared_view(self, key: JobKey) -> JobView | None:
        """Return the view of a job since the last change of any job: the subscribers of one job read it in a row."""
        if self._shared_view is None or self._shared_view[0] != key:
            self._shared_view = key, self.view(key)
        return self._shared_view[1]

    def record(self, key: JobKey) -> Record | None:
        job = self.job(key)
        return record_of(job) if job else None

    def has_final_record(self, key: JobKey) -> bool:
        record = self.record(key)
        return record is not None and record.state is not None

    def created_since(self, namespace: str, moment: datetime) -> list[datetime]:
        """Return the creation times of a namespace's jobs since `moment`, oldest first."""
        found = []
        for created, key in self.store.newest_first(namespace=namespace):
            if created < moment:
                break
            if self.job(key) is not None:
                found.append(created)
        return found[::-1]
