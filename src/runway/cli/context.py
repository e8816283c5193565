"""What a command works with: the server, the screen and the process's edges; and how its errors end."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2
import typer

from runway.cli.client import ApiError, Client, RequestFailed
from runway.cli.exits import Exit
from runway.cli.keys import ReadKey, terminal_keys
from runway.cli.output import Output, Screen, emit_data
from runway.cli.views.problems import show_problem


def _now() -> datetime:
    return datetime.now(UTC)


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything a command touches outside itself, so that a test can hand in its own. Times are in seconds."""

    transport: httpx2.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = _now
    at_terminal: Callable[[], bool] = _at_terminal
    keys: Callable[[], AbstractContextManager[ReadKey]] = terminal_keys


@dataclass(frozen=True, slots=True)
class Session:
    """One command's conversation with one Runway."""

    client: Client
    screen: Screen
    edges: Environment


@contextmanager
def open_session(context: typer.Context, url: str, tenant: str | None, output: Output) -> Iterator[Session]:
    """A session for the body of a command. A request that fails in it is shown, and ends the command by typer.Exit."""
    edges = context.ensure_object(Environment)
    screen = Screen(wide=output is Output.WIDE)
    try:
        client = Client(url, tenant, edges.transport)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url / RUNWAY_URL") from error
    with client:
        try:
            yield Session(client, screen, edges)
        except RequestFailed as error:
            if output in (Output.JSON, Output.YAML):
                emit_data(error.problem, output)
            else:
                show_problem(screen, error, url)
            raise typer.Exit(exit_for(error)) from error


def exit_for(error: RequestFailed) -> Exit:
    """The exit code of a request that failed: refused by Runway, or anything else."""
    refused = isinstance(error, ApiError) and 400 <= error.status < 500 and error.code != "unexpected_answer"
    return Exit.REJECTED if refused else Exit.FAILED
