"""Waiting for a job: polls with back-off and jitter, and patience with a Runway that does not answer."""

from __future__ import annotations

from collections.abc import Callable

from runway.cli.client import RequestFailed
from runway.cli.session import Edges, Session
from runway.cli.text import show_duration
from runway.cli.wire import JobView

PATIENCE_SECONDS = 300.0
"""How long an outage of Runway is waited out."""

FIRST_PAUSE_SECONDS = 0.4
LONGEST_PAUSE_SECONDS = 5.0


class GaveUp(Exception):
    """The time allowed for waiting is over; `view` is what was seen last, None if nothing was."""

    def __init__(self, view: JobView | None) -> None:
        super().__init__("the time allowed for waiting is over")
        self.view = view


class Backoff:
    """Pauses in seconds that grow by half from the first to the longest, each shortened at random by up to half."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._pause = FIRST_PAUSE_SECONDS

    def next(self) -> float:
        """The next pause."""
        pause = self._pause
        self._pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        return pause * (1 - self._random() / 2)

    def reset(self) -> None:
        """Start again from the first pause."""
        self._pause = FIRST_PAUSE_SECONDS


class Patience:
    """Bears with a Runway that does not answer, for `PATIENCE_SECONDS` from the first failure on."""

    def __init__(self, session: Session) -> None:
        self._note = session.screen.note
        self._monotonic = session.edges.monotonic
        self._backoff = Backoff(session.edges.random)
        self._since: float | None = None

    def pause_after(self, error: RequestFailed) -> float:
        """Seconds to pause before the next try: at least Retry-After. Raises `error` where another try is no use."""
        now = self._monotonic()
        if not error.transient:
            raise error
        if self._since is None:
            self._since = now
            self._note(f"{error}; trying again for up to {show_duration(PATIENCE_SECONDS)}", style="yellow")
        pause = max(self._backoff.next(), float(error.retry_after or 0))
        if now + pause > self._since + PATIENCE_SECONDS:
            raise error
        return pause

    def answered(self) -> None:
        """Runway has answered: the next failure begins a new outage."""
        if self._since is not None:
            self._note("Runway answers again")
        self._since = None
        self._backoff.reset()


def wait_until(
    session: Session, job_id: str, done: Callable[[JobView], bool], *, timeout: float | None = None
) -> JobView:
    """Poll a job until `done` says so; each change of it is noted on stderr.

    `timeout` is in seconds. Raises GaveUp once it is over, RequestFailed where Runway refuses or stays away too long.
    """
    edges = session.edges
    deadline = None if timeout is None else edges.monotonic() + timeout
    backoff, patience = Backoff(edges.random), Patience(session)
    view: JobView | None = None
    shown: str | None = None
    while True:
        try:
            view = session.client.job(job_id)
        except RequestFailed as error:
            pause = patience.pause_after(error)
        else:
            patience.answered()
            if done(view):
                return view
            if (progress := _progress(view)) != shown:
                session.screen.note(progress)
                shown = progress
            pause = backoff.next()
        edges.sleep(_within(pause, deadline, edges, view))


def _within(pause: float, deadline: float | None, edges: Edges, view: JobView | None) -> float:
    if deadline is None:
        return pause
    left = deadline - edges.monotonic()
    if left <= 0:
        raise GaveUp(view)
    return min(pause, left)


def _progress(view: JobView) -> str:
    why = "".join(f"; {condition['code']}: {condition['message']}" for condition in view["conditions"])
    return f"{view['id']} is {view['state']}{why}"
