"""What a job costs: a rate card per pool, derived from the node's hourly price.

A node's price is divided over what the node holds, so that the parts of a full node add up to the price of the node,
whoever takes which part. The weights say how dear the resources are against each other:

- 1 GiB of memory is 1 unit and 1 vCPU is 9: the ratio of the published prices of AWS Fargate, where both are sold apart
  (0.04048 and 0.004445 USD an hour in us-east-1, https://aws.amazon.com/fargate/pricing/).
- 1 GPU is 220 units: what a g5.xlarge costs above an m6i.xlarge with the same vCPUs and memory (1.006 against 0.192 USD
  an hour, https://aws.amazon.com/ec2/pricing/on-demand/), in units of the latter.

Money is `Decimal`, in USD, rounded to a millionth; whole numbers keep it exact until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from runway.jobs.spec import Resources
from runway.policy import Pool
from runway.quantity import format_bytes, format_cpu

CURRENCY = "USD"

# Units for each milli-CPU, byte and GPU, all of them times 1000 x 2^30 so that they are whole.
_PER_MILLI_CPU = 9 * 1024**3
_PER_BYTE = 1000
_PER_GPU = 220 * 1000 * 1024**3


@dataclass(frozen=True, slots=True)
class CostLine:
    """One resource's part of the hourly price."""

    resource: str
    quantity: str
    hourly: Decimal


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a job costs an hour, and at most. The lines add up to `hourly` exactly."""

    rate_card: str
    hourly: Decimal
    ceiling: Decimal
    lines: tuple[CostLine, ...]


def estimate_cost(pool_name: str, pool: Pool, resources: Resources, timeout_seconds: int) -> CostEstimate:
    """The price of these resources in that pool.

    The ceiling is `hourly` times the timeout, rounded up: the timeout is the whole life of the job, retries and waiting
    included, and a job holds its resources in one pod at a time. Only a grace period that runs out can add to it.
    """
    shares = [
        ("cpu", format_cpu(resources.cpu), _units(resources.cpu, 0, 0)),
        ("memory", format_bytes(resources.memory), _units(0, resources.memory, 0)),
        ("gpu", str(resources.gpu), _units(0, 0, resources.gpu)),
    ]
    # So many units cost units * above / below millionths of a dollar.
    above, below = pool.hourly_usd.as_integer_ratio()
    above, below = above * 1_000_000, below * _units(pool.cpu, pool.memory, pool.gpu)
    hourly = round(Fraction(sum(units for _, _, units in shares) * above, below))
    amounts = _apportion(hourly, [divmod(units * above, below) for _, _, units in shares])
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
    """Round each part, a whole number and a remainder, so that they add up to `total`: what rounding leaves over goes
    where it was cut most."""
    amounts = [whole for whole, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda i: -parts[i][1])
    for index in by_remainder[: total - sum(amounts)]:
        amounts[index] += 1
    return amounts
