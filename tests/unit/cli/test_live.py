"""The display of `top` and `ls --watch`, which refreshes until a key ends it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from rich.console import Console
from rich.text import Text

from runway.cli.client import ApiError, Client, Unreachable
from runway.cli.context import Environment, ReadKey, Session
from runway.cli.live import refresh
from runway.cli.output import Screen
from tests.support.cli import URL, Clock

OUTAGE = Unreachable({"title": "Runway is unreachable", "detail": "refused", "code": "unreachable"})
REFUSED = ApiError(403, {"title": "Unknown tenant", "detail": "no", "code": "unknown_tenant"})


def played(polls: list[str | Exception], keys: list[str | None]) -> tuple[list[tuple[str, str | None]], Clock, str]:
    """Return the drawn results with their errors, the clock, and the output. A key is read once for each refresh."""
    drawn: list[tuple[str, str | None]] = []
    clock, output = Clock(), io.StringIO()

    def poll() -> str:
        result = polls.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def lines(result: str, outage: str | None) -> list[Text]:
        drawn.append((result, outage))
        return [Text(result)]

    @contextmanager
    def terminal() -> Iterator[ReadKey]:
        def read(seconds: float) -> str | None:
            clock.sleep(seconds)
            key = keys.pop(0)
            if key == "interrupt":
                raise KeyboardInterrupt
            return key

        yield read

    screen = Screen()
    screen.stdout = Console(file=output, force_terminal=True, width=80, height=24)
    environment = Environment(monotonic=clock.monotonic, random=lambda: 0.0, keys=terminal)
    with Client(URL, None, httpx2.MockTransport(lambda _: httpx2.Response(500))) as client:
        refresh(Session(client, screen, environment), 3.0, poll, lines)
    return drawn, clock, output.getvalue()


@pytest.mark.parametrize("end", ["q", "Q", "interrupt"])
def test_display_refreshes_until_a_key_ends_it(end: str) -> None:
    drawn, clock, output = played(["one", "two", "three"], [None, "x", end])
    assert [result for result, _ in drawn] == ["one", "two", "three"]
    assert clock.slept == [3.0, 3.0, 3.0]
    assert "three" in output


def test_outage_shows_the_last_result_and_the_error() -> None:
    drawn, _, _ = played(["one", OUTAGE, "two"], [None, None, "q"])
    assert drawn == [("one", None), ("one", "Runway is unreachable: refused"), ("two", None)]


@pytest.mark.parametrize("polls", [[OUTAGE], ["one", REFUSED]])
def test_refusal_and_an_outage_at_the_start_end_the_command(polls: list[str | Exception]) -> None:
    with pytest.raises((ApiError, Unreachable)):
        played(polls, [None, "q"])
