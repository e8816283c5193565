"""What reaches the terminal: tables and lines for people, JSON and YAML for programs.

Text from the server or a file goes through `safe`, and nothing is ever read as rich markup. Colours appear only where
the stream is a terminal and NO_COLOR (https://no-color.org) is not set.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TextIO

import typer
import yaml
from rich.console import Console
from rich.text import Text

from runway.cli.text import safe

STATE_STYLES = {
    "pending": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelling": "yellow",
    "cancelled": "dim",
    "waiting": "yellow",
    "terminating": "yellow",
}


class Output(StrEnum):
    """The forms of `-o`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Screen:
    """The two streams of a command: results on stdout, everything else on stderr."""

    def __init__(self) -> None:
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)

    def line(self, *parts: object, style: str = "") -> None:
        """One line on stdout; the parts that are not empty are joined by spaces, `Text` keeps its style."""
        _print(self._out, parts, style)

    def note(self, *parts: object, style: str = "") -> None:
        """One line on stderr: progress, warnings, errors."""
        _print(self._err, parts, style)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """A table on stdout, a record a line however wide it gets; None is an empty cell, `Text` keeps its style."""
        lines = [[Text(column, "bold") for column in columns], *([_cell(cell) for cell in row] for row in rows)]
        widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
        for line in lines:
            text = Text(" " * indent)
            for cell, width in zip(line, widths, strict=True):
                text.append_text(cell).append(" " * (width - cell.cell_len + 2))
            text.rstrip()
            _print(self._out, [text], "")


def show_state(state: str) -> Text:
    """A job's state in its colour."""
    return Text(safe(state), STATE_STYLES.get(state, ""))


def emit(document: object, output: Output, *, names: Iterable[str], table: Callable[[], None]) -> None:
    """Show one result on stdout in the form asked for: as data, as names one a line, or through `table`."""
    if output is Output.TABLE:
        table()
    elif output is Output.NAME:
        for name in names:
            typer.echo(safe(name))
    else:
        emit_data(document, output)


def emit_data(document: object, output: Output) -> None:
    """Write `document` to stdout as YAML where that was asked for, else as JSON; both escape control characters."""
    if output is Output.YAML:
        typer.echo(to_yaml([document]), nl=False)
    else:
        typer.echo(json.dumps(document, indent=2))


def to_yaml(documents: Sequence[object]) -> str:
    """A YAML stream of these documents, keys in their own order, no anchors."""
    return yaml.dump_all(documents, Dumper=_PlainDumper, sort_keys=False, explicit_start=len(documents) > 1)


def compact(value: object) -> str:
    """A value on one line: text as it is, everything else as JSON."""
    return safe(value) if isinstance(value, str) else json.dumps(value)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (the base class names the parameter)
        return True


def _console(stream: TextIO) -> Console:
    colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Console(
        file=stream,
        force_terminal=colour,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _print(console: Console, parts: Sequence[object], style: str) -> None:
    texts = [part if isinstance(part, Text) else Text(safe(part)) for part in parts]
    text = Text(" ").join(text for text in texts if text)
    text.stylize(style)
    # soft_wrap leaves folding to the terminal, so that a line copied from it is one line.
    console.print(text, soft_wrap=True)


def _cell(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text("" if cell is None else safe(cell))
