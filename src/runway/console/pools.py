"""The pools of the overview: their nodes, and the quotas beside what they can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from runway.api.dependencies import AppState
from runway.console.templating import show_cores
from runway.pool_capacity import capacities
from runway.text import show_bytes


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool: its nodes and GPUs now, and the hourly price of nodes and jobs in USD. `max_nodes` may be unknown."""

    name: str
    ready: int
    not_ready: int
    max_nodes: int | None
    gpus_requested: int
    gpus: int
    nodes_usd: Decimal
    charged_usd: Decimal
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """One resource: the sum of the quotas, and what the pools hold, if that is known."""

    name: str
    quotas: str
    pools: str | None
    is_sufficient: bool | None


def pool_rows(use: AppState) -> list[PoolRow]:
    """Return the pools in the order of the policy. O(nodes)."""
    charged = use.cluster.stats.charged
    return [
        PoolRow(
            name,
            found.ready,
            found.not_ready,
            use.policy.pools[name].max_nodes,
            found.requested.gpu,
            found.allocatable.gpu,
            use.policy.pools[name].hourly_usd * found.total,
            charged.get(name, Decimal()),
            tuple(
                f"{number} {words}"
                for number, words in (
                    (found.undersized, "smaller than the policy says"),
                    (found.faulty_gpu_nodes, "with faulty GPUs"),
                )
                if number
            ),
        )
        for name, found in use.cluster.nodes.pools().items()
    ]


def capacity_rows(use: AppState) -> list[CapacityRow]:
    """Return the quotas beside what the pools can hold."""

    def show(resource: str, amount: int) -> str:
        shown: dict[str, Callable[[int], str]] = {"cpu": show_cores, "memory": show_bytes}
        return shown.get(resource, str)(amount)

    return [
        CapacityRow(
            found.name,
            show(found.resource, found.quotas),
            None if found.pools is None else show(found.resource, found.pools),
            found.is_sufficient,
        )
        for found in capacities(use.policy)
    ]
