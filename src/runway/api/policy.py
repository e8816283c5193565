"""`/v1/policy`: the policy in force."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runway.api.dependencies import CHECKED_PARAMETERS, SCOPED, ClaimedTenant, app_state, json_response
from runway.api.models import FreeView, PolicyView
from runway.api.problems import operation_id, responses
from runway.errors import InvalidParameter, TenantRequired, UnknownTenant
from runway.jobs.cost import estimate_cost
from runway.jobs.snapshot import FreeCapacity
from runway.jobs.spec import Resources
from runway.policy import Policy, Pool
from runway.pool_capacity import capacities
from runway.quantity import format_bytes, format_cpu
from runway.services.free_capacity import free_capacity_of

router = APIRouter(tags=["platform"], generate_unique_id_function=operation_id)


@router.get(
    "/v1/policy",
    response_model=PolicyView,
    summary="Read the policy",
    response_description="The policy in force",
    dependencies=CHECKED_PARAMETERS,
    responses=responses(InvalidParameter, TenantRequired, UnknownTenant),
    openapi_extra=SCOPED,
)
async def read_policy(request: Request, tenant: ClaimedTenant) -> Response:
    """Read the bounds, allowed images, pools, prices and tenants that Runway validates specifications against.

    The volumes, Secrets and images of a tenant are sent only to that tenant. `free` of a pool is its free capacity now;
    it never rejects a job.
    """
    use = app_state(request)
    document = {"hash": use.policy_hash, **policy_view(use.policy, tenant)}
    for name, pool in use.policy.pools.items():
        document["pools"][name]["free"] = _free_view(free_capacity_of(use.cluster, pool))
    return json_response(document)


def policy_view(policy: Policy, scope: str | None) -> dict[str, Any]:
    """Return the policy with the prices of each pool's resources, as `api.models.PolicyView` describes it."""
    shown = {"namespace", "quota", "budget", "rate"}
    document = policy.model_dump(mode="json", include={"limits": True, "images": True, "tenants": {"__all__": shown}})
    for name, tenant in document["tenants"].items():
        tenant["own"] = _own_view(policy, name) if name == scope else None
    # The command line of version 0.7 requires it.
    document["limits"]["ephemeral_storage"] = {"per_job": format_bytes(policy.limits.disk.default)}
    return document | {
        "pools": {name: _pool_view(name, pool) for name, pool in policy.pools.items()},
        "capacity": [found.to_json() for found in capacities(policy)],
    }


def _own_view(policy: Policy, name: str) -> dict[str, Any]:
    tenant = policy.tenants[name]
    return {
        "volumes": {
            volume: {"path": each.path, "read_only": each.read_only} for volume, each in tenant.volumes.items()
        },
        "secrets": list(tenant.secrets),
        "images": {"allow": list(policy.images_of(name).allow)},
    }


def _free_view(free: FreeCapacity | None) -> FreeView | None:
    if free is None:
        return None
    return FreeView(free.nodes, format_cpu(free.cpu), format_bytes(free.memory), free.gpu, free.gpu_in_all)


def unit_prices(name: str, pool: Pool) -> dict[str, str]:
    """Return the hourly prices of a CPU, a GiB of memory and, in a pool with GPUs, a GPU, in USD."""
    parts = {"cpu": Resources(1000, 0), "memory_gib": Resources(0, 1024**3), "gpu": Resources(0, 0, 1)}
    if not pool.gpu:
        del parts["gpu"]
    return {part: estimate_cost(name, pool, one, 0).hourly for part, one in parts.items()}


def _pool_view(name: str, pool: Pool) -> dict[str, Any]:
    return {
        "instance_type": pool.instance_type,
        "gpu_type": pool.gpu_type,
        "spot": pool.spot,
        "node": {"cpu": format_cpu(pool.cpu), "memory": format_bytes(pool.memory), "gpu": pool.gpu},
        "max_nodes": pool.max_nodes,
        "per_gpu": None if pool.per_gpu is None else pool.per_gpu.model_dump(mode="json"),
        "hourly_usd": f"{pool.hourly_usd:f}",
        "hourly_usd_per": unit_prices(name, pool),
    }
