"""Wait for a job by its event stream, or by polling. Retry an unreachable Runway."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import NoReturn, TypeVar

import typer

from runway.backoff import Backoff
from runway.cli.client import Answer, ApiError, RequestFailed
from runway.cli.context import Exit, Session, exit_code
from runway.cli.output import Output, Say, emit
from runway.cli.views.job_views import show_outcome
from runway.jobs.models import JobView
from runway.text import show_duration

RETRY_BUDGET_SECONDS = 300.0
CALL_RETRY_SECONDS = 15.0
"""For one call. A restart of Runway and a change of the leader take a few seconds."""
CANCEL_RETRY_SECONDS = 10.0
HEARTBEAT_SECONDS = 16.0
"""The server sends a heartbeat more often than this, so a deadline is at most this late while a stream is read."""
IDLE_SECONDS = 40.0  # A stream that sends nothing for this long is dead: two heartbeats are missing.
STABLE_SECONDS = 5.0  # A stream that lasts longer than this resets the back-off.
STREAM_PAUSE_SECONDS = 30.0
"""The job is polled for this long after a stream was rejected, for instance because none was free."""


T = TypeVar("T")


class WaitTimedOut(Exception):
    """The timeout of the wait expired; `view` is the last view, None if there was none."""

    def __init__(self, view: JobView | None) -> None:
        super().__init__("the timeout of the wait expired")
        self.view = view


class RetryBudget:
    """Tolerates an unreachable server for `seconds` from the first failure on."""

    def __init__(self, session: Session, seconds: float = RETRY_BUDGET_SECONDS) -> None:
        self._seconds = seconds
        self._say = session.screen.err
        self._monotonic = session.environment.monotonic
        self._backoff = Backoff(session.environment.random)
        self._since: float | None = None

    def pause_after(self, error: RequestFailed) -> float:
        """Return the seconds before the next try. Raise `error` where a retry cannot help."""
        now = self._monotonic()
        if not error.transient:
            raise error
        if self._since is None:
            self._since = now
            self._say(f"{error}; retrying for up to {show_duration(self._seconds)}", style="yellow")
        pause = max(self._backoff.next(), float(error.retry_after or 0))
        if now + pause > self._since + self._seconds:
            raise error
        return pause

    def answered(self) -> None:
        if self._since is not None:
            self._say("Runway answers again")
        self._since = None
        self._backoff.reset()


def may_help(error: RequestFailed) -> bool:
    """Return whether a retry can help: it does not end an operator's stop, and a rate limit asks for fewer calls."""
    return error.transient and error.code not in ("submissions_stopped", "rate_limited")


def briefly(session: Session, call: Callable[[], T]) -> T:
    """Repeat the call of a command that waits for nothing, within `CALL_RETRY_SECONDS`. Raises RequestFailed."""
    return patiently(session, call, RetryBudget(session, CALL_RETRY_SECONDS), may_help)


def patiently(
    session: Session,
    call: Callable[[], T],
    budget: RetryBudget | None = None,
    may_retry: Callable[[RequestFailed], bool] = lambda error: error.transient,
) -> T:
    """Repeat a call while Runway is unreachable, by default within `RETRY_BUDGET_SECONDS`. Raises RequestFailed."""
    budget = budget or RetryBudget(session)
    while True:
        try:
            result = call()
        except RequestFailed as error:
            if not may_retry(error):
                raise
            session.environment.sleep(budget.pause_after(error))
        else:
            budget.answered()
            return result


def wait_until(
    session: Session,
    job_id: str,
    done: Callable[[JobView], bool],
    *,
    show: Callable[[JobView], None],
    timeout: float | None = None,
) -> Answer[JobView]:
    """Follow a job until `done` returns True; `show` each view before that.

    Raises WaitTimedOut after `timeout` seconds, RequestFailed where Runway rejects the call or stays unreachable.
    """
    deadline = math.inf if timeout is None else session.environment.monotonic() + timeout
    with closing(JobWatcher(session, job_id, deadline).views()) as views:
        for job in views:
            if done(job.value):
                return job
            show(job.value)
    raise AssertionError("a finished job is done")


