"""Tables that fit a terminal, and quota bars. Pure.

Narrow tables drop columns and cut cells. A table that may do neither becomes a block for each row. rich's `Table`
cannot drop columns, and it pads each line, which a pipe would see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from runway.api.models import AmountsView, BudgetView, QuotaSummary, TenantQuotaView
from runway.quantity import ceil_units
from runway.text import escape, show_bytes, show_usd

GAP: Final = "  "
MIN_WIDTH: Final = 8  # A cell that may shrink keeps this many characters.


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. A narrow table cuts cells that may `shrink` and drops the highest `drop_priority`; 0 stays.

    Columns are dropped before a cell is cut to fewer than `least` characters.
    """

    title: str
    shrink: bool = False
    least: int = 2 * MIN_WIDTH
    drop_priority: int = 0
    right: bool = False


def columns(*titles: str) -> list[Column]:
    return [Column(title=title) for title in titles]


def lay_out(
    heads: Sequence[Column], rows: Iterable[Sequence[object]], *, width: int | None, indent: int = 0
) -> list[Text]:
    """Return the lines of a table, its head first. Without `width` nothing is cut or dropped."""
    table = [[Text(head.title, "bold") for head in heads], *([_cell(cell) for cell in row] for row in rows)]
    natural = [max(cell.cell_len for cell in column) for column in zip(*table, strict=True)]
    widths = dict(enumerate(natural)) if width is None else _fit(heads, natural, width - indent)
    is_too_wide = width is not None and indent + sum(natural) + len(GAP) * (len(natural) - 1) > width
    if is_too_wide and len(heads) > 2 and not any(head.shrink or head.drop_priority for head in heads):
        return [line for row in table[1:] for line in _block(table[0], row, indent)]
    return [_line(row, heads, widths, indent) for row in table]


def _block(titles: Sequence[Text], row: Sequence[Text], indent: int) -> list[Text]:
    """Return a row as lines: its first cell, then each other cell that is not empty beside its title."""
    members = [(title, cell) for title, cell in zip(titles[1:], row[1:], strict=True) if cell]
    width = max((title.cell_len for title, _ in members), default=0)
    lines = [Text.assemble(title, " " * (width - title.cell_len), GAP, cell) for title, cell in members]
    return [Text(" " * indent).append_text(row[0]), *(Text(" " * (indent + 2)).append_text(line) for line in lines)]


def _fit(heads: Sequence[Column], natural: Sequence[int], room: int) -> dict[int, int]:
    """Return the width of each column that is shown, by its place."""
    widths = dict(enumerate(natural))

    def excess(*, cut: bool = False) -> int:
        cells = (min(n, heads[at].least) if cut and heads[at].shrink else n for at, n in widths.items())
        return sum(cells) + len(GAP) * (len(widths) - 1) - room

    for at in sorted(widths, key=lambda at: -heads[at].drop_priority):
        if heads[at].drop_priority and excess(cut=True) > 0:
            del widths[at]
    while excess() > 0:
        long = (at for at in widths if heads[at].shrink and widths[at] > MIN_WIDTH)
        at = max(long, key=lambda at: widths[at] - heads[at].least, default=-1)
        if at < 0:
            break
        widths[at] -= 1
    return widths


def _line(row: Sequence[Text], heads: Sequence[Column], widths: dict[int, int], indent: int) -> Text:
    cells = []
    for at, width in widths.items():
        cell = row[at].copy()
        cell.truncate(width, overflow="ellipsis")
        blank = " " * (width - cell.cell_len)
        cells.append(Text.assemble(blank, cell) if heads[at].right else Text.assemble(cell, blank))
    line = Text(" " * indent).append_text(Text(GAP).join(cells))
    line.rstrip()
    return line


def _cell(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text("" if cell is None else escape(cell))


RESOURCES: Final = ("gpu", "cpu", "memory", "jobs")
"""The resources that every quota limits."""
_ALL_RESOURCES: Final = ("gpu", "cpu", "memory", "disk", "jobs", "usd_per_hour")
_GPU_TYPES: Final = "gpu_types."

_STYLES: Final = ("cyan", "yellow", "magenta", "dim")
_BLOCKS: Final = "█▓▒░"
_ASCII: Final = "#%+."


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Thousandths of a unit or of a byte; `terminating` is the part of `used` that terminating pods use."""

    used: int
    terminating: int
    reserved: int
    limit: int


def limited_resources(limit: AmountsView) -> list[str]:
    """Return the resources that a quota limits, as in the policy: `gpu_types.a10g` are the GPUs of a type."""
    limited = [resource for resource in _ALL_RESOURCES if getattr(limit, resource) is not None]
    return [*limited, *(f"{_GPU_TYPES}{gpu_type}" for gpu_type in limit.gpu_types)]


def amount_of(amounts: AmountsView, resource: str) -> object:
    if resource.startswith(_GPU_TYPES):
        return amounts.gpu_types.get(resource.removeprefix(_GPU_TYPES), 0)
    return getattr(amounts, resource)


def describe_budget(budget: BudgetView) -> str:
    parts = ", ".join(
        f"{show_usd(getattr(budget, name))} {name}" for name in ("spent", "committed", "reserved", "free")
    )
    return f"budget of {show_usd(budget.usd)} USD in {budget.hours} h: {parts}"


def resource_usage(quota: TenantQuotaView | QuotaSummary, resource: str) -> ResourceUsage:
    """Return the usage of one resource; an amount that cannot be read counts as 0."""
    terminating = quota.held_by_terminating if isinstance(quota, TenantQuotaView) else None
    amounts = (quota.used, terminating, quota.reserved, quota.limit)
    return ResourceUsage(*(to_milli(str(amount_of(amount, resource))) if amount else 0 for amount in amounts))


def to_milli(quantity: str) -> int:
    """Return an amount in thousandths; 0 where it cannot be read."""
    try:
        return ceil_units(quantity, 1000)
    except ValueError:
        return 0


def show_amount(resource: str, milli: int) -> str:
    """Show thousandths of a resource: memory and disk as `1.5Gi`, prices in USD, the others as a number."""
    if resource in ("memory", "disk"):
        return show_bytes(milli / 1000)
    text = f"{milli // 1000}.{milli % 1000:03}"
    return show_usd(text) if resource == "usd_per_hour" else text.rstrip("0").rstrip(".")


def show_quantity(resource: str, quantity: object) -> str:
    """Show a quantity of the API in the units of `show_amount`; text that is no quantity as it is."""
    if quantity is None:
        return ""
    if isinstance(quantity, Mapping):  # GPUs by type.
        return ", ".join(f"{amount} {name}" for name, amount in quantity.items())
    if resource == "usd_per_hour":
        return show_usd(quantity)
    try:
        return show_amount(resource, ceil_units(str(quantity), 1000))
    except ValueError:
        return str(quantity)


def bar(amounts: ResourceUsage, width: int, encoding: str) -> Text:
    """Return a bar of `width` cells, 4 or more. Any usage has a cell, and only a full quota looks full."""
    letters = _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    cells = _cells((amounts.used - amounts.terminating, amounts.terminating, amounts.reserved), amounts.limit, width)
    text = Text()
    for letter, count, style in zip(letters, (*cells, width - sum(cells)), _STYLES, strict=True):
        text.append(letter * count, style)
    return text


def legend(encoding: str) -> Text:
    letters = _BLOCKS if encoding.lower().startswith("utf") else _ASCII
    parts = zip(letters, _STYLES, ("used", "used, terminating", "reserved", "free"), strict=True)
    return Text("   ").join(Text.assemble((letter, style), f" {name}") for letter, style, name in parts)


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
