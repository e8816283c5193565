"""The cost of a job, from its share of the node's hourly price. Pure.

docs/decisions/008-cost-weights.md has the weights. Money is `Decimal`, in USD, rounded to a millionth; integers keep it
exact until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from runway.jobs.models import Attempt
from runway.jobs.spec import Resources
from runway.policy import Pool
from runway.quantity import format_bytes, format_cpu

CURRENCY = "USD"

# Units per milli-CPU, byte and GPU, times 1000 x 2^30 to make them integers.
_PER_MILLI_CPU = 9 * 1024**3
_PER_BYTE = 1000
_PER_GPU = 220 * 1000 * 1024**3


@dataclass(frozen=True, slots=True)
class CostLine:
    """The part of one resource in the hourly price."""

    resource: str
    quantity: str
    hourly: Decimal


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """The hourly price of a job, and its ceiling. The lines add up to `hourly` exactly."""

    rate_card: str
    hourly: Decimal
    ceiling: Decimal
    lines: tuple[CostLine, ...]

    def to_json(self) -> dict[str, object]:
        """Return the cost as the Job's annotation and the job view show it, without the actual cost."""
        return {
            "currency": CURRENCY,
            "rate_card": self.rate_card,
            "hourly": f"{self.hourly:f}",
            "ceiling": f"{self.ceiling:f}",
            "actual": None,
            "lines": [
                {"resource": line.resource, "quantity": line.quantity, "hourly": f"{line.hourly:f}"}
                for line in self.lines
            ],
        }


def estimate_cost(pool_name: str, pool: Pool, resources: Resources, timeout_seconds: int) -> CostEstimate:
    """Estimate the cost of these resources in that pool. The ceiling is `hourly` times the timeout, rounded up."""
    shares = [
        ("cpu", format_cpu(resources.cpu), _units(resources.cpu, 0, 0)),
        ("memory", format_bytes(resources.memory), _units(0, resources.memory, 0)),
        ("gpu", str(resources.gpu), _units(0, 0, resources.gpu)),
    ]
    # Units cost units * numerator / denominator millionths of a dollar.
    numerator, denominator = pool.hourly_usd.as_integer_ratio()
    numerator, denominator = numerator * 1_000_000, denominator * _units(pool.cpu, pool.memory, pool.gpu)
    hourly = round(Fraction(sum(units for _, _, units in shares) * numerator, denominator))
    amounts = _apportion(hourly, [divmod(units * numerator, denominator) for _, _, units in shares])
    lines = tuple(
        CostLine(resource, quantity, _usd(amount))
        for (resource, quantity, units), amount in zip(shares, amounts, strict=True)
        if units
    )
    ceiling = -(-hourly * timeout_seconds // 3600)
    return CostEstimate(f"{pool_name}/{pool.instance_type}@{pool.hourly_usd}", _usd(hourly), _usd(ceiling), lines)


def _units(cpu: int, memory: int, gpu: int) -> int:
    return cpu * _PER_MILLI_CPU + memory * _PER_BYTE + gpu * _PER_GPU


def _usd(millionths: int) -> Decimal:
    return Decimal(millionths).scaleb(-6)


def _apportion(total: int, parts: list[tuple[int, int]]) -> list[int]:
    """Round each part, an integer and a remainder, so that they add up to `total`: largest remainders round up."""
    amounts = [whole for whole, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: -parts[i][1])
    for index in by_remainder[: total - sum(amounts)]:
        amounts[index] += 1
    return amounts


def actual_cost(hourly: Decimal, attempts: Iterable[Attempt]) -> Decimal | None:
    """Compute the cost of a finished job's attempts in USD, each from its binding to a node until its end.

    An attempt without a node costs nothing. Returns None if a time is unknown: a part of a cost is not a cost.
    The times are from different clocks, so an attempt may seem to end before it was bound; it costs nothing.
    """
    bound = timedelta()
    for attempt in attempts:
        if attempt.node is None:
            continue
        if attempt.bound_at is None or attempt.finished_at is None:
            return None
        bound += max(timedelta(), attempt.finished_at - attempt.bound_at)
    seconds = Fraction(bound // timedelta(microseconds=1), 1_000_000)
    return _usd(round(Fraction(hourly) * seconds / 3600 * 1_000_000))
