"""A full-screen display that refreshes until a key or Ctrl-C ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from rich.console import Group
from rich.live import Live
from rich.text import Text

from runway.backoff import Backoff
from runway.cli.client import RequestFailed
from runway.cli.context import Session
from runway.cli.output import Output

QUIT_KEYS: Final = ("q", "Q")
REFRESH_SECONDS: Final = 3.0

T = TypeVar("T")


def can_refresh(session: Session, output: Output) -> bool:
    """Return whether a person watches: elsewhere a command prints once."""
    return output.for_people and session.screen.stdout.is_terminal and session.environment.at_terminal()


def refresh(
    session: Session, every: float, poll: Callable[[], T], lines: Callable[[T, str | None], list[Text]]
) -> None:
    """Show `lines` of each result of `poll`, once in `every` seconds. In an outage show the last result and the error.

    Raises RequestFailed where the first poll fails, or a later one for a reason that no retry changes.
    """
    backoff, monotonic = Backoff(session.environment.random), session.environment.monotonic
    last: T | None = None
    try:
        with (
            session.environment.keys() as read_key,
            Live(console=session.screen.stdout, screen=True, auto_refresh=False) as live,
        ):
            while True:
                outage, pause = None, every
                try:
                    last = poll()
                    backoff.reset()
                except RequestFailed as error:
                    if last is None or not error.transient:
                        raise
                    outage, pause = str(error), max(every, backoff.next(), float(error.retry_after or 0))
                live.update(Group(*lines(last, outage)), refresh=True)
                until = monotonic() + pause
                while (left := until - monotonic()) > 0:
                    if read_key(left) in QUIT_KEYS:
                        return
    except KeyboardInterrupt:
        return
