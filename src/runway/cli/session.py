"""What a command works with: the server, the screen and the process's edges; and how its errors end."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2
import typer

from runway.cli.client import ApiError, Client, RequestFailed
from runway.cli.exits import Exit
from runway.cli.output import Output, Screen, compact, emit_data

_SHOWN_APART = frozenset(
    {"type", "title", "status", "detail", "code", "instance", "request_id", "violations", "excerpt"}
)


def _now() -> datetime:
    return datetime.now(UTC)


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass(frozen=True, slots=True)
class Edges:
    """Everything a command touches outside itself, so that a test can hand in its own. Times are in seconds."""

    transport: httpx2.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    now: Callable[[], datetime] = _now
    at_terminal: Callable[[], bool] = _at_terminal


@dataclass(frozen=True, slots=True)
class Session:
    """One command's conversation with one Runway."""

    client: Client
    screen: Screen
    edges: Edges


@contextmanager
def open_session(context: typer.Context, url: str, tenant: str | None, output: Output) -> Iterator[Session]:
    """A session for the body of a command. A request that fails in it is shown, and ends the command by typer.Exit."""
    edges = context.ensure_object(Edges)
    screen = Screen()
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
                show_problem(screen, error)
            raise typer.Exit(_exit_for(error)) from error


def show_problem(screen: Screen, error: RequestFailed) -> None:
    """Show a problem on stderr: title, detail, every violation with its hint, and what to do next."""
    problem = error.problem
    screen.note(f"Error: {problem.get('title')}", f"({error.code})", style="bold red")
    screen.note(problem.get("detail") or "")
    for violation in problem.get("violations") or ():
        facts = [f"{name} {violation[name]}" for name in ("observed", "limit") if violation.get(name) is not None]
        known = f" ({', '.join(facts)})" if facts else ""
        screen.note(f"  {violation.get('field')}: {violation.get('message')}{known}")
        if violation.get("hint"):
            screen.note(f"    hint: {violation['hint']}")
    for name, value in problem.items():
        if name not in _SHOWN_APART:
            screen.note(f"  {name}: {compact(value)}")
    if error.retry_after is not None:
        screen.note(f"Try again in {error.retry_after} s.")
    if error.code == "tenant_required":
        screen.note("hint: name your tenant with --tenant NAME or RUNWAY_TENANT")
    if error.code == "outcome_unknown" and problem.get("id"):
        screen.note(f"hint: `runway status {problem['id']}` tells whether the job exists")
    if error.code == "unreachable":
        screen.note("hint: set the address with --url or RUNWAY_URL")
    if problem.get("request_id"):
        screen.note(f"request id: {problem['request_id']}", style="dim")


def _exit_for(error: RequestFailed) -> Exit:
    refused = isinstance(error, ApiError) and 400 <= error.status < 500 and error.code != "unexpected_answer"
    return Exit.REFUSED if refused else Exit.RUNWAY
