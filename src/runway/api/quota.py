"""`/v1/quota`: the quota limits and usage of tenants."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from runway.api import dependencies as deps
from runway.api.models import AmountsView, BudgetView, HolderView, QuotaView, TenantQuotaView
from runway.api.problems import operation_id, responses
from runway.quantity import format_bytes, format_cpu, format_usd
from runway.state.job_store import JobKey

router = APIRouter(tags=["platform"], generate_unique_id_function=operation_id)


@router.get(
    "/v1/quota",
    response_model=QuotaView,
    openapi_extra=deps.SCOPED,
    summary="Read quotas",
    response_description="The limits, the usage and the jobs that use the quota",
    dependencies=deps.CHECKED_PARAMETERS,
    responses=responses(*deps.READ_ERRORS),
)
async def read_quota(request: Request, scope: deps.ReadScope) -> Response:
    """Read the quota limit and usage of each tenant, and the jobs that use it. `X-Tenant-ID` selects one tenant."""
    use = deps.app_state(request)
    use.cluster.require_synced()
    tenants = list(use.policy.tenants) if scope is None else [scope]
    return deps.json_response(QuotaView([_tenant_quota(use, tenant) for tenant in tenants]))


def _tenant_quota(use: deps.AppState, tenant: str) -> TenantQuotaView:
    account, namespace = use.cluster.ledger.accounts[tenant], use.policy.tenants[tenant].namespace
    return TenantQuotaView(
        tenant=tenant,
        namespace=namespace,
        limit=_amounts_view(account.limit_to_json()),
        used=_amounts_view(account.used.to_json()),
        reserved=_amounts_view(account.reserved.to_json()),
        held_by_terminating=_amounts_view(account.terminating.to_json()),
        budget=msgspec.convert(account.budget_to_json(use.now()), BudgetView | None),
        jobs=[
            HolderView(
                job_id,
                use.cluster.stats.state(JobKey(namespace, job_id)),
                usage.amounts.gpu,
                format_cpu(usage.amounts.cpu),
                format_bytes(usage.amounts.memory),
                usage.terminating.jobs > 0,
                format_bytes(usage.amounts.disk),
                dict(usage.amounts.gpu_types),
                format_usd(usage.amounts.usd_per_hour),
                orphaned=bool(use.cluster.orphaned_pods(JobKey(namespace, job_id))),
                name=use.cluster.name_of(JobKey(namespace, job_id)),
            )
            for job_id, usage in account.users()
        ],
    )


def _amounts_view(amounts: dict[str, object]) -> AmountsView:
    return msgspec.convert(amounts, AmountsView)
