"""A job's life as a picture: what lies where, in percent of its width. Pure; the template draws it.

1. The picture goes from when the job was accepted to its end, or to now.
2. The deadline is drawn to scale where it is not much further away. Otherwise it stands at the right edge, past a break
   in the axis: an hour's deadline would leave a second's job no width.
3. Each attempt is a row: waiting for a node, starting on it (image, container), running. What is short keeps a sliver
   of width, so that it is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from runway.console.filters import duration
from runway.jobs.diagnosis.attempts import Attempt
from runway.jobs.view import JobView

Kind = Literal["waiting", "starting", "running"]

MIN_LABEL_DISTANCE: Final = 1.6
"""A deadline within so many times the job's life so far is drawn to scale."""
BREAK_PERCENT: Final = 86.0
"""Where the axis breaks off, if the deadline is not to scale."""
SLIVER_PERCENT: Final = 0.6
MIN_DURATION: Final = timedelta(seconds=1)
"""Kubernetes tells times in whole seconds: a life that began and ended within one still has a width."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an attempt. `left` and `width` are percentages of the picture's width."""

    kind: Kind
    left: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt. `end` is where it ended, in percent; None while it has not, or nobody saw when."""

    number: int
    state: str
    spans: tuple[Span, ...]
    end: float | None


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened when: the same as the picture, in words."""

    time: datetime
    what: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture. Places are in percent; `to_scale` says whether the deadline's is, or stands past a break."""

    rows: tuple[Row, ...]
    start: datetime
    end: datetime
    ended: bool
    end_at: float
    deadline: datetime | None
    deadline_at: float | None
    to_scale: bool
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    seconds: float
    width: float

    def at(self, moment: datetime) -> float:
        part = (moment - self.start).total_seconds() / self.seconds
        return round(min(max(part, 0.0), 1.0) * self.width, 2)


def timeline_of(view: JobView, now: datetime) -> Timeline | None:
    """The picture of a job's life until `now`; None where it is not known when the job was accepted."""
    if view.created_at is None:
        return None
    start, ended = view.created_at, view.state.is_finished
    end = max(start + MIN_DURATION, _last(view, start) if ended else now)
    deadline = start + timedelta(seconds=view.spec.timeout_seconds) if view.spec else None
    near = deadline is not None and deadline - start <= (end - start) * MIN_LABEL_DISTANCE
    if deadline is not None and near:
        scale = _Scale(start, (max(end, deadline) - start).total_seconds(), 100.0)
    else:
        scale = _Scale(start, (end - start).total_seconds(), 100.0 if deadline is None else BREAK_PERCENT)
    return Timeline(
        rows=tuple(_row(number, attempt, scale, end) for number, attempt in _numbered(view)),
        start=start,
        end=end,
        ended=ended,
        end_at=scale.at(end),
        deadline=deadline,
        deadline_at=None if deadline is None else scale.at(deadline) if near else 100.0,
        to_scale=near,
        moments=tuple(sorted(_moments(view, deadline), key=lambda moment: moment.time)),
    )


def _last(view: JobView, start: datetime) -> datetime:
    """The last moment that is known of a job that is over: its verdict may be younger than the end of its attempts."""
    known = [view.finished_at, *(attempt.finished_at for attempt in view.attempts)]
    return max((moment for moment in known if moment is not None), default=start)


def _numbered(view: JobView) -> Iterator[tuple[int, Attempt]]:
    return enumerate(view.attempts, start=1 + view.attempts_left_out)


def _row(number: int, attempt: Attempt, scale: _Scale, now: datetime) -> Row:
    """An attempt whose end nobody saw goes on to the picture's end only where it may still run."""
    over = attempt.state in ("succeeded", "failed")
    until = attempt.finished_at or (None if over else now)
    spans = tuple(_span(kind, begun, ended, scale) for kind, begun, ended in _parts(attempt, until))
    return Row(number, attempt.state, spans, None if attempt.finished_at is None else scale.at(attempt.finished_at))


def _parts(attempt: Attempt, until: datetime | None) -> Iterator[tuple[Kind, datetime, datetime]]:
    """Each part that was entered, from its beginning to the next one's. The times are of different clocks."""
    entered: list[tuple[Kind, datetime | None]] = [
        ("waiting", attempt.created_at),
        ("starting", attempt.bound_at),
        ("running", attempt.started_at),
    ]
    known = [(kind, moment) for kind, moment in entered if moment is not None]
    for index, (kind, moment) in enumerate(known):
        following = known[index + 1][1] if index + 1 < len(known) else until
        if following is not None:
            yield kind, moment, max(moment, following)


def _span(kind: Kind, begun: datetime, ended: datetime, scale: _Scale) -> Span:
    left = min(scale.at(begun), scale.width - SLIVER_PERCENT)
    width = max(scale.at(ended) - left, SLIVER_PERCENT)
    return Span(kind, round(left, 2), round(width, 2), (ended - begun).total_seconds())


def _moments(view: JobView, deadline: datetime | None) -> Iterator[Moment]:
    if view.created_at is not None:
        yield Moment(view.created_at, "accepted")
    several = view.attempts_left_out + len(view.attempts) > 1
    for number, attempt in _numbered(view):
        yield from _moments_of(attempt, f"attempt {number}: " if several else "")
    for condition in view.conditions:
        if condition.since is not None:
            yield Moment(condition.since, f"waiting: {condition.code}")
    if view.finished_at is not None:
        yield Moment(view.finished_at, f"over: {view.state}" + (f", {view.failure.code}" if view.failure else ""))
    if deadline is not None:
        yield Moment(deadline, "deadline")


def _moments_of(attempt: Attempt, prefix: str) -> Iterator[Moment]:
    if attempt.bound_at is not None:
        yield Moment(attempt.bound_at, f"{prefix}bound to node {attempt.node}")
    elif attempt.created_at is not None:
        yield Moment(attempt.created_at, f"{prefix}pod created")
    if attempt.started_at is not None:
        yield Moment(attempt.started_at, f"{prefix}started")
    if attempt.finished_at is not None:
        began = attempt.started_at
        ran = f" after {duration((attempt.finished_at - began).total_seconds())}" if began else ""
        yield Moment(attempt.finished_at, f"{prefix}ended{ran}, {_how(attempt)}")


def _how(attempt: Attempt) -> str:
    """`exit code 0`, `killed by SIGKILL (OOMKilled)`."""
    how = f"killed by {attempt.signal}" if attempt.signal else None
    if how is None and attempt.exit_code is not None:
        how = f"exit code {attempt.exit_code}"
    reason = f" ({attempt.reason})" if attempt.reason not in (None, "Error", "Completed") else ""
    return (how or attempt.state) + reason
