"""The picture of a job's timeline: positions in percent of its width. Pure; the template draws it.

1. The picture spans the time from acceptance to the end of the job, or to now.
2. The deadline is to scale where it is near. Otherwise it is at the right edge, past a break in the axis: to the scale
   of a deadline of an hour, a job of one second has no width.
3. Each attempt is a row: waiting for a node, starting on it (image, container), running. Each part has a minimum width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from runway.jobs.models import Attempt, JobView
from runway.jobs.timeline import Moment, deadline_of, moments_of

Kind = Literal["waiting", "starting", "running"]

NEAR_DEADLINE: Final = 1.6
"""A deadline within this multiple of the job's time so far is drawn to scale."""
BREAK_PERCENT: Final = 86.0
"""The position of the break in the axis, if the deadline is not to scale."""
MIN_WIDTH_PERCENT: Final = 0.6
MIN_DURATION: Final = timedelta(seconds=1)
"""Kubernetes reports times in whole seconds: a job that began and ended within one second has a width too."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an attempt. `left` and `width` are in percent of the picture's width."""

    kind: Kind
    left: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt. `end` is the position of its end, None while it runs or where its end is unknown."""

    number: int
    state: str
    spans: tuple[Span, ...]
    end: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture. Positions are in percent; `to_scale` is about the deadline."""

    rows: tuple[Row, ...]
    start: datetime
    end: datetime
    finished: bool
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
    """Return the picture of a job until `now`; None where the time of its acceptance is unknown."""
    if view.created_at is None:
        return None
    start, finished = view.created_at, view.is_finished
    end = max(start + MIN_DURATION, _last_time(view, start) if finished else now)
    deadline = deadline_of(view)
    near = deadline is not None and deadline - start <= (end - start) * NEAR_DEADLINE
    if deadline is not None and near:
        scale = _Scale(start, (max(end, deadline) - start).total_seconds(), 100.0)
    else:
        scale = _Scale(start, (end - start).total_seconds(), 100.0 if deadline is None else BREAK_PERCENT)
    numbered = enumerate(view.attempts, start=1 + view.attempts_left_out)
    return Timeline(
        rows=tuple(_row(number, attempt, scale, end) for number, attempt in numbered),
        start=start,
        end=end,
        finished=finished,
        end_at=scale.at(end),
        deadline=deadline,
        deadline_at=None if deadline is None else scale.at(deadline) if near else 100.0,
        to_scale=near,
        moments=tuple(moments_of(view)),
    )


def _last_time(view: JobView, start: datetime) -> datetime:
    """Return the last known time of a finished job: its outcome may be later than the end of its attempts."""
    known = [view.finished_at, *(attempt.finished_at for attempt in view.attempts)]
    return max((moment for moment in known if moment is not None), default=start)


def _row(number: int, attempt: Attempt, scale: _Scale, now: datetime) -> Row:
    """Return an attempt. One without a known end continues to the edge only where it may still run."""
    ended = attempt.state in ("succeeded", "failed")
    until = attempt.finished_at or (None if ended else now)
    spans = tuple(_span(kind, start, end, scale) for kind, start, end in _parts(attempt, until))
    return Row(number, attempt.state, spans, None if attempt.finished_at is None else scale.at(attempt.finished_at))


def _parts(attempt: Attempt, until: datetime | None) -> Iterator[tuple[Kind, datetime, datetime]]:
    """Yield each part from its start to the start of the next one. The times come from different clocks."""
    starts: list[tuple[Kind, datetime | None]] = [
        ("waiting", attempt.created_at),
        ("starting", attempt.bound_at),
        ("running", attempt.started_at),
    ]
    known = [(kind, start) for kind, start in starts if start is not None]
    for index, (kind, start) in enumerate(known):
        end = known[index + 1][1] if index + 1 < len(known) else until
        if end is not None:
            yield kind, start, max(start, end)


def _span(kind: Kind, start: datetime, end: datetime, scale: _Scale) -> Span:
    left = min(scale.at(start), scale.width - MIN_WIDTH_PERCENT)
    width = max(scale.at(end) - left, MIN_WIDTH_PERCENT)
    return Span(kind, round(left, 2), round(width, 2), (end - start).total_seconds())
