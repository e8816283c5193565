"""Quotas compared with what the pools can hold."""

from __future__ import annotations

from pathlib import Path

from runway.policy import Policy, load_policy
from runway.pool_capacity import capacities
from tests.support.builders import policy

GIB = 1 << 30
EXAMPLE = Path(__file__).parents[2] / "config" / "policy.eks.example.yaml"


def compared(of: Policy) -> dict[str, tuple[int, int | None, bool | None]]:
    return {found.name: (found.quotas, found.pools, found.is_sufficient) for found in capacities(of)}


def test_pools_without_maximum_hold_an_unknown_amount() -> None:
    assert compared(policy()) == {
        "gpu a10g": (6, None, None),
        "gpu h100": (6, None, None),
        "cpu": (48_000, None, None),
        "memory": (192 * GIB, None, None),
    }


def test_gpus_are_compared_by_type_and_cpu_with_pools_without_gpus() -> None:
    bounded = policy(
        ("memory: 64Gi}", "memory: 64Gi, max_nodes: 2}"),
        ("gpu_type: a10g}", "gpu_type: a10g, max_nodes: 1}"),
        ("gpu_type: h100}", "gpu_type: h100, max_nodes: 1}"),
    )
    assert compared(bounded) == {
        "gpu a10g": (6, 4, False),
        "gpu h100": (6, 8, True),
        "cpu": (48_000, 32_000, False),
        "memory": (192 * GIB, 128 * GIB, False),
    }


def test_several_pools_of_a_gpu_type_add_up() -> None:
    two = policy(
        ("gpu_type: a10g}", "gpu_type: a10g, max_nodes: 1}"),
        ("gpu_type: h100}", "gpu_type: a10g, max_nodes: 1, spot: true, node_selector: {capacity: spot}}"),
    )
    assert compared(two)["gpu a10g"] == (6, 12, True)


def test_example_policy_promises_no_more_than_its_pools_hold() -> None:
    assert {found.is_sufficient for found in capacities(load_policy(EXAMPLE))} == {True}


def test_example_policy_bounds_every_gpu_pool_per_gpu() -> None:
    bounds = {name: pool.per_gpu for name, pool in load_policy(EXAMPLE).pools.items() if pool.gpu}
    assert bounds
    assert [name for name, bound in bounds.items() if bound is None] == []


def test_amounts_are_shown_as_quantities() -> None:
    shown = [found.to_json() for found in capacities(load_policy(EXAMPLE))]
    assert shown == [
        {"resource": "gpu", "gpu_type": "a10g", "quotas": "8", "pools": "8", "sufficient": True},
        {"resource": "cpu", "gpu_type": None, "quotas": "144", "pools": "150", "sufficient": True},
        {"resource": "memory", "gpu_type": None, "quotas": "512Gi", "pools": "540Gi", "sufficient": True},
    ]


def test_quota_by_gpu_type_lowers_the_promise_of_that_type() -> None:
    limited = policy(
        ("quota: {gpu: 4,", "quota: {gpu: 4, gpu_types: {h100: 1},"),
        ("gpu_type: h100}", "gpu_type: h100, max_nodes: 1}"),
    )
    assert compared(limited)["gpu a10g"] == (6, None, None)
    assert compared(limited)["gpu h100"] == (3, 8, True)
