"""The cost of a job, from its share of the node's hourly price. Pure.

docs/decisions/008-cost-weights.md has the weights. Money is `Decimal`, in USD, rounded to a millionth; integers keep it
exact until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from runway.jobs.models import Attempt, CostLineView, CostView, JobView
from runway.jobs.spec import Resources
from runway.policy import Pool
from runway.quantity import MICRO, format_bytes, format_cpu

MIN_CHARGE: Final = timedelta(seconds=1)
"""Kubernetes dates in whole seconds, so a short job seems to take no time."""
MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=5)
"""An attempt that ended this much before it was bound has an invalid time."""


class Charge(NamedTuple):
    """What a finished job counts in a budget: its end in seconds since 1970, and micro-USD."""

    finished_at: int
    amount: int


# Units per milli-CPU, byte and GPU, times 1000 x 2^30 to make them integers.
_PER_MILLI_CPU = 9 * 1024**3
_PER_BYTE = 1000
_PER_GPU = 220 * 1000 * 1024**3


def estimate_cost(pool_name: str, pool: Pool, resources: Resources, max_seconds: int) -> CostView:
    """Estimate the cost of these resources in that pool for at most `max_seconds`: timeout and grace period.

    The lines add up to `hourly` exactly.
    """
    shares = [
        ("cpu", format_cpu(resources.cpu), _units(resources.cpu, 0, 0)),
        ("memory", format_bytes(resources.memory), _units(0, resources.memory, 0)),
        ("gpu", str(resources.gpu), _units(0, 0, resources.gpu)),
    ]
    # Units cost units * numerator / denominator millionths of a dollar.
    numerator, denominator = pool.hourly_usd.as_integer_ratio()
    numerator, denominator = numerator * 1_000_000, denominator * _units(pool.cpu, pool.memory, pool.gpu)
    hourly = hourly_micro_usd(pool, resources.cpu, resources.memory, resources.gpu)
    amounts = _apportion(hourly, [divmod(units * numerator, denominator) for _, _, units in shares])
    return CostView(
        currency="USD",
        rate_card=f"{pool_name}/{pool.instance_type}@{pool.hourly_usd}",
        hourly=_show_usd(hourly),
        ceiling=_show_usd(-(-hourly * max_seconds // 3600)),
        actual=None,
        lines=[
            CostLineView(resource, quantity, _show_usd(amount))
            for (resource, quantity, units), amount in zip(shares, amounts, strict=True)
            if units
        ],
    )


def hourly_micro_usd(pool: Pool, cpu: int, memory: int, gpu: int) -> int:
    """Return the hourly price of these resources in that pool, in micro-USD."""
    return _hourly(pool.hourly_usd, _units(pool.cpu, pool.memory, pool.gpu), _units(cpu, memory, gpu))


@lru_cache(maxsize=1024)
def _hourly(node_usd: Decimal, node_units: int, units: int) -> int:
    return round(Fraction(node_usd) * units * 1_000_000 / node_units)


def _units(cpu: int, memory: int, gpu: int) -> int:
    return cpu * _PER_MILLI_CPU + memory * _PER_BYTE + gpu * _PER_GPU


def _usd(millionths: int) -> Decimal:
    return Decimal(millionths).scaleb(-6)


def _show_usd(millionths: int) -> str:
    """Show USD with all six decimals."""
    return f"{millionths // MICRO}.{millionths % MICRO:06}"


def _apportion(total: int, parts: list[tuple[int, int]]) -> list[int]:
    """Round each part, an integer and a remainder, so that they add up to `total`: largest remainders round up."""
    amounts = [whole for whole, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: -parts[i][1])
    for index in by_remainder[: total - sum(amounts)]:
        amounts[index] += 1
    return amounts


def actual_cost(hourly: Decimal, attempts: Iterable[Attempt]) -> Decimal | None:
    """Compute the cost of a finished job's attempts in USD, each from its binding to a node until its end.

    Returns None if a time is unknown or impossible. The times are from different clocks, so an attempt may end a little
    before it was bound. A job that had a node is charged for at least a second.
    """
    durations = list[timedelta]()
    for attempt in attempts:
        if attempt.node is None:
            continue
        if attempt.bound_at is None or attempt.finished_at is None:
            return None
        durations.append(attempt.finished_at - attempt.bound_at)
    if any(duration < -MAX_CLOCK_DIFFERENCE for duration in durations):
        return None
    bound = sum((max(timedelta(), duration) for duration in durations), timedelta())
    bound = max(bound, MIN_CHARGE) if durations else bound
    seconds = Fraction(bound // timedelta(microseconds=1), 1_000_000)
    return _usd(round(Fraction(hourly) * seconds / 3600 * 1_000_000))


def cost_so_far(view: JobView, now: datetime) -> Decimal | None:
    """Return the actual cost of a finished job, else that of its attempts until `now`, at most the ceiling.

    Returns None where it is unknown.
    """
    if view.cost is None:
        return None
    try:
        if view.cost.actual is not None:
            return Decimal(view.cost.actual)
        hourly, ceiling = Decimal(view.cost.hourly), Decimal(view.cost.ceiling)
    except InvalidOperation:
        return None
    # An edited annotation can hold NaN, which compares with nothing.
    if view.attempts_left_out or view.is_finished or not (hourly.is_finite() and ceiling.is_finite()):
        return None
    until_now = [replace(attempt, finished_at=attempt.finished_at or now) for attempt in view.attempts]
    cost = actual_cost(hourly, until_now)
    return None if cost is None else min(cost, ceiling)
