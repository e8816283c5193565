"""The context of a command: its environment, its session with a server, and how its errors end."""

from __future__ import annotations

import os
import random
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2
import typer

from runway.cli.client import ApiError, Client, RequestFailed
from runway.cli.exits import Exit
from runway.cli.output import Output, Screen, emit_data
from runway.cli.views.problems import show_problem

ReadKey = Callable[[float], str | None]
"""Wait at most this many seconds for a key, without Enter; None where none was pressed."""


@contextmanager
def terminal_keys() -> Iterator[ReadKey]:
    """Read keys of the terminal at stdin, and restore its mode at the end. Ctrl-C stays an interrupt."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def read(seconds: float) -> str | None:
        ready, _, _ = select.select([stdin], [], [], seconds)
        return os.read(stdin, 1).decode("ascii", "replace") if ready else None

    try:
        tty.setcbreak(stdin)
        yield read
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _now() -> datetime:
    return datetime.now(UTC)


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything a command touches outside itself; a test passes its own. Times are in seconds."""

    transport: httpx2.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = _now
    at_terminal: Callable[[], bool] = _at_terminal
    keys: Callable[[], AbstractContextManager[ReadKey]] = terminal_keys


@dataclass(frozen=True, slots=True)
class Session:
    """One command's session with one server."""

    client: Client
    screen: Screen
    environment: Environment


@contextmanager
def open_session(context: typer.Context, url: str, tenant: str | None, output: Output) -> Iterator[Session]:
    """Open a session for the body of a command. Show a request that fails in it, and end the command by typer.Exit."""
    environment = context.ensure_object(Environment)
    screen = Screen(wide=output is Output.WIDE)
    try:
        client = Client(url, tenant, environment.transport)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url / RUNWAY_URL") from error
    with client:
        try:
            yield Session(client, screen, environment)
        except RequestFailed as error:
            if output in (Output.JSON, Output.YAML):
                emit_data(error.problem, output)
            else:
                show_problem(screen, error, url)
            raise typer.Exit(exit_for(error)) from error


def exit_for(error: RequestFailed) -> Exit:
    """Return the exit code of a failed request: rejected by Runway, or anything else."""
    rejected = isinstance(error, ApiError) and 400 <= error.status < 500 and error.code != "unexpected_answer"
    return Exit.REJECTED if rejected else Exit.FAILED
