"""Bars of a quota: what is used, held by pods that are ending, reserved, and free. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from runway.cli.text import show_bytes
from runway.cli.wire import Amounts, QuotaNow, TenantQuota
from runway.quantity import ceil_units

RESOURCES: Final = ("gpu", "cpu", "memory", "jobs")

_STYLES: Final = ("cyan", "yellow", "magenta", "dim")
_BLOCKS: Final = "█▓▒░"
_ASCII: Final = "#%+."


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Of one resource: what is used, how much of that by pods that are ending, reserved, and the limit; in thousandths.

    Memory is in bytes, the rest in units.
    """

    used: int
    terminating: int
    reserved: int
    limit: int


def resource_usage(quota: TenantQuota | QuotaNow, resource: str) -> ResourceUsage:
    """The figures of one resource; an amount that cannot be read counts as 0."""
    terminating = quota.get("held_by_terminating")
    return ResourceUsage(
        _units(quota["used"], resource),
        0 if terminating is None else _units(terminating, resource),  # type: ignore[arg-type]
        _units(quota["reserved"], resource),
        _units(quota["limit"], resource),
    )


def to_milli(quantity: str) -> int:
    """An amount in thousandths; what cannot be read counts as 0."""
    try:
        return ceil_units(quantity, 1000)
    except ValueError:
        return 0


def show_amount(resource: str, amount: int) -> str:
    """Thousandths of a resource as people read them: memory as `1.5Gi`, the rest as a number."""
    return show_bytes(amount / 1000) if resource == "memory" else f"{amount / 1000:g}"


def bar(amounts: ResourceUsage, width: int, encoding: str) -> Text:
    """A bar of `width` cells, 4 or more. What is held at all has a cell, and only what is full looks full."""
    letters = _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    cells = _cells((amounts.used - amounts.terminating, amounts.terminating, amounts.reserved), amounts.limit, width)
    text = Text()
    for letter, count, style in zip(letters, (*cells, width - sum(cells)), _STYLES, strict=True):
        text.append(letter * count, style)
    return text


def legend(encoding: str) -> Text:
    """What the parts of a bar mean."""
    letters = _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    names = ("used", "used, ending", "reserved", "free")
    parts = (
        Text.assemble((letter, style), f" {name}") for letter, style, name in zip(letters, _STYLES, names, strict=True)
    )
    return Text("   ").join(parts)


def _cells(parts: Sequence[int], limit: int, width: int) -> list[int]:
    taken = sum(parts)
    total = max(limit, taken)
    cells = [max(1, round(part * width / total)) if part > 0 else 0 for part in parts]
    # Full is only what is full.
    room = width if taken >= limit else width - 1
    while sum(cells) > room:
        cells[cells.index(max(cells))] -= 1
    while taken and taken >= limit and sum(cells) < width:
        cells[cells.index(max(cells))] += 1
    return cells


def _units(amounts: Amounts, resource: str) -> int:
    return to_milli(str(dict(amounts).get(resource, 0)))
