"""Output: tables and lines for people, JSON and YAML for programs.

`escape` sanitizes text from the server or a file, and rich never reads it as markup. A terminal gets wrapped lines and
tables that fit; elsewhere, and with `-o wide`, a record is a line. Only a terminal without NO_COLOR
(https://no-color.org) gets colours.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TextIO

import typer
import yaml
from rich.console import Console
from rich.text import Text

from runway.cli.views.tables import Column, lay_out
from runway.text import escape

STATE_STYLES = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "dim"} | dict.fromkeys(
    ("pending", "cancelling", "waiting", "terminating"), "yellow"
)
MIN_WRAP_WIDTH = 20  # Text with fewer columns than this is not wrapped.
Say = Callable[..., None]  # `Screen.out` or `Screen.err`.


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def for_people(self) -> bool:
        return self in (Output.TABLE, Output.WIDE)


class Screen:
    """The streams of a command: results on stdout, everything else on stderr. `wide` never cuts or wraps."""

    def __init__(self, *, wide: bool = False) -> None:
        self.stdout = _console(sys.stdout)
        self.stderr = _console(sys.stderr)
        self.wide = wide

    @property
    def width(self) -> int | None:
        """The columns of stdout; None where nothing has to fit."""
        return None if self.wide else _width(self.stdout)

    def out(self, *parts: object, style: str = "", hang: int | None = None) -> None:
        """Print one line on stdout: the parts that are not empty, joined by spaces. `Text` keeps its style.

        With `hang` a line too long for the terminal is wrapped, and continues after that many spaces.
        """
        _print(self.stdout, parts, style, hang, self.width)

    def err(self, *parts: object, style: str = "", hang: int | None = None) -> None:
        _print(self.stderr, parts, style, hang, _width(self.stderr))

    def table(self, heads: Sequence[Column], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        for line in lay_out(heads, rows, width=self.width, indent=indent):
            _print(self.stdout, [line], "", None, None)


def show_state(state: str) -> Text:
    return Text(escape(state), STATE_STYLES.get(state, ""))


def emit(document: object, output: Output, *, names: Iterable[str], table: Callable[[], None]) -> None:
    """Print one result on stdout in the requested format: data, names one a line, or through `table`."""
    if output.for_people:
        table()
    elif output is Output.NAME:
        for name in names:
            typer.echo(escape(name))
    else:
        emit_data(document, output)


def emit_data(document: object, output: Output) -> None:
    """Write `document` to stdout as YAML where requested, else as JSON; both escape control characters."""
    if output is Output.YAML:
        typer.echo(to_yaml([document]), nl=False)
    else:
        typer.echo(json.dumps(document, indent=2))


def to_yaml(documents: Sequence[object]) -> str:
    """Return a YAML stream of these documents, keys in their own order, without anchors."""
    plain = json.loads(json.dumps(documents))  # Copies shared parts, which YAML would anchor.
    return str(yaml.dump_all(plain, Dumper=_Dumper, sort_keys=False, explicit_start=len(plain) > 1))


class _Dumper(yaml.SafeDumper):
    """Quotes text that kubectl, Helm and YAML 1.2 read as another type, unlike PyYAML: `y`, `1234e56`, `0o17`."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9._]+[eE][-+]?[0-9]+$|[-+]?0o[0-7]+$"), list("-+.0123456789")
)


def compact(value: object) -> str:
    """Return a value on one line: text itself, everything else as JSON."""
    return escape(value) if isinstance(value, str) else json.dumps(value)


def wrapped(console: Console, text: Text, hang: int, width: int) -> list[Text]:
    """Wrap text at `width` columns; the second and later lines start after `hang` spaces."""
    if text.cell_len <= width or width - hang < MIN_WRAP_WIDTH:
        return [text]
    first, *_ = text.wrap(console, width)
    rest = text[len(first) :]
    rest = rest[len(rest.plain) - len(rest.plain.lstrip()) :]
    lines = [first, *(Text(" " * hang).append_text(line) for line in rest.wrap(console, width - hang))]
    for line in lines:
        line.rstrip()
    return lines


def _console(stream: TextIO) -> Console:
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return Console(
        file=stream,
        force_terminal=terminal,
        # A live display moves the cursor, also without colours.
        color_system="auto" if terminal and not os.environ.get("NO_COLOR") else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _width(console: Console) -> int | None:
    return console.width if console.is_terminal else None


def _print(console: Console, parts: Sequence[object], style: str, hang: int | None, width: int | None) -> None:
    texts = [part if isinstance(part, Text) else Text(escape(part)) for part in parts]
    text = Text(" ").join(text for text in texts if text)
    text.stylize(style)
    for line in [text] if hang is None or width is None else wrapped(console, text, hang, width):
        # soft_wrap leaves folding to the terminal: a line copied from it is one line.
        console.print(line, soft_wrap=True)
