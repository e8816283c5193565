"""The page of a job beyond its view: log, usage, picture of the timeline.

A page costs at most one log read and one Prometheus query, at the same time, each with a timeout. A node or Prometheus
that does not answer delays the page by two seconds, and the page names it. The timeline has positions in percent:

1. It spans the time from acceptance to the end of the job, or to now.
2. A near deadline is to scale. A far one is at the right edge, past a break in the axis: to the scale of an hour, a job
   of one second has no width.
3. Each attempt is a row: waiting for a node, starting on it (image, container), running. Each part has a minimum width.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from runway.api.dependencies import AppState
from runway.errors import ClusterError, NotFound, PublicError, Rejected
from runway.jobs.log_excerpt import RAW_BYTES
from runway.jobs.models import Attempt, JobView, Usage
from runway.jobs.timeline import Moment, deadline_of, moments_of
from runway.jobs.usage import findings
from runway.kube.log_tail import read_tail
from runway.kube.objects import Pod
from runway.services.job_usage import UsageReport, report_usage
from runway.services.log_start import first_line_time, missing_start
from runway.state.job_store import JobKey
from runway.text import show_bytes, show_ratio

LOG_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of the last attempt's log. `note` names its source, or why there is none; `cut`: there is more."""

    text: str
    cut: bool
    note: str


@dataclass(frozen=True, slots=True)
class FigureView:
    """One figure of usage. `value` is None where it is unknown; `ratio` is its share of the limit."""

    name: str
    value: str | None
    of: str | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class UsageSection:
    """The usage of a job: figures, their source, and their meaning."""

    figures: tuple[FigureView, ...]
    source: str
    findings: tuple[str, ...]


async def log_end(use: AppState, key: JobKey, view: JobView, scope: str | None) -> LogEnd:
    """Read the last lines of a job's log. It never raises: a failure must not hide the rest of the page.

    The read uses one of the streams of the caller's scope, as a log stream of the API does.
    """
    attempt = view.attempts[-1] if view.attempts else None
    if attempt is None or not _has_started(attempt):
        return LogEnd("", False, "No container has started, so there is no log.")
    pod = pod_with_log(use, key, view)
    if pod is None:
        return _stored_excerpt(view, "its pod is deleted")
    try:
        use.limits.open_stream(scope)
    except PublicError as error:
        return LogEnd("", False, f"Not read: {error.detail}. Reload the page to retry.")
    try:
        async with asyncio.timeout(LOG_SECONDS):
            end = await read_tail(use.kubernetes, pod, RAW_BYTES)
            warning = missing_start(pod, await first_line_time(use.kubernetes, pod), use.now())
    except NotFound:
        return _stored_excerpt(view, "its pod is deleted")
    except Rejected as error:
        return LogEnd("", False, f"Unavailable: {error}.")
    except TimeoutError:
        return _stored_excerpt(view, f"the node did not answer within {LOG_SECONDS:g} s")
    except (ClusterError, PublicError) as error:
        return _stored_excerpt(view, str(error))
    finally:
        use.limits.close_stream(scope)
    note = f" Note: {warning}." if warning else ""
    text = end.log.decode("utf-8", "replace")
    if not text:
        return LogEnd("", False, ("The log is empty." if view.is_finished else "The log is empty so far.") + note)
    return LogEnd(text, end.cut, f"The last lines of pod {attempt.pod}.{note}")


def pod_with_log(use: AppState, key: JobKey, view: JobView) -> Pod | None:
    """Return the pod of the last attempt; None if its container has not started, or the pod is deleted."""
    last = view.attempts[-1] if view.attempts else None
    if last is None or not _has_started(last) or last.pod in use.cluster.deleted_pods(key):
        return None
    return next((pod for pod in use.cluster.attempts(key) if pod.metadata.name == last.pod), None)


def _has_started(attempt: Attempt) -> bool:
    return attempt.started_at is not None or attempt.exit_code is not None


