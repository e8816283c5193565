"""Compare what the quotas promise with what the pools can hold. Pure.

An admitted job waits for a node, not for another team, only if the pools can hold all quotas at once. Runway admits no
job by it, because nodes come and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runway.policy import Policy, Pool, Tenant
from runway.quantity import format_bytes, format_cpu


@dataclass(frozen=True, slots=True)
class Capacity:
    """The sum of the quotas of one resource, and what the pools hold with their maximum number of nodes.

    GPUs are counted by type. A tenant may use all its CPU and memory without GPUs, so for these only pools without GPUs
    count, if there are any. `pools` is None if one of the pools has no `max_nodes`.
    """

    resource: str
    gpu_type: str | None
    quotas: int
    pools: int | None

    @property
    def is_sufficient(self) -> bool | None:
        """Whether the pools can hold all quotas at once; None if that is unknown."""
        return None if self.pools is None else self.quotas <= self.pools

    @property
    def name(self) -> str:
        return f"{self.resource} {self.gpu_type}" if self.gpu_type else self.resource

    def show(self, amount: int) -> str:
        """Show an amount as a Kubernetes quantity."""
        shown: dict[str, Callable[[int], str]] = {"cpu": format_cpu, "memory": format_bytes}
        return shown.get(self.resource, str)(amount)

    def to_json(self) -> dict[str, object]:
        return {
            "resource": self.resource,
            "gpu_type": self.gpu_type,
            "quotas": self.show(self.quotas),
            "pools": None if self.pools is None else self.show(self.pools),
            "sufficient": self.is_sufficient,
        }


def capacities(policy: Policy) -> list[Capacity]:
    """Return the comparison of every GPU type, then of CPU and memory."""
    tenants, pools = list(policy.tenants.values()), list(policy.pools.values())
    types = dict.fromkeys(pool.gpu_type for pool in pools if pool.gpu_type is not None)
    found = []
    for gpu_type in types:
        of_type = [pool for pool in pools if pool.gpu_type == gpu_type]
        found.append(
            Capacity("gpu", gpu_type, _promised_gpus(tenants, gpu_type), _held(of_type, lambda pool: pool.gpu))
        )
    without = [pool for pool in pools if pool.gpu == 0] or pools
    cpu, memory = (sum(getattr(tenant.quota, name) for tenant in tenants) for name in ("cpu", "memory"))
    return [
        *found,
        Capacity("cpu", None, cpu, _held(without, lambda pool: pool.cpu)),
        Capacity("memory", None, memory, _held(without, lambda pool: pool.memory)),
    ]


def _promised_gpus(tenants: Iterable[Tenant], gpu_type: str) -> int:
    """Return the most GPUs of a type that all tenants can use at once."""
    quotas = (tenant.quota for tenant in tenants)
    return sum(min(quota.gpu, quota.gpu_types.get(gpu_type, quota.gpu)) for quota in quotas)


def _held(pools: Iterable[Pool], amount: Callable[[Pool], int]) -> int | None:
    total = 0
    for pool in pools:
        if pool.max_nodes is None:
            return None
        total += pool.max_nodes * amount(pool)
    return total
