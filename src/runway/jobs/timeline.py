"""The timeline of a job: its moments in order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from runway.jobs.models import Attempt, JobView
from runway.text import show_duration

# A process may handle these signals and exit.
_HANDLED = ("SIGTERM", "SIGINT", "SIGHUP")


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of a job's life. `kind` is a state, `condition`, `deadline`, or empty."""

    time: datetime
    text: str
    kind: str = ""


def moments_of(view: JobView) -> list[Moment]:
    """Return every moment that the view reports, in order. A job that finishes before its deadline has none."""
    return sorted(_moments(view), key=lambda moment: moment.time)


def deadline_of(view: JobView) -> datetime | None:
    """Return when the job's timeout expires, counted from its acceptance; None where it is unknown."""
    return _after(view.created_at, view.spec.timeout_seconds if view.spec else None)


def _start_deadline_of(view: JobView) -> datetime | None:
    """Return when a job that has not started exceeds its own limit; None without one."""
    if view.started_at is not None or view.is_finished:
        return None
    return _after(view.created_at, view.spec.start_timeout_seconds if view.spec else None)


def _after(moment: datetime | None, seconds: int | None) -> datetime | None:
    if moment is None or seconds is None:
        return None
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _moments(view: JobView) -> Iterator[Moment]:
    if view.created_at:
        yield Moment(view.created_at, "accepted")
    for number, attempt in enumerate(view.attempts, start=1 + view.attempts_left_out):
        yield from _attempt_moments(attempt, f"attempt {number} " if view.attempt_count > 1 else "")
    for condition in view.conditions:
        if condition.since:
            yield Moment(condition.since, f"condition {condition.code}", "condition")
            ends = _after(condition.since, condition.start_timeout_seconds)
            if ends:
                yield Moment(ends, f"start deadline of {condition.code}", "deadline")
    if view.finished_at:
        cause = f": {view.failure.code}" if view.failure else ""
        yield Moment(view.finished_at, f"{view.state}{cause}", view.state)
    start_deadline = _start_deadline_of(view)
    if start_deadline:
        yield Moment(start_deadline, "start deadline", "deadline")
    deadline = deadline_of(view)
    if deadline and (not view.is_finished or (view.finished_at and deadline <= view.finished_at)):
        yield Moment(deadline, "deadline", "deadline")


def _attempt_moments(attempt: Attempt, prefix: str) -> Iterator[Moment]:
    started, finished = attempt.started_at, attempt.finished_at
    if attempt.bound_at:
        yield Moment(attempt.bound_at, f"{prefix}bound to node {attempt.node}")
    elif attempt.created_at:
        yield Moment(attempt.created_at, f"{prefix}pod created")
    if started:
        yield Moment(started, f"{prefix}started")
    if finished:
        ran = f" after {show_duration((finished - started).total_seconds())}" if started else ""
        kind = "failed" if attempt.state == "failed" else ""
        yield Moment(finished, f"{prefix}ended{ran}: {_how_it_ended(attempt)}", kind)


def _how_it_ended(attempt: Attempt) -> str:
    """Return `exit code 3`, `killed by SIGKILL, exit code 137 (OOMKilled)` or `SIGTERM, exit code 143`."""
    parts = []
    if attempt.signal:
        parts.append(attempt.signal if attempt.signal in _HANDLED else f"killed by {attempt.signal}")
    if attempt.exit_code is not None:
        parts.append(f"exit code {attempt.exit_code}")
    reason = f" ({attempt.reason})" if attempt.reason not in (None, "Error", "Completed") else ""
    return (", ".join(parts) or attempt.state) + reason
