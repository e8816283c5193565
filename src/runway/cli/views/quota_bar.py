"""Quota bars: used, terminating, reserved and free. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from runway.api.models import AmountsView, QuotaSummary, TenantQuotaView
from runway.quantity import ceil_units
from runway.text import show_bytes

RESOURCES: Final = ("gpu", "cpu", "memory", "jobs")

_STYLES: Final = ("cyan", "yellow", "magenta", "dim")
_BLOCKS: Final = "█▓▒░"
_ASCII: Final = "#%+."


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """The usage of one resource in thousandths of a unit, of memory in thousandths of a byte.

    `terminating` is the part of `used` that terminating pods use.
    """

    used: int
    terminating: int
    reserved: int
    limit: int


def resource_usage(quota: TenantQuotaView | QuotaSummary, resource: str) -> ResourceUsage:
    """Return the usage of one resource; an amount that cannot be read counts as 0."""
    terminating = quota.held_by_terminating if isinstance(quota, TenantQuotaView) else None
    return ResourceUsage(
        _milli_of(quota.used, resource),
        _milli_of(terminating, resource) if terminating else 0,
        _milli_of(quota.reserved, resource),
        _milli_of(quota.limit, resource),
    )


def to_milli(quantity: str) -> int:
    """Return an amount in thousandths; 0 where it cannot be read."""
    try:
        return ceil_units(quantity, 1000)
    except ValueError:
        return 0


def show_amount(resource: str, milli: int) -> str:
    """Show thousandths of a resource: memory as `1.5Gi`, the others as a number."""
    return show_bytes(milli / 1000) if resource == "memory" else f"{milli / 1000:g}"


def bar(amounts: ResourceUsage, width: int, encoding: str) -> Text:
    """Return a bar of `width` cells, 4 or more. Any usage has a cell, and only a full quota looks full."""
    letters = _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    cells = _cells((amounts.used - amounts.terminating, amounts.terminating, amounts.reserved), amounts.limit, width)
    text = Text()
    for letter, count, style in zip(letters, (*cells, width - sum(cells)), _STYLES, strict=True):
        text.append(letter * count, style)
    return text


def legend(encoding: str) -> Text:
    """Return the meaning of the parts of a bar."""
    letters = _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    names = ("used", "used, terminating", "reserved", "free")
    parts = (
        Text.assemble((letter, style), f" {name}") for letter, style, name in zip(letters, _STYLES, names, strict=True)
    )
    return Text("   ").join(parts)


def _cells(parts: Sequence[int], limit: int, width: int) -> list[int]:
    taken = sum(parts)
    total = max(limit, taken)
    cells = [max(1, round(part * width / total)) if part > 0 else 0 for part in parts]
    most = width if taken >= limit else width - 1
    while sum(cells) > most:
        cells[cells.index(max(cells))] -= 1
    while taken and taken >= limit and sum(cells) < width:
        cells[cells.index(max(cells))] += 1
    return cells


def _milli_of(amounts: AmountsView, resource: str) -> int:
    return to_milli(str(getattr(amounts, resource)))