async def usage_shown(use: AppState, key: JobKey, view: JobView) -> UsageSection:
    """Return the usage of a job. Raises JobNotFound."""
    record = use.cluster.record(key)
    report = await report_usage(use.cluster, use.prometheus, key, record.usage if record else None, now=use.now)
    gpus = view.spec.resources.gpu if view.spec else 0
    ran = any(_has_started(attempt) for attempt in view.attempts)
    source = _source(report) if ran else "No container has started, so there is no usage."
    return UsageSection(figures_of(report.usage, gpus), source, findings(report.usage))


def figures_of(usage: Usage, gpus: int) -> tuple[FigureView, ...]:
    """Return the figures with their limits. Only a job with GPUs has a GPU utilisation."""
    cpu, cpu_limit = usage.cpu_cores, usage.cpu_limit_cores
    peak, memory_limit = usage.memory_peak_bytes, usage.memory_limit_bytes
    figures = [
        FigureView(
            "CPU (average)",
            None if cpu is None else _show_cpu(cpu),
            None if cpu_limit is None else f"{cpu_limit:g} CPU",
            None if cpu is None or not cpu_limit else min(cpu / cpu_limit, 1.0),
        ),
        FigureView(
            "CPU throttled",
            None if usage.throttled_ratio is None else show_ratio(usage.throttled_ratio),
            f"{usage.cpu_periods} periods" if usage.cpu_periods else None,
            usage.throttled_ratio,
        ),
        FigureView("Memory (last sample)", *_memory(usage.memory_bytes, memory_limit)),
        FigureView("Memory (peak)", *_memory(peak, memory_limit)),
    ]
    if gpus:
        utilisation = usage.gpu_utilisation
        shown = None if utilisation is None else show_ratio(utilisation)
        figures.append(FigureView("GPU (average)", shown, f"{gpus} GPU", utilisation))
    return tuple(figures)


def _show_cpu(cores: float) -> str:
    """Show CPU to a hundredth; a positive amount is never 0."""
    return "<0.01" if 0 < cores < 0.01 else f"{round(cores, 2):g}"


def _memory(amount: int | None, limit: int | None) -> tuple[str | None, str | None, float | None]:
    return (
        None if amount is None else show_bytes(amount),
        None if limit is None else show_bytes(limit),
        None if amount is None or not limit else min(amount / limit, 1.0),
    )


def _source(report: UsageReport) -> str:
    if report.problem:
        return f"Prometheus did not answer: {report.problem}."
    if report.source is None:
        return "No Prometheus is configured, so usage is unknown."
    if report.source == "kept":
        return "Stored in the record of the job."
    if not report.usage.measured:
        return "Prometheus has no sample; a job of a few seconds may get none."
    return "From Prometheus; a few seconds old."


def _stored_excerpt(view: JobView, why: str) -> LogEnd:
    """Return the stored excerpt of a log that cannot be read."""
    if view.excerpt is None:
        return LogEnd("", False, f"Unavailable: {why}, and there is no stored excerpt.")
    return LogEnd(view.excerpt.text, view.excerpt.truncated, f"The stored excerpt: {why}.")


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
class TimelineRow:
    """One attempt. `end` is the position of its end, None while it runs or where its end is unknown."""

    number: int
    state: str
    spans: tuple[Span, ...]
    end: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture. Positions are in percent; `to_scale` is about the deadline."""

    rows: tuple[TimelineRow, ...]
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


def _row(number: int, attempt: Attempt, scale: _Scale, now: datetime) -> TimelineRow:
    """Return an attempt. One without a known end continues to the edge only where it may still run."""
    ended = attempt.state in ("succeeded", "failed")
    until = attempt.finished_at or (None if ended else now)
    spans = tuple(_span(kind, start, end, scale) for kind, start, end in _parts(attempt, until))
    return TimelineRow(
        number, attempt.state, spans, None if attempt.finished_at is None else scale.at(attempt.finished_at)
    )


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
