"""What reaches the terminal: tables and lines for people, JSON and YAML for programs.

Text from the server or a file goes through `safe`, and nothing is ever read as rich markup. On a terminal long lines
are wrapped and tables made to fit; elsewhere, and with `-o wide`, a record is a line. Colours appear only where the
stream is a terminal and NO_COLOR (https://no-color.org) is not set.
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
from runway.cli.views.tables import Column, lay_out

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

NARROWEST = 20
"""What is left for text in fewer columns than these is not wrapped any more."""


class Output(StrEnum):
    """The forms of `-o`."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def for_people(self) -> bool:
        """Whether the result is shown to be read, not as data or names."""
        return self in (Output.TABLE, Output.WIDE)


class Screen:
    """The two streams of a command: results on stdout, everything else on stderr. `wide` makes nothing fit."""

    def __init__(self, *, wide: bool = False) -> None:
        self.stdout = _console(sys.stdout)
        self.stderr = _console(sys.stderr)
        self.wide = wide

    @property
    def width(self) -> int | None:
        """Columns that stdout has; None where nothing has to fit."""
        return None if self.wide else _width(self.stdout)

    def out(self, *parts: object, style: str = "", hang: int | None = None) -> None:
        """One line on stdout; the parts that are not empty are joined by spaces, `Text` keeps its style.

        With `hang` a line that is too long for the terminal is wrapped, and goes on after so many spaces.
        """
        _print(self.stdout, parts, style, hang, self.width)

    def err(self, *parts: object, style: str = "", hang: int | None = None) -> None:
        """One line on stderr: progress, warnings, errors. Like `line`."""
        _print(self.stderr, parts, style, hang, _width(self.stderr))

    def table(self, heads: Sequence[Column], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """A table on stdout; None is an empty cell, `Text` keeps its style."""
        for line in lay_out(heads, rows, width=self.width, indent=indent):
            _print(self.stdout, [line], "", None, None)


def show_state(state: str) -> Text:
    """A job's state in its colour."""
    return Text(safe(state), STATE_STYLES.get(state, ""))


def emit(document: object, output: Output, *, names: Iterable[str], table: Callable[[], None]) -> None:
    """Show one result on stdout in the form asked for: as data, as names one a line, or through `table`."""
    if output.for_people:
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


def wrapped(console: Console, text: Text, hang: int, width: int) -> list[Text]:
    """The text in lines of at most `width` columns, the second and later ones after `hang` spaces."""
    if text.cell_len <= width or width - hang < NARROWEST:
        return [text]
    first, *_ = text.wrap(console, width)
    rest = text[len(first) :]
    first.rstrip()
    plain = rest.plain
    rest = rest[len(plain) - len(plain.lstrip()) :]
    return [first, *(Text(" " * hang).append_text(line) for line in rest.wrap(console, width - hang))]


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (the base class names the parameter)
        return True


def _console(stream: TextIO) -> Console:
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return Console(
        file=stream,
        force_terminal=terminal,
        # Without colours the cursor may still move: a live display needs that.
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _width(console: Console) -> int | None:
    return console.width if console.is_terminal else None


def _print(console: Console, parts: Sequence[object], style: str, hang: int | None, width: int | None) -> None:
    texts = [part if isinstance(part, Text) else Text(safe(part)) for part in parts]
    text = Text(" ").join(text for text in texts if text)
    text.stylize(style)
    for line in [text] if hang is None or width is None else wrapped(console, text, hang, width):
        # soft_wrap leaves folding to the terminal, so that a line copied from it is one line.
        console.print(line, soft_wrap=True)
