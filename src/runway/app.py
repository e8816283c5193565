"""Put the parts together: the only place that knows all of them."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI

from runway import __version__
from runway.admission.concurrency import RequestLimits
from runway.api import events, jobs, logs, platform, problems, usage
from runway.api.app_state import AppState
from runway.api.contract.document import describe
from runway.api.drain import draining
from runway.api.middleware import RequestContext
from runway.api.security_headers import SecurityHeaders
from runway.api.streaming import close_streams_on_shutdown
from runway.console import routes as console
from runway.controllers.job_recorder import JobRecorder
from runway.controllers.leadership import Leadership
from runway.controllers.sync import Observer, amounts_by_resource
from runway.errors import ConfigurationError
from runway.file_descriptors import raise_limit
from runway.http_server.bounds import Bounds
from runway.jobs.usage import Usage
from runway.jobs.view import JobState
from runway.kube.client import KubeClient
from runway.kube.kubeconfig import Access, load_access
from runway.kube.leader_election import LeaderElector, LeaseLock
from runway.kube.transport import AiohttpTransport, Transport
from runway.policy import Policy, load_policy
from runway.prometheus import Prometheus
from runway.services.job_usage import query_usage
from runway.services.submit import Submitter
from runway.settings import Settings, load_settings
from runway.state.job_store import JobKey
from runway.telemetry.logging import configure
from runway.telemetry.metrics import Metrics, Sample


def create() -> FastAPI:
    """The app as the environment describes it. A faulty setting, policy or kubeconfig ends the process by a message."""
    try:
        settings = load_settings()
        raise_limit(settings, Bounds().max_sockets)
        policy = load_policy(settings.policy)
        access = load_access(settings.kubeconfig)
    except ConfigurationError as error:
        sys.exit(f"runway: cannot start\n{error}")
    configure(settings.log_level)
    app = create_app(settings, policy, access)
    # The modules stay for good: no full collection need look at them again, which takes 60 ms each time. A list of many
    # jobs makes many objects that stay too, so young ones are looked at more seldom (docs/performance.md).
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
    """The app on this transport, or on a connection of its own. Without either it only describes its API.

    `clock` returns monotonic seconds, for whatever waits: the Lease, the watches, the records, the limits.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connection = AiohttpTransport(cluster, settings.max_in_flight) if isinstance(cluster, Access) else None
        kubernetes = KubeClient(
            connection or cluster,  # type: ignore[arg-type]  # It is served on one of them.
            settings.kubernetes_seconds,
            lambda *call: metrics.kubernetes_requests.labels(*call).inc(),
        )
        observer = Observer(kubernetes, policy, metrics, resync_seconds=settings.resync_seconds, clock=clock)
        identity = settings.instance or f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        election = LeaderElector(
            kubernetes, LeaseLock(settings.lease_namespace, "runway-writer", identity), clock=clock
        )
        writer = Leadership(election, observer, settings.kubernetes_seconds)
        prometheus = Prometheus(str(settings.prometheus_url)) if settings.prometheus_url else None
        keeper = JobRecorder(kubernetes, observer, writer, metrics, usage=_usage(observer, prometheus), clock=clock)
        submitter = Submitter(policy, kubernetes, observer, writer, metrics)
        limits = RequestLimits(policy, settings.max_streams, settings.max_in_flight, clock=lambda: int(clock() * 1e9))
        metrics.register_collector(lambda: _samples(policy, observer, writer, keeper, limits))
        use = AppState(settings, policy, kubernetes, observer, writer, submitter, limits, metrics, prometheus, now=_now)
        app.state.services = use
        # The Lease first: lists that are asked for after it is ours need not be repeated before the first write.
        await election.try_acquire_or_renew()
        tasks = [asyncio.create_task(run()) for run in (election.run, observer.run, writer.run, keeper.run)]
        try:
            with close_streams_on_shutdown(use.closing), draining(use.draining, settings.drain_seconds):
                yield
        finally:
            await submitter.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await election.release()
            if prometheus is not None:
                await prometheus.close()
            if connection is not None:
                await connection.close()

    app = FastAPI(
        title="Runway",
        summary="The safe front door to one shared Kubernetes cluster",
        version=__version__,
        lifespan=lifespan,
        # The console renders `/docs`; the pages of FastAPI load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A redirect would send a caller, and its tenant header, to wherever the Host header points.
        redirect_slashes=False,
        # Runway's metrics and log are its own. Left on, FastAPI looks for providers of others at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # The routes as they are: `include_router` would make each anew for this app, models of its answers and all.
    for router in (jobs.router, logs.router, events.router, usage.router, platform.router):
        app.router.routes.extend(router.routes)
    problems.install_error_handlers(app)
    describe(app)
    console.install(app)
    app.add_middleware(RequestContext, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    return app


def _now() -> datetime:
    return datetime.now(UTC)


def _usage(observer: Observer, prometheus: Prometheus | None) -> Callable[[JobKey], Awaitable[Usage]] | None:
    """What tells the usage that is kept with a job's record; None where no source of it is set."""
    return None if prometheus is None else lambda key: query_usage(observer, prometheus, key, now=_now)


def _samples(
    policy: Policy, observer: Observer, writer: Leadership, keeper: JobRecorder, limits: RequestLimits
) -> Iterator[Sample]:
    """The metrics that are read from state: O(tenants)."""
    now = _now()
    for tenant, account in observer.ledger.accounts.items():
        for name, amounts in (
            ("runway_quota_limit", account.limit),
            ("runway_quota_used", account.used),
            ("runway_quota_reserved", account.reserved),
            ("runway_quota_terminating", account.terminating),
        ):
            for resource, value in amounts_by_resource(amounts).items():
                yield Sample(name, (tenant, resource), value)
        yield Sample("runway_active_cost_ceiling_usd", (tenant,), float(observer.tallies.active_ceiling[tenant]))
        since = observer.tallies.longest_pending(tenant)
        waited = (now - since).total_seconds() if since else 0.0
        yield Sample("runway_oldest_pending_seconds", (tenant,), max(0.0, waited))
        yield Sample("runway_tenant_info", (tenant, policy.tenants[tenant].namespace), 1.0)
        for state in JobState:
            yield Sample("runway_jobs", (tenant, state), observer.tallies.states[tenant, state])
    for kind, watch in (observer.watches | observer.surroundings.watches).items():
        yield Sample("runway_watch_age_seconds", (kind,), observer.age(watch))
    for kind in observer.undecodable.kinds:
        yield Sample("runway_undecodable_objects", (kind,), observer.undecodable.count(kind))
    yield Sample("runway_record_lag_seconds", (), keeper.lag)
    yield Sample("runway_open_streams", (), float(limits.streams.total()))
    yield Sample("runway_tasks", (), float(len(asyncio.all_tasks())))
    yield Sample("runway_synced", (), float(observer.synced))
    yield Sample("runway_is_writer", (), float(writer.is_leader))
    yield Sample("runway_submissions_stopped", (), float(writer.stop_reason is not None))
