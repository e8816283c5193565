"""`/v1/quota`: the quota limits and usage of tenants."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runway.api import dependencies as deps
from runway.api.models import AmountsView, HolderView, QuotaView, TenantQuotaView
from runway.api.problems import operation_id, responses
from runway.jobs.resources import ResourceVector
from runway.quantity import format_bytes, format_cpu
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
        limit=amounts_view(account.limit),
        used=amounts_view(account.used),
        reserved=amounts_view(account.reserved),
        held_by_terminating=amounts_view(account.terminating),
        jobs=[
            HolderView(
                job_id,
                use.cluster.stats.state(JobKey(namespace, job_id)),
                usage.amounts.gpu,
                format_cpu(usage.amounts.cpu),
                format_bytes(usage.amounts.memory),
                usage.terminating.jobs > 0,
            )
            for job_id, usage in account.observed.items()
        ],
    )


def amounts_view(amounts: ResourceVector) -> AmountsView:
    """Show amounts in Kubernetes quantities."""
    return AmountsView(amounts.gpu, format_cpu(amounts.cpu), format_bytes(amounts.memory), amounts.jobs)
