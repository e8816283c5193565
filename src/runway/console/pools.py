"""The pools: their nodes, what jobs use of them, and the quotas beside what they can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from runway.api.dependencies import AppState
from runway.api.policy import unit_prices
from runway.console.overview_page import Bar, bar_of
from runway.console.templating import show_cores
from runway.policy import Pool
from runway.pool_capacity import capacities
from runway.services.free_capacity import free_capacity_of
from runway.state.node_capacity import PoolNodes
from runway.text import amounts_in_words, show_bytes

_SHOW: Final[dict[str, Callable[[int], str]]] = {"cpu": show_cores, "memory": show_bytes}


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """A pool at a glance: its nodes, and hourly prices in USD, of `unit_usd` by resource. `max_nodes` may be unknown.

    The bars show what all pods on the ready nodes request; there is none without a ready node. `most_free` counts every
    node that takes the pool's jobs, also one that belongs to another pool.
    """

    name: str
    instance_type: str
    node: str
    spot: bool
    ready: int
    not_ready: int
    max_nodes: int | None
    bars: tuple[Bar, ...]
    most_free: str | None
    node_usd: Decimal
    unit_usd: dict[str, str]
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


def pool_summaries(use: AppState) -> list[PoolSummary]:
    """Return the pools in the order of the policy. O(nodes)."""
    charged = use.cluster.stats.charged
    return [
        PoolSummary(
            name,
            pool.instance_type,
            _node(pool),
            pool.spot,
            found.ready,
            found.not_ready,
            pool.max_nodes,
            _bars(found) if found.ready else (),
            _most_free(use, pool),
            pool.hourly_usd,
            unit_prices(name, pool),
            pool.hourly_usd * found.total,
            charged.get(name, Decimal()),
            _problems(found),
        )
        for name, found in use.cluster.nodes.pools().items()
        for pool in (use.policy.pools[name],)
    ]


def _node(pool: Pool) -> str:
    """Describe a node of the pool, as the policy does."""
    gpus = f"{pool.gpu} {pool.gpu_type} GPU, " if pool.gpu else ""
    return f"{gpus}{show_cores(pool.cpu)} CPU and {show_bytes(pool.memory)} of memory"


def _bars(found: PoolNodes) -> tuple[Bar, ...]:
    exists, used = found.allocatable, found.requested
    gpu = (bar_of("GPU", str, exists.gpu, used.gpu),) if exists.gpu else ()
    return (
        *gpu,
        bar_of("CPU", show_cores, exists.cpu, used.cpu),
        bar_of("Memory", show_bytes, exists.memory, used.memory),
    )


def _most_free(use: AppState, pool: Pool) -> str | None:
    """Describe the most that is free on one node; None if no node takes the jobs of the pool."""
    free = free_capacity_of(use.cluster, pool)
    if free is None or not free.nodes:
        return None
    return amounts_in_words(free.gpu if pool.gpu else None, free.cpu, free.memory)


def _problems(found: PoolNodes) -> tuple[str, ...]:
    counts = ((found.undersized, "smaller than the policy says"), (found.faulty_gpu_nodes, "with faulty GPUs"))
    return tuple(f"{number} {words}" for number, words in counts if number)


def capacity_rows(use: AppState) -> list[CapacityRow]:
    """Return the quotas beside what the pools can hold."""

    def show(resource: str, amount: int) -> str:
        return _SHOW.get(resource, str)(amount)

    return [
        CapacityRow(
            found.name,
            show(found.resource, found.quotas),
            None if found.pools is None else show(found.resource, found.pools),
            found.is_sufficient,
        )
        for found in capacities(use.policy)
    ]
