"""The context of a command: environment, session with a server, and exit codes."""

from __future__ import annotations

import importlib
import os
import random
import secrets
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Self

import httpx2
import typer

from runway.cli.client import ApiError, Client, RequestFailed
from runway.cli.output import Output, Screen, emit_data
from runway.cli.views.problems import show_problem
from runway.errors import ConfigurationError
from runway.jobs.models import JobView


class Exit(IntEnum):
    """The exit codes. `wait`, `run` and `submit --wait` add the job's own exit code, which may be any other one.

    124, 125 and 130 mean the same as for `timeout`, `docker run` and the shell. 69, 74, 75 and 77 are
    EX_UNAVAILABLE, EX_IOERR, EX_TEMPFAIL and EX_NOPERM of sysexits.h.
    """

    doc: str

    OK = 0, "success"
    REJECTED = 1, "refused: by Runway (a 4xx problem, a dry run), by policy validation or doctor, or at the prompt"
    USAGE = 2, "invalid command line or file; an ambiguous job; cancel without -y and without a terminal"
    CHANGES = 3, "policy diff: the file changes the policy in force"
    UNAVAILABLE = 69, "Runway is unavailable or failed; a job may exist or continue"
    UNWRITTEN = 74, "the output could not be written; a job may exist or continue"
    TIMED_OUT = 75, "wait --timeout expired; the jobs continue"
    STOPPED = 77, "an operator stopped all submissions"
    DEADLINE = 124, "the job exceeded its timeout"
    FAILED = 125, "the job failed before its process ran, or for a reason outside it: infrastructure or policy"
    CANCELLED = 130, "the job was cancelled, or the command was interrupted"

    def __new__(cls, value: int, doc: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


def exit_code(view: JobView) -> int:
    if view.state == "succeeded":
        return Exit.OK
    if view.state == "cancelled":
        return Exit.CANCELLED
    if view.failure is None:
        return Exit.FAILED
    if view.failure.code == "deadline_exceeded":
        return Exit.DEADLINE
    own = view.attempts[-1].exit_code if view.attempts else None
    return own if view.failure.category == "user" and own else Exit.FAILED


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


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything a command touches outside itself; a test passes its own. Times are in seconds."""

    transport: httpx2.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    token: Callable[[], str] = secrets.token_hex
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    at_terminal: Callable[[], bool] = lambda: sys.stdin.isatty() and sys.stderr.isatty()
    keys: Callable[[], AbstractContextManager[ReadKey]] = terminal_keys


@dataclass(frozen=True, slots=True)
class Session:
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
                show_problem(screen, error, client.url)
            raise typer.Exit(exit_for(error)) from error


def exit_for(error: RequestFailed) -> Exit:
    if error.code == "ambiguous_job":
        return Exit.USAGE
    if error.code == "submissions_stopped":
        return Exit.STOPPED
    rejected = isinstance(error, ApiError) and 400 <= error.status < 500 and error.code != "unexpected_answer"
    return Exit.REJECTED if rejected else Exit.UNAVAILABLE


def load_server_module(name: str, command: str) -> Any:
    """Import a module that needs the server's packages, by name: contract "the command line talks HTTP"."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        Screen().err(
            f"Error: `runway {command}` needs the server's packages: pip install '.[server]'", style="bold red"
        )
        raise typer.Exit(Exit.USAGE) from error


@contextmanager
def configuration_errors(screen: Screen) -> Iterator[None]:
    """End the command with a message where a kubeconfig or a setting is invalid."""
    try:
        yield
    except ConfigurationError as error:
        screen.err(f"Error: {error}", style="bold red")
        raise typer.Exit(Exit.USAGE) from error
