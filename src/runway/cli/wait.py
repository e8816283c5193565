"""Waiting for a job: its event stream, reading the job where there is none, and patience with a Runway that is away."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from runway.cli.client import ApiError, RequestFailed
from runway.cli.context import Session
from runway.cli.text import show_duration
from runway.cli.wire import JobView, is_over

RETRY_BUDGET_SECONDS = 300.0
"""How long an outage of Runway is waited out."""

FIRST_PAUSE_SECONDS = 0.4
MAX_PAUSE_SECONDS = 5.0

HEARTBEAT_SECONDS = 16.0
"""A stream shows a sign of life more often than that: so long a deadline may be overlooked while it is read."""
IDLE_SECONDS = 40.0
"""A stream that was silent for so long is dead: two signs of life are missing."""
STREAM_PAUSE_SECONDS = 30.0
"""After a stream was refused, for want of a free one for instance, the job is read for so long instead."""


class WaitTimedOut(Exception):
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
        self._pause = min(pause * 1.5, MAX_PAUSE_SECONDS)
        return pause * (1 - self._random() / 2)

    def reset(self) -> None:
        """Start again from the first pause."""
        self._pause = FIRST_PAUSE_SECONDS


class RetryBudget:
    """Bears with a Runway that does not answer, for `PATIENCE_SECONDS` from the first failure on."""

    def __init__(self, session: Session) -> None:
        self._note = session.screen.err
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
            self._note(f"{error}; trying again for up to {show_duration(RETRY_BUDGET_SECONDS)}", style="yellow")
        pause = max(self._backoff.next(), float(error.retry_after or 0))
        if now + pause > self._since + RETRY_BUDGET_SECONDS:
            raise error
        return pause

    def answered(self) -> None:
        """Runway has answered: the next failure begins a new outage."""
        if self._since is not None:
            self._note("Runway answers again")
        self._since = None
        self._backoff.reset()


def wait_until(
    session: Session,
    job_id: str,
    done: Callable[[JobView], bool],
    *,
    tell: Callable[[JobView], None],
    timeout: float | None = None,
) -> JobView:
    """Follow a job until `done` says so; each view before that is told.

    `timeout` is in seconds. Raises GaveUp once it is over, RequestFailed where Runway refuses or stays away too long.
    """
    deadline = math.inf if timeout is None else session.edges.monotonic() + timeout
    with closing(JobWatcher(session, job_id, deadline).views()) as views:
        for view in views:
            if done(view):
                return view
            tell(view)
    raise AssertionError("a job that is over is done")


class JobWatcher:
    """The views of one job, as they change, from its event stream.

    Whenever there is no stream, or it ends before the job, the job is read, and after a pause the stream opened again
    where it ended. The first views of a job that is over may lack what is kept of it, so the last one is waited for.
    """

    def __init__(self, session: Session, job_id: str, deadline: float) -> None:
        self._client, self._edges = session.client, session.edges
        self._job_id = job_id
        self._deadline = deadline
        self._patience, self._backoff = RetryBudget(session), Backoff(session.edges.random)
        self._last: str | None = None
        self._streams_from = -math.inf

    def views(self) -> Generator[JobView, None, None]:
        """Every view that is seen; the last one is of a job that is over."""
        view: JobView | None = None
        while True:
            for view in self._streamed():
                yield view
                if is_over(view):
                    return
            try:
                view = self._client.job(self._job_id)
            except RequestFailed as error:
                pause = self._patience.pause_after(error)
            else:
                self._patience.answered()
                yield view
                if is_over(view):
                    return
                pause = self._backoff.next()
            self._edges.sleep(self._within(pause, view))

    def _streamed(self) -> Iterator[JobView]:
        opened_at = self._edges.monotonic()
        if opened_at < self._streams_from or self._deadline - opened_at <= HEARTBEAT_SECONDS:
            return
        last: JobView | None = None
        try:
            idle = min(IDLE_SECONDS, self._deadline - opened_at)
            with self._client.events(self._job_id, self._last, idle) as events:
                for event in events:
                    self._patience.answered()
                    if event.view is not None:
                        self._last, last = event.id, event.view
                        if not is_over(last):
                            yield last
                    now = self._edges.monotonic()
                    if now - opened_at > MAX_PAUSE_SECONDS:
                        self._backoff.reset()
                    if self._deadline - now <= HEARTBEAT_SECONDS:
                        break
        except ApiError as error:
            self._refused(error)
        except RequestFailed:
            pass  # Broken off: the job is read next, and that tells whether Runway is there at all.
        if last is not None and is_over(last):
            yield last

    def _refused(self, error: ApiError) -> None:
        """Go without a stream for a while, or for good where this Runway has none."""
        if error.code == "not_found":
            self._streams_from = math.inf
        elif error.transient or error.code == "unexpected_answer":
            self._streams_from = self._edges.monotonic() + max(STREAM_PAUSE_SECONDS, float(error.retry_after or 0))
        else:
            raise error

    def _within(self, pause: float, view: JobView | None) -> float:
        left = self._deadline - self._edges.monotonic()
        if left <= 0:
            raise WaitTimedOut(view)
        return min(pause, left)