class JobWatcher:
    """The views of one job from its event stream. Without one the watcher reads the job, pauses, and tries again.

    The first views of a finished job may lack its record, so the watcher waits for the last view of the stream.
    """

    def __init__(self, session: Session, job_id: str, deadline: float) -> None:
        self._client, self._environment = session.client, session.environment
        self._job_id = job_id
        self._deadline = deadline
        self._budget, self._backoff = RetryBudget(session), Backoff(session.environment.random)
        self._last_event_id: str | None = None
        self._streams_from = -math.inf

    def views(self) -> Generator[Answer[JobView], None, None]:
        job: Answer[JobView] | None = None
        while True:
            for job in self._streamed():
                yield job
                if job.value.is_finished:
                    return
            try:
                job = self._client.job(self._job_id)
            except RequestFailed as error:
                pause = self._budget.pause_after(error)
            else:
                self._budget.answered()
                yield job
                if job.value.is_finished:
                    return
                pause = self._backoff.next()
            left = self._deadline - self._environment.monotonic()
            if left <= 0:
                raise WaitTimedOut(job.value if job else None)
            self._environment.sleep(min(pause, left))

    def _streamed(self) -> Iterator[Answer[JobView]]:
        opened_at = self._environment.monotonic()
        if opened_at < self._streams_from or self._expires():
            return
        last: Answer[JobView] | None = None
        try:
            idle = min(IDLE_SECONDS, self._deadline - opened_at)
            with self._client.events(self._job_id, self._last_event_id, idle, self._expires) as events:
                self._budget.answered()
                for event_id, last in events:
                    self._last_event_id = event_id
                    if not last.value.is_finished:
                        yield last
        except ApiError as error:
            self._rejected(error)
        except RequestFailed:
            pass  # The stream broke. The job is read next, which shows whether Runway is reachable.
        if self._environment.monotonic() - opened_at > STABLE_SECONDS:
            self._backoff.reset()
        if last is not None and last.value.is_finished:
            yield last

    def _expires(self) -> bool:
        return self._deadline - self._environment.monotonic() <= HEARTBEAT_SECONDS

    def _rejected(self, error: ApiError) -> None:
        """Poll for a while, or to the end where this server has no streams."""
        if error.code == "not_found":
            self._streams_from = math.inf
        elif error.transient or error.code == "unexpected_answer":
            pause = max(STREAM_PAUSE_SECONDS, float(error.retry_after or 0))
            self._streams_from = self._environment.monotonic() + pause
        else:
            raise error


def finish(job: Answer[JobView], output: Output, say: Say) -> NoReturn:
    emit(job.document, output, names=[job.value.id], table=lambda: show_outcome(say, job.value))
    raise typer.Exit(exit_code(job.value))


class _Signalled(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: nobody is at the terminal."""


@contextmanager
def interruptible(
    session: Session,
    job_id: str,
    *others: str,
    offer_cancel: bool = False,
    cancel: bool = False,
    exists: bool = True,
) -> Iterator[None]:
    """End the command on Ctrl-C, SIGTERM and SIGHUP, not the jobs, and say how to return to them.

    `cancel` cancels the job first. `offer_cancel` asks at a terminal after Ctrl-C; a second Ctrl-C answers no. The
    last lines are the ids alone. Without `exists` nobody knows yet whether the job exists.
    """
    try:
        with _signals_interrupt():
            yield
    except KeyboardInterrupt as interrupt:
        say = session.screen.err
        asked = offer_cancel and not isinstance(interrupt, _Signalled) and session.environment.at_terminal()
        with suppress(OSError):  # After SIGHUP there may be no terminal.
            say()
        if cancel or (asked and _wants_cancel(job_id)):
            _cancel(session, job_id, exists=exists)
        else:
            with suppress(OSError):
                _show_way_back(say, [job_id, *others], exists=exists)
        raise typer.Exit(Exit.CANCELLED) from interrupt


def _show_way_back(say: Say, job_ids: list[str], *, exists: bool) -> None:
    listed, it = " ".join(job_ids), "it" if len(job_ids) == 1 else "them"
    state = "may exist" if not exists else "continues" if len(job_ids) == 1 else "continue"
    say(f"Interrupted; {listed} {state}.")
    say(f"  to wait for {it + ':':<6}runway wait {listed}")
    say(f"  to read its log:  runway logs -f {job_ids[0]}")
    say(f"  to cancel {it + ':':<8}runway cancel {listed}")
    for job_id in job_ids:
        say(job_id)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does. An ignored SIGHUP (nohup) stays ignored."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise _Signalled

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel(session: Session, job_id: str, *, exists: bool) -> None:
    """Cancel a job, and show its state, or that a second signal came first."""
    try:
        with _signals_interrupt():
            text, style = _cancelled(session, job_id, exists=exists)
    except KeyboardInterrupt:
        text, style = f"Interrupted again; {job_id} may continue: runway cancel {job_id}", "bold red"
    with suppress(OSError):
        session.screen.err(text, style=style)
        session.screen.err(job_id)


def _cancelled(session: Session, job_id: str, *, exists: bool) -> tuple[str, str]:
    """Cancel a job within `CANCEL_RETRY_SECONDS`: a runner that ends this process soon sends SIGKILL.

    Without `exists` Runway may still create the job: the end of this process's connection does not end its submission.
    """
    budget = RetryBudget(session, CANCEL_RETRY_SECONDS)
    while True:
        try:
            job = session.client.cancel(job_id).value
        except RequestFailed as error:
            may_appear = not exists and error.code == "job_not_found"
            try:
                pause = budget.pause_after(RequestFailed(error.problem) if may_appear else error)
            except RequestFailed:
                return f"{job_id} was not cancelled: {error}", "bold red"
            session.environment.sleep(pause)
        else:
            return f"{job_id} is {job.state}. To wait until it is finished: runway wait {job_id}", ""


def _wants_cancel(job_id: str) -> bool:
    try:
        return typer.confirm(f"Cancel {job_id}?", err=True)
    except (typer.Abort, KeyboardInterrupt):
        return False
