"""Prices: parts add up to the whole, and no job costs more than its ceiling."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.cost import actual_cost, estimate_cost
from runway.jobs.models import Attempt, CostView
from runway.jobs.spec import Resources
from runway.policy import Pool
from tests.support.builders import moment, policy

GIB = 1 << 30
MILLIONTH = Decimal("0.000001")


def node(cpu: int = 48_000, memory: int = 192 * GIB, gpu: int = 4, usd: str = "5.672") -> Pool:
    """Return a pool whose nodes have these resources and this hourly price."""
    gpu_type = {"gpu": gpu, "gpu_type": "a10g"} if gpu else {}
    return Pool.model_validate(
        {"instance_type": "g5.12xlarge", "hourly_usd": usd, "cpu": f"{cpu}m", "memory": str(memory), **gpu_type}
    )


NODES = st.builds(
    node,
    st.integers(1, 192).map(lambda cores: cores * 1000),
    st.integers(1, 2048).map(lambda gib: gib * GIB),
    st.integers(0, 8),
    st.integers(1, 10**9).map(lambda millionths: f"{Decimal(millionths).scaleb(-6):f}"),
)
SHARES = st.lists(st.tuples(*[st.integers(0, 100)] * 3), min_size=1, max_size=12)
RESOURCES = st.builds(Resources, st.integers(1, 192_000), st.integers(1, 2048 * GIB), st.integers(0, 8))
TIMEOUTS = st.integers(1, 31_536_000)


def hour(pool: Pool, resources: Resources) -> CostView:
    return estimate_cost("a10g", pool, resources, 3600)


def test_estimate_for_a_known_node() -> None:
    """The node is 48 x 9 + 192 + 4 x 220 = 1504 units for 5.672 USD; the job is 36 + 16 + 220 = 272 of them."""
    found = estimate_cost("a10g", policy().pools["a10g"], Resources(4000, 16 * GIB, 1, "a10g"), 1800)
    assert found.rate_card == "a10g/g5.12xlarge@5.672"
    assert {line.resource: (line.quantity, line.hourly) for line in found.lines} == {
        "cpu": ("4", "0.135766"),
        "memory": ("16Gi", "0.060340"),
        "gpu": ("1", "0.829681"),
    }
    assert found.hourly == "1.025787"
    assert found.ceiling == "0.512894"
    assert found.currency == "USD"


def test_job_without_gpu_has_no_gpu_line() -> None:
    found = hour(policy().pools["cpu"], Resources(1000, GIB))
    assert [line.resource for line in found.lines] == ["cpu", "memory"]


@given(NODES, SHARES)
def test_parts_of_a_full_node_add_up_to_its_price(pool: Pool, weights: list[tuple[int, ...]]) -> None:
    parts = [_cut(total, [row[i] for row in weights]) for i, total in enumerate((pool.cpu, pool.memory, pool.gpu))]
    jobs = [Resources(cpu, memory, gpu) for cpu, memory, gpu in zip(*parts, strict=True)]
    total = sum((Decimal(hour(pool, job).hourly) for job in jobs), Decimal())
    assert abs(total - pool.hourly_usd) <= len(jobs) * MILLIONTH / 2


@given(NODES, RESOURCES)
def test_lines_add_up_to_the_hourly_price_exactly(pool: Pool, resources: Resources) -> None:
    found = hour(pool, resources)
    assert sum((Decimal(line.hourly) for line in found.lines), Decimal()) == Decimal(found.hourly)
    assert {line.resource for line in found.lines} == {"cpu", "memory"} | ({"gpu"} if resources.gpu else set())
    assert all(Decimal(line.hourly) >= 0 for line in found.lines)


@given(NODES, RESOURCES, TIMEOUTS)
def test_ceiling_is_hourly_times_timeout_rounded_up(pool: Pool, resources: Resources, timeout: int) -> None:
    found = estimate_cost("a10g", pool, resources, timeout)
    exact = Fraction(found.hourly) * timeout / 3600
    assert exact <= Fraction(found.ceiling) < exact + Fraction(MILLIONTH)


@given(NODES, RESOURCES, RESOURCES, TIMEOUTS, TIMEOUTS)
def test_more_resources_never_cost_less(pool: Pool, first: Resources, more: Resources, short: int, longer: int) -> None:
    both = Resources(first.cpu + more.cpu, first.memory + more.memory, first.gpu + more.gpu)
    small, large = estimate_cost("a10g", pool, first, short), estimate_cost("a10g", pool, both, short + longer)
    assert Decimal(small.hourly) <= Decimal(large.hourly)
    assert Decimal(small.ceiling) <= Decimal(large.ceiling)


@given(NODES, RESOURCES, TIMEOUTS)
def test_money_has_six_decimals(pool: Pool, resources: Resources, timeout: int) -> None:
    found = estimate_cost("a10g", pool, resources, timeout)
    for amount in (found.hourly, found.ceiling, *(line.hourly for line in found.lines)):
        assert Decimal(amount).as_tuple().exponent == -6
        assert "E" not in amount


def test_gpu_costs_more_than_its_share_of_cpu_and_memory() -> None:
    shares = {line.resource: Decimal(line.hourly) for line in hour(node(), Resources(12_000, 48 * GIB, 1)).lines}
    assert shares["gpu"] > shares["cpu"] + shares["memory"]


def _cut(total: int, weights: list[int]) -> list[int]:
    """Divide a whole into parts by weight, without a remainder."""
    scale = sum(weights)
    if scale == 0:
        return [total, *[0] * (len(weights) - 1)]
    ends = [total * sum(weights[: i + 1]) // scale for i in range(len(weights))]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _attempt(bound: float | None, finished: float | None, node: str | None = "node-1") -> Attempt:
    times = [None if seconds is None else moment(seconds) for seconds in (bound, finished)]
    return Attempt("pod", node, "failed", 1, None, None, moment(0), times[0], None, times[1], True, None, None)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        ([(10, 20)], 10),
        ([(10, 20), (30, 31)], 11),
        ([(10, 10)], 1),
        ([(10, 9), (20, 20)], 1),
        ([(10, 5)], 1),
        ([(10, 5), (20, 50)], 30),
        ([(10, 4)], None),
        ([(10, 20), (30, 24)], None),
        ([(None, 20)], None),
        ([(10, None)], None),
        ([], 0),
    ],
)
def test_actual_cost_is_at_least_a_second_and_unknown_for_impossible_times(
    attempts: list[tuple[float | None, float | None]], seconds: int | None
) -> None:
    """Kubernetes dates in whole seconds, and the times of an attempt are from two clocks."""
    found = actual_cost(Decimal("3.6"), [_attempt(*times) for times in attempts])
    assert found == (None if seconds is None else Decimal(seconds) / 1000)


def test_job_that_never_had_a_node_costs_nothing() -> None:
    assert actual_cost(Decimal("3.6"), [_attempt(None, 20, node=None)]) == 0
