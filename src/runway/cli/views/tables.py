"""Tables that fit a terminal: cells are cut and columns left out where it is narrow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from runway.cli.text import safe

GAP: Final = 2
"""Spaces between two columns."""
SHORTEST: Final = 8
"""To so many letters a cell may be cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. Where a table is too wide, cells of those that may `shrink` are cut, and then columns left out.

    The ones with the highest `spare` go first; 0 always stays. Numbers stand at the `right`.
    """

    title: str
    shrink: bool = False
    drop_priority: int = 0
    right: bool = False


def columns(*titles: str) -> list[Column]:
    """Columns that always stay as they are."""
    return [Column(title=title) for title in titles]


def lay_out(
    heads: Sequence[Column], rows: Iterable[Sequence[object]], *, width: int | None, indent: int = 0
) -> list[Text]:
    """The lines of a table, its head first; None is an empty cell, `Text` keeps its style. No bound without `width`."""
    lines = [[Text(head.title, "bold") for head in heads], *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    shown = list(range(len(heads)))
    if width is not None:
        shown = _fit(heads, widths, width - indent)
    return [_line([(heads[at], line[at], widths[at]) for at in shown], indent) for line in lines]


def _fit(heads: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """The places of the columns that are shown; `widths` is changed to what they get."""
    shown = list(range(len(heads)))

    def excess() -> int:
        return sum(widths[at] for at in shown) + GAP * (len(shown) - 1) - width

    def cut(shortest: int) -> None:
        while excess() > 0:
            widest = max((at for at in shown if heads[at].shrink), key=lambda at: widths[at], default=None)
            if widest is None or widths[widest] <= shortest:
                return
            widths[widest] -= 1

    cut(2 * SHORTEST)
    for at in sorted(shown, key=lambda at: -heads[at].drop_priority):
        if excess() > 0 and heads[at].drop_priority:
            shown.remove(at)
    cut(SHORTEST)
    return shown


def _line(cells: Sequence[tuple[Column, Text, int]], indent: int) -> Text:
    text = Text(" " * indent)
    for head, cell, width in cells:
        fitting = cell
        if cell.cell_len > width:
            fitting = cell.copy()
            fitting.truncate(width, overflow="ellipsis")
        blank = " " * (width - fitting.cell_len)
        parts = (blank, fitting) if head.right else (fitting, blank)
        for part in parts:
            text.append(part)
        text.append(" " * GAP)
    text.rstrip()
    return text


def _cell(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text("" if cell is None else safe(cell))
