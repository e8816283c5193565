"""`/v1/quota`, `/v1/policy`, health and metrics: what is not about one job."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runway.admission.quota import Amounts, TenantQuota
from runway.api.app_state import AppState, app_state
from runway.api.models import AmountsView, HealthView, HolderView, PolicyView, QuotaView, ReadyView, TenantQuotaView
from runway.api.problems import operation_id, responses
from runway.api.query import only_known_parameters
from runway.api.tenancy import ReadScope
from runway.errors import (
    ClusterError,
    InvalidParameter,
    KubernetesUnavailable,
    NotReady,
    RateLimited,
    TenantRequired,
    TooBusy,
    UnknownTenant,
)
from runway.jobs.cost import estimate_cost
from runway.jobs.spec import Resources
from runway.policy import Policy, Pool
from runway.quantity import format_bytes, format_cpu
from runway.state.job_store import JobKey

router = APIRouter(tags=["platform"], generate_unique_id_function=operation_id)

_encoder = msgspec.json.Encoder()

FRESH_SECONDS: Final = 3.0
"""A watch that was heard from this lately shows that Kubernetes is in contact."""
MAX_UNDECODABLE_NAMED: Final = 20
"""Undecodable objects that `/readyz` names; `runway_undecodable_objects` counts all."""
PING_SECONDS: Final = 0.8
"""Less than the second that a kubelet waits for a probe."""


@router.get(
    "/v1/quota",
    response_model=QuotaView,
    summary="Read quotas",
    response_description="What is held, and by which jobs",
    dependencies=[Depends(only_known_parameters)],
    responses=responses(TenantRequired, UnknownTenant, InvalidParameter, RateLimited, NotReady),
)
async def read_quota(request: Request, scope: ReadScope) -> Response:
    """What each tenant may hold and holds, and which jobs hold it. `X-Tenant-ID`, where sent, picks one tenant."""
    use = app_state(request)
    use.observer.require_synced()
    tenants = list(use.policy.tenants) if scope is None else [scope]
    return _json(QuotaView([_tenant_quota(use, tenant) for tenant in tenants]))


@router.get(
    "/v1/policy",
    response_model=PolicyView,
    summary="Read the policy",
    response_description="The policy in force",
    dependencies=[Depends(only_known_parameters)],
    responses=responses(InvalidParameter),
)
async def read_policy(request: Request) -> Response:
    """The bounds, allowed images, pools, prices and tenants in force: what a specification is held against."""
    return _json(policy_json(app_state(request).policy))


@router.get(
    "/healthz",
    response_model=HealthView,
    summary="Is it alive?",
    response_description="Alive",
    responses=responses(NotReady),
)
async def healthz(request: Request) -> Response:
    """200 unless the observe loop has failed for good, which only a restart mends."""
    broken = app_state(request).observer.broken
    if broken:
        raise NotReady(broken)
    return _json({"status": "alive"})


@router.get(
    "/readyz",
    response_model=ReadyView,
    summary="Is it ready?",
    response_description="Ready, as the writer or as a reader",
    responses=responses(NotReady, KubernetesUnavailable),
)
async def readyz(request: Request) -> Response:
    """200 once everything was listed, while Kubernetes is in contact: heard from just now, or it answers."""
    use = app_state(request)
    if use.draining.is_set():
        raise NotReady("this process has been told to end")
    observer = use.observer
    observer.require_synced()
    lost = [f"{kind}: {watch.disconnect_reason}" for kind, watch in observer.watches.items() if watch.disconnect_reason]
    if lost:
        raise KubernetesUnavailable("contact is lost: " + "; ".join(lost))
    if min(observer.age(watch) for watch in observer.watches.values()) > FRESH_SECONDS:
        try:
            await use.kubernetes.ping(PING_SECONDS)
        except (ClusterError, TooBusy) as error:
            raise KubernetesUnavailable(f"contact is lost: {error}") from error
    ages = {kind: round(observer.age(watch), 1) for kind, watch in observer.watches.items()}
    role = "writer" if use.writer.is_leader else "reader"
    reason = use.writer.stop_reason
    return _json(
        {
            "status": "ready",
            "role": role,
            "submissions": "open" if reason is None else "stopped",
            "stop_reason": reason,
            "watch_age_seconds": ages,
            "jobs": len(observer.store),
            "undecodable_objects": sum(map(observer.undecodable.count, observer.undecodable.kinds)),
            "undecodable": observer.undecodable.first(MAX_UNDECODABLE_NAMED),
        }
    )


@router.get(
    "/metrics",
    response_class=Response,
    summary="Read the metrics",
    responses={200: {"description": "All metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """In the text format of Prometheus."""
    return Response(generate_latest(app_state(request).metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def policy_json(policy: Policy) -> dict[str, Any]:
    """The policy as callers need it: bounds in quantities, and what each pool's parts cost an hour."""
    limits = policy.limits
    return {
        "limits": {
            "cpu": {"min": format_cpu(limits.cpu.min), "max": format_cpu(limits.cpu.max)},
            "memory": {"min": format_bytes(limits.memory.min), "max": format_bytes(limits.memory.max)},
            "gpu": limits.gpu.model_dump(),
            "timeout_seconds": limits.timeout_seconds.model_dump(),
            "grace_period_seconds": limits.grace_period_seconds.model_dump(),
            "retries": limits.retries.model_dump(),
            "ephemeral_storage": {"per_job": format_bytes(limits.ephemeral_storage.per_job)},
            "retention_seconds": limits.retention_seconds,
        },
        "images": {"allow": list(policy.images.allow)},
        "pools": {name: _pool_json(name, pool) for name, pool in policy.pools.items()},
        "tenants": {
            name: {"namespace": tenant.namespace, "quota": _quota_json(tenant.quota), "rate": tenant.rate.model_dump()}
            for name, tenant in policy.tenants.items()
        },
    }


