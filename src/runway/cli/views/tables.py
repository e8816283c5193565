"""Tables that fit a terminal: narrow ones drop columns and cut cells. Pure.

rich's `Table` can cut cells. It cannot drop columns, and it pads each line, which a pipe would see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from runway.text import escape

GAP: Final = "  "
MIN_WIDTH: Final = 8
"""A cell that may shrink keeps this many characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. A narrow table cuts cells that may `shrink` and drops the highest `drop_priority`; 0 stays."""

    title: str
    shrink: bool = False
    drop_priority: int = 0
    right: bool = False


def columns(*titles: str) -> list[Column]:
    """Columns that never shrink and always stay."""
    return [Column(title=title) for title in titles]


def lay_out(
    heads: Sequence[Column], rows: Iterable[Sequence[object]], *, width: int | None, indent: int = 0
) -> list[Text]:
    """Return the lines of a table, its head first. None is an empty cell, `Text` keeps its style.

    Without `width` nothing is cut or dropped.
    """
    table = [[Text(head.title, "bold") for head in heads], *([_cell(cell) for cell in row] for row in rows)]
    natural = [max(cell.cell_len for cell in column) for column in zip(*table, strict=True)]
    widths = dict(enumerate(natural)) if width is None else _fit(heads, natural, width - indent)
    return [_line(row, heads, widths, indent) for row in table]


def _fit(heads: Sequence[Column], natural: Sequence[int], room: int) -> dict[int, int]:
    """Return the width of each column that is shown, by its place."""
    widths = dict(enumerate(natural))

    def excess(shortest: int | None = None) -> int:
        cells = (min(n, shortest) if shortest and heads[at].shrink else n for at, n in widths.items())
        return sum(cells) + len(GAP) * (len(widths) - 1) - room

    for at in sorted(widths, key=lambda at: -heads[at].drop_priority):
        if heads[at].drop_priority and excess(2 * MIN_WIDTH) > 0:
            del widths[at]
    while excess() > 0:
        at = max((at for at in widths if heads[at].shrink), key=lambda at: widths[at], default=-1)
        if at < 0 or widths[at] <= MIN_WIDTH:
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
