"""Composition root: build the parts, start the controllers, mount the routers."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import structlog
from fastapi import FastAPI

from runway import __version__
from runway.admission.quota import BUDGET, ROWS, TenantQuota
from runway.admission.rate_limit import RequestLimits
from runway.api import health, jobs, policy, problems, quota, streaming
from runway.api.dependencies import AppState
from runway.api.middleware import RequestContext
from runway.api.openapi import DESCRIPTION, TAGS, DocumentedApp
from runway.backoff import Timing
from runway.console import routes as console
from runway.controllers.idle_gpus import IdleGpuController
from runway.controllers.job_ender import JobEnder
from runway.controllers.job_recorder import JobRecorder
from runway.controllers.leadership import LEASE_NAME, Leadership
from runway.controllers.start_deadlines import StartDeadlines
from runway.controllers.supervision import keep_running
from runway.controllers.supported_version import wait_for_supported_version
from runway.controllers.sync import ClusterSync, DiagnosticsSync
from runway.errors import ConfigurationError, PolicyError
from runway.http_server.bounds import Bounds, raise_limit
from runway.jobs.annotations import METADATA
from runway.jobs.diagnosis.start_timeout import StartLimit
from runway.jobs.models import JobState
from runway.kube.client import KubeClient
from runway.kube.kubeconfig import Access, load_access
from runway.kube.leader_election import LeaderElector, LeaseLock
from runway.kube.transport import AiohttpTransport, Transport
from runway.policy import Policy, StartTimeouts, load_policy, policy_hash
from runway.prometheus import Prometheus
from runway.quantity import MICRO
from runway.services.job_usage import query_usage
from runway.services.submit import Submitter
from runway.settings import Settings, load_settings
from runway.state.capacity_samples import capacity_samples
from runway.state.cluster_state import ClusterState
from runway.telemetry import GaugeSample, Metrics, configure_logging

log = structlog.get_logger()

_ROUTERS = tuple(module.router for module in (jobs, streaming, quota, policy, health))


def create() -> FastAPI:
    """Create the app from the environment. An invalid setting, policy or kubeconfig ends the process with a message."""
    try:
        settings = load_settings()
        raise_limit(settings, Bounds().max_sockets)
        policy = load_policy(settings.policy)
        access = load_access(settings.kubeconfig)
    except PolicyError as error:
        sys.exit(f"runway: cannot start: invalid policy {settings.policy}\n{error}")
    except ConfigurationError as error:
        sys.exit(f"runway: cannot start\n{error}")
    configure_logging(settings.log_level)
    log.info("policy loaded", file=str(settings.policy), hash=policy_hash(policy), tenants=len(policy.tenants))
    app = create_app(settings, policy, access)
    # A full collection of the modules takes 60 ms, and a list of jobs creates many long-lived objects. So collections
    # skip the modules and are rarer (docs/performance.md).
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    return app


def create_app(
    settings: Settings,
    policy: Policy,
    cluster: Transport | Access | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Create the app on a transport, or on a new connection with this access. Without either it only has its OpenAPI.

    `clock` returns monotonic seconds.
    """
    metrics, timing = Metrics(), Timing(clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connection = AiohttpTransport(cluster, settings.max_in_flight, timing) if isinstance(cluster, Access) else None
        kubernetes = KubeClient(
            connection or cluster,  # type: ignore[arg-type]  # A served app has one of them.
            settings.kubernetes_seconds,
            lambda *call: metrics.kubernetes_requests.labels(*call).inc(),
            METADATA,
        )
        state = ClusterState(policy, metrics, clock=clock)
        sync = ClusterSync(kubernetes, state, metrics, timing, resync_seconds=settings.resync_seconds)
        diagnostics = DiagnosticsSync(kubernetes, state, metrics, timing)
        identity = settings.instance or f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        election = LeaderElector(kubernetes, LeaseLock(settings.lease_namespace, LEASE_NAME, identity), timing)
        leadership = Leadership(election, state, sync, settings.kubernetes_seconds, timing)
        prometheus = Prometheus(str(settings.prometheus_url)) if settings.prometheus_url else None
        usage = None if prometheus is None else partial(query_usage, state, prometheus, now=_now)
        recorder = JobRecorder(kubernetes, state, leadership, metrics, timing, usage)
        ender = JobEnder(kubernetes, state, leadership, metrics, policy, timing)
        starts = StartDeadlines(kubernetes, state, leadership, metrics, policy.limits.start_timeout_seconds, timing)
        submitter = Submitter(policy, kubernetes, state, sync, leadership, metrics)
        limits = RequestLimits(policy, settings.max_streams, settings.max_in_flight, clock=lambda: int(clock() * 1e9))
        metrics.register_collector(lambda: _samples(policy, state, leadership, recorder, starts, limits))
        use = app.state.services = AppState(
            settings,
            policy,
            policy_hash(policy),
            kubernetes,
            state,
            leadership,
            submitter,
            limits,
            metrics,
            prometheus,
            now=_now,
        )
        controllers = {
            "leader election": election.run,
            "leadership": leadership.run,
            "diagnostics": diagnostics.run,
            "recorder": recorder.run,
            "start deadlines": starts.run,
            "job ender": ender.run,
        }
        if policy.limits.idle_gpu is not None and prometheus is None:
            log.warning("idle GPUs are not measured: RUNWAY_PROMETHEUS_URL is not set")
        elif policy.limits.idle_gpu is not None and prometheus is not None:
            idle = IdleGpuController(state, prometheus.query, ender, policy.limits.idle_gpu, timing)
            controllers["idle GPUs"] = idle.run

        async def work() -> None:
            try:
                await wait_for_supported_version(kubernetes, state, timing)
                # The Lease first: lists requested after its acquisition need no repetition before the first write.
                await election.try_acquire_or_renew()
            except Exception as error:
                state.failure = f"the start failed: {error!r}"
                metrics.internal_errors.inc()
                log.critical("start failed", exc_info=True)
                return
            kept = (keep_running(name, run, metrics, timing) for name, run in controllers.items())
            await asyncio.gather(sync.run(), *kept, return_exceptions=True)

        working = asyncio.create_task(work())
        try:
            with streaming.close_streams_on_shutdown(use.closing):
                yield
        finally:
            await submitter.close()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await election.release()
            if prometheus is not None:
                await prometheus.close()
            if connection is not None:
                await connection.close()

    app = DocumentedApp(
        title="Runway",
        summary="The safe front door to one shared Kubernetes cluster",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        version=__version__,
        lifespan=lifespan,
        # The console renders `/docs`; FastAPI's own pages load scripts of another origin.
        docs_url=None,
        redoc_url=None,
        # A redirect would send the caller, with its tenant header, to the host of the Host header.
        redirect_slashes=False,
        # Runway has its own metrics and log. Otherwise FastAPI looks for other providers at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # `include_router` would create every route a second time, with the models of its responses.
    for router in _ROUTERS:
        app.router.routes.extend(router.routes)
    problems.install_error_handlers(app)
    console.install(app)
    app.add_middleware(RequestContext, metrics=metrics)
    return app


def _now() -> datetime:
    return datetime.now(UTC)


def _quota_samples(tenant: str, account: TenantQuota) -> Iterator[GaugeSample]:
    rows = dict.fromkeys((*ROWS, *account.limits))
    for row, limit in account.limits.items():
        yield GaugeSample("runway_quota_limit", (tenant, row.name), limit / row.per_unit)
    for name, amounts in (
        ("runway_quota_used", account.used),
        ("runway_quota_reserved", account.reserved),
        ("runway_quota_terminating", account.terminating),
    ):
        for row in rows:
            yield GaugeSample(name, (tenant, row.name), row.amount(amounts) / row.per_unit)
    if account.budget is not None:
        spent = account.budget.spent(_now())
        yield GaugeSample("runway_quota_limit", (tenant, BUDGET.name), account.budget.limit / MICRO)
        yield GaugeSample("runway_quota_used", (tenant, BUDGET.name), (spent + account.used.ceiling) / MICRO)
        yield GaugeSample("runway_quota_reserved", (tenant, BUDGET.name), account.reserved.ceiling / MICRO)
    yield GaugeSample("runway_active_cost_ceiling_usd", (tenant,), account.used.ceiling / MICRO)


def _samples(
    policy: Policy,
    cluster: ClusterState,
    leadership: Leadership,
    recorder: JobRecorder,
    starts: StartDeadlines,
    limits: RequestLimits,
) -> Iterator[GaugeSample]:
    """Yield the metrics that are read from state, in O(tenants)."""
    not_starting = starts.waiting()
    for tenant, account in cluster.ledger.accounts.items():
        yield from _quota_samples(tenant, account)
        since = cluster.stats.longest_pending(tenant)
        waited = (_now() - since).total_seconds() if since else 0.0
        yield GaugeSample("runway_oldest_pending_seconds", (tenant,), max(0.0, waited))
        yield GaugeSample("runway_tenant_info", (tenant, policy.tenants[tenant].namespace), 1.0)
        yield GaugeSample("runway_orphaned_pods", (tenant,), cluster.stats.orphaned_pods[tenant])
        for state in JobState:
            yield GaugeSample("runway_jobs", (tenant, state), cluster.stats.states[tenant, state])
        for limit in StartTimeouts.model_fields:
            yield GaugeSample("runway_jobs_not_starting", (tenant, limit), not_starting[tenant, StartLimit(limit)])
    yield from capacity_samples(policy, cluster)
    for kind, watch in cluster.all_watches.items():
        yield GaugeSample("runway_watch_age_seconds", (kind,), cluster.age(watch))
        yield GaugeSample("runway_undecodable_objects", (kind,), len(watch.undecodable))
    yield GaugeSample("runway_record_lag_seconds", (), recorder.lag)
    yield GaugeSample("runway_start_timeout_lag_seconds", (), starts.lag)
    yield GaugeSample("runway_open_streams", (), float(limits.streams.total()))
    yield GaugeSample("runway_tasks", (), float(len(asyncio.all_tasks())))
    yield GaugeSample("runway_synced", (), float(cluster.synced))
    yield GaugeSample("runway_is_writer", (), float(leadership.is_leader))
    yield GaugeSample("runway_submissions_stopped", (), float(leadership.stop_reason is not None))
