"""Amounts, moments and durations as the pages write them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from runway.text import bytes_in_words

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def duration(seconds: float) -> str:
    """The two largest units that matter: `45s`, `3m 20s`, `2h`, `4d 3h`. What is negative is `0s`: clocks differ."""
    rest, parts = max(0, int(seconds)), []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def between(start: datetime | None, end: datetime | None) -> str | None:
    """How long it was from one moment to another; None where either is not known."""
    return None if start is None or end is None else duration((end - start).total_seconds())


def stamp(moment: datetime) -> str:
    """A moment as people read it, in UTC: `2026-11-24 08:00:00`."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def machine(moment: datetime) -> str:
    """A moment in RFC 3339, for the attribute of a `time` element."""
    return moment.isoformat().replace("+00:00", "Z")


def cores(milli: int) -> str:
    """Milli-CPU as CPUs: `0.5`, `32`."""
    return f"{milli / 1000:g}"


def amount(resource: str) -> Callable[[int], str]:
    """How an amount of this resource is written: `gpu`, `cpu`, `memory` or `jobs`."""
    return {"cpu": cores, "memory": bytes_in_words}.get(resource, str)


def percent(ratio: float) -> str:
    """A ratio from 0 to 1, as a whole percentage; more than nothing is never written as 0%."""
    return "under 1%" if 0 < ratio < 0.01 else f"{ratio:.0%}"


def money(usd: str) -> str:
    """A decimal string as an amount with at least two decimals, and no zeros after those: `0.0125`, `12.50`."""
    whole, _, decimals = usd.partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
