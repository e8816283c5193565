"""The policy of the model, with quotas so small that every history reaches them."""

from __future__ import annotations

from typing import Any, Final

from runway.policy import Budget, Tenant, parse_policy

SKEW: Final = 1.02
"""The maximum ratio of the speeds of two processes' clocks."""

BUDGET_SECONDS: Final = 300
"""The window of the budget. A policy has whole hours, in which the process renews its Lease a thousand times."""

_PARSED: Final = parse_policy("""\
version: 1
limits:
  cpu: {min: 100m, max: "64"}
  memory: {min: 32Mi, max: 64Gi}
  disk: {min: 100Mi, max: 64Gi, default: 1Gi}
  gpu: {max: 4}
  timeout_seconds: {min: 1, max: 86400, default: 3600}
  grace_period_seconds: {max: 120, default: 30}
  retries: {max: 3}
  start_timeout_seconds: {image: 10, registry: 25}
images: {allow: ["runway.local/*"]}
pools:
  cpu: {instance_type: large, hourly_usd: "1", cpu: "64", memory: 256Gi}
  a10g: {instance_type: gpus, hourly_usd: "5", cpu: "64", memory: 256Gi, gpu: 8, gpu_type: a10g}
  h100: {instance_type: large-gpus, hourly_usd: "12.5", cpu: "64", memory: 256Gi, gpu: 8, gpu_type: h100}
tenants:
  red:
    namespace: runway-red
    quota: {gpu: 2, gpu_types: {h100: 1}, cpu: "3", memory: 3Gi, disk: 5Gi, jobs: 4}
    rate: {per_minute: 100000, burst: 1000}
  blue:
    namespace: runway-blue
    quota: {gpu: 1, cpu: "8", memory: 8Gi, jobs: 2}
    rate: {per_minute: 100000, burst: 1000}
  green:
    namespace: runway-green
    quota: {gpu: 4, cpu: "6", memory: 8Gi, jobs: 6, usd_per_hour: "2"}
    budget: {usd: "3", hours: 1}
    rate: {per_minute: 100000, burst: 1000}
  slow:
    namespace: runway-slow
    quota: {gpu: 0, cpu: "64", memory: 64Gi, jobs: 60}
    rate: {per_minute: 6, burst: 2}
""")


class _ShortBudget(Budget):
    @property
    def seconds(self) -> int:
        return BUDGET_SECONDS


def _with_short_budget(tenant: Tenant) -> Tenant:
    budget = tenant.budget and _ShortBudget.model_construct(**dict(tenant.budget))
    return tenant.model_copy(update={"budget": budget})


POLICY: Final = _PARSED.model_copy(
    update={"tenants": {name: _with_short_budget(tenant) for name, tenant in _PARSED.tenants.items()}}
)

SIZES: Final[dict[str, dict[str, Any]]] = {
    "small": {"cpu": "500m", "memory": "256Mi"},
    "one gpu": {"cpu": "1", "memory": "1Gi", "gpu": 1, "gpu_type": "a10g"},
    "two gpus": {"cpu": "1", "memory": "1Gi", "gpu": 2, "gpu_type": "a10g"},
    "one large gpu": {"cpu": "1", "memory": "1Gi", "gpu": 1, "gpu_type": "h100"},
    "much cpu": {"cpu": "2", "memory": "512Mi"},
    "much memory": {"cpu": "500m", "memory": "2Gi"},
    "much disk": {"cpu": "500m", "memory": "256Mi", "disk": "3Gi"},
}


def document(
    resources: dict[str, Any],
    key: str | None,
    retries: int = 0,
    start_timeout: int | None = None,
    timeout: int = 3600,
) -> dict[str, Any]:
    """Return a spec; its name identifies the Jobs of one key."""
    spec = {"image": "runway.local/busybox:1", "command": ["true"], "resources": resources, "retries": retries}
    spec |= {"start_timeout_seconds": start_timeout, "timeout_seconds": timeout}
    return spec if key is None else {**spec, "name": f"key-{key}"}
