"""The Kubernetes quantity grammar, strict, and USD, to and from integers.

CPU is in milli-CPU, memory in bytes, money in micro-USD.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

MAX_LENGTH = 32
MICRO = 1_000_000  # Micro-USD in one USD.
# Most jobs have one of a few sizes, and each event of a job parses its quantities.
_cached = lru_cache(maxsize=1024)

# ASCII digits only: `\d` also matches digits of other scripts, which Kubernetes rejects.
GRAMMAR = re.compile(
    r"(?P<number>[0-9]{1,20}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
)

_SMALL = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 10**3)}
_DECIMAL = {suffix: 1000**power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))}
_BINARY = {suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_FACTORS: dict[str, Fraction | int] = {**_SMALL, **_DECIMAL, **_BINARY}


@_cached
def parse_cpu(text: str) -> int:
    """Parse CPU to milli-CPU: `"500m"` is 500, `"2"` is 2000. Raises ValueError.

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#meaning-of-cpu
    """
    milli = _parse(text) * 1000
    if milli.denominator != 1:
        raise ValueError("CPU cannot be finer than 1m")
    return int(milli)


@_cached
def parse_bytes(text: str) -> int:
    """Parse memory to bytes: `"64Mi"` is 67108864. Raises ValueError.

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#meaning-of-memory
    """
    amount = _parse(text)
    if amount.denominator != 1:
        raise ValueError("must be a whole number of bytes (the suffix m means thousandths; Mi means mebibytes)")
    return int(amount)


@_cached
def ceil_units(text: str, per_unit: int = 1) -> int:
    """Parse a quantity of a Kubernetes object to units of 1/`per_unit`, rounded up as the scheduler does."""
    return math.ceil(_parse(text) * per_unit)


def format_cpu(milli: int) -> str:
    """Format milli-CPU in the canonical form of Kubernetes: 500 is `"500m"`, 2000 is `"2"`."""
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


@_cached
def format_bytes(amount: int) -> str:
    """Format bytes with the largest binary suffix that divides them: 67108864 is `"64Mi"`, 1000 is `"1000"`."""
    for suffix, size in reversed(_BINARY.items()):
        if amount and amount % size == 0:
            return f"{amount // size}{suffix}"
    return str(amount)


def micro_usd(text: str | Decimal) -> int:
    """Parse USD with at most six decimals to micro-USD: `"12.5"` is 12500000."""
    return int(Decimal(text).scaleb(6))


def format_usd(micro: int) -> str:
    """Format micro-USD as USD without trailing zeros: 12500000 is `"12.5"`."""
    whole, fraction = divmod(micro, MICRO)
    return f"{whole}.{fraction:06}".rstrip("0").rstrip(".")


def _parse(text: str) -> Fraction:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a quantity has at most {MAX_LENGTH} characters")
    match = GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError('not a Kubernetes quantity such as "500m", "2" or "8Gi"')
    suffix = match["suffix"] or ""
    # Fraction reads an exponent, such as 1e3.
    factor = _FACTORS[suffix] if suffix in _FACTORS else Fraction(f"1{suffix}")
    return Fraction(match["number"].rstrip(".")) * factor