def _pool_json(name: str, pool: Pool) -> dict[str, Any]:
    parts = {"cpu": Resources(1000, 0), "memory_gib": Resources(0, 1024**3), "gpu": Resources(0, 0, 1)}
    if not pool.gpu:
        del parts["gpu"]
    return {
        "instance_type": pool.instance_type,
        "gpu_type": pool.gpu_type,
        "node": {"cpu": format_cpu(pool.cpu), "memory": format_bytes(pool.memory), "gpu": pool.gpu},
        "hourly_usd": f"{pool.hourly_usd:f}",
        "hourly_usd_per": {part: f"{estimate_cost(name, pool, one, 0).hourly:f}" for part, one in parts.items()},
    }


def _quota_json(quota: Any) -> dict[str, object]:
    return Amounts(quota.gpu, quota.cpu, quota.memory, quota.jobs).to_json()


def _tenant_quota(use: AppState, tenant: str) -> TenantQuotaView:
    account, namespace = use.observer.ledger.accounts[tenant], use.policy.tenants[tenant].namespace
    return TenantQuotaView(
        tenant=tenant,
        namespace=namespace,
        limit=amounts_view(account.limit),
        used=amounts_view(account.used),
        reserved=amounts_view(account.reserved),
        held_by_terminating=amounts_view(account.terminating),
        jobs=_holders(use, account, namespace),
    )


def _holders(use: AppState, account: TenantQuota, namespace: str) -> list[HolderView]:
    holders = []
    for job_id, booking in account.bookings.items():
        held = booking.amounts
        holders.append(
            HolderView(
                job_id,
                use.observer.tallies.state(JobKey(namespace, job_id)),
                held.gpu,
                format_cpu(held.cpu),
                format_bytes(held.memory),
                booking.terminating.jobs > 0,
            )
        )
    return holders


def amounts_view(amounts: Amounts) -> AmountsView:
    """Amounts as callers read them."""
    return AmountsView(amounts.gpu, format_cpu(amounts.cpu), format_bytes(amounts.memory), amounts.jobs)


def _json(document: Any) -> Response:
    return Response(_encoder.encode(document), media_type="application/json")
