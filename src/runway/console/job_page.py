"""What a job's page shows beyond its view: the end of its log, and its usage against its limits.

At most one log read and one Prometheus query a page, both at once, each with a time-out: a node or a Prometheus that
does not answer delays the page by two seconds, and is named on it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from runway.api.app_state import AppState
from runway.console.filters import percent
from runway.errors import ClusterError, NotFound, PublicError, Rejected
from runway.jobs.diagnosis.attempts import Attempt
from runway.jobs.record import record_of
from runway.jobs.usage import Usage, findings
from runway.jobs.view import JobView
from runway.kube.log_tail import read_tail
from runway.services.job_usage import UsageReport, report_usage
from runway.state.job_store import JobKey
from runway.text import bytes_in_words

LOG_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of the last attempt's log. `note`: where the text is from, or why there is none; `cut`: there is more."""

    text: str
    cut: bool
    note: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of usage. `value` is None where it is unknown, which is not 0; `ratio` is its part of the limit."""

    name: str
    value: str | None
    of: str | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class UsageShown:
    """Usage as the page shows it: figures, where they are from, and what they mean."""

    figures: tuple[Figure, ...]
    source: str
    findings: tuple[str, ...]


async def log_end(use: AppState, key: JobKey, view: JobView, scope: str | None) -> LogEnd:
    """The last lines of a job's log, as far as they can be had at once. It never raises: the rest of the page stands.

    The read holds one of the streams of the caller's scope, as a log stream of the API would.
    """
    attempt = view.attempts[-1] if view.attempts else None
    if attempt is None or not _has_started(attempt):
        return LogEnd("", False, "No container has started, so there is no log.")
    if attempt.pod in use.observer.deleted_pods(key):
        return _kept(view, "its pod is gone")
    try:
        use.limits.open_stream(scope)
    except PublicError as error:
        return LogEnd("", False, f"Not read: {error.detail}. Reload the page to try again.")
    try:
        async with asyncio.timeout(LOG_SECONDS):
            end = await read_tail(use.kubernetes, key.namespace, attempt.pod)
    except NotFound:
        return _kept(view, "its pod is gone")
    except Rejected as error:
        return LogEnd("", False, f"Not to be had: {error}.")
    except TimeoutError:
        return _kept(view, f"the node did not answer within {LOG_SECONDS:g} s")
    except (ClusterError, PublicError) as error:
        return _kept(view, str(error))
    finally:
        use.limits.close_stream(scope)
    text = end.log.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        return LogEnd("", False, "Nothing was written." if view.state.is_finished else "Nothing was written yet.")
    return LogEnd(text, end.cut, f"The last lines of pod {attempt.pod}.")


async def usage_shown(use: AppState, key: JobKey, view: JobView) -> UsageShown:
    """What the job used of what it was given. Raises JobNotFound."""
    job = use.observer.job(key)
    record = record_of(job) if job else None
    report = await report_usage(use.observer, use.prometheus, key, record.usage if record else None, now=use.now)
    gpus = view.spec.resources.gpu if view.spec else 0
    return UsageShown(figures_of(report.usage, gpus), _source(report), findings(report.usage))


def figures_of(usage: Usage, gpus: int) -> tuple[Figure, ...]:
    """The figures with their limits. GPU utilisation is one only for a job that has GPUs."""
    cpu, cpu_limit = usage.cpu_cores, usage.cpu_limit_cores
    peak, memory_limit = usage.memory_peak_bytes, usage.memory_limit_bytes
    figures = [
        Figure(
            "CPU, mean",
            None if cpu is None else f"{cpu:.3g}",
            None if cpu_limit is None else f"{cpu_limit:g} CPU",
            None if cpu is None or not cpu_limit else min(cpu / cpu_limit, 1.0),
        ),
        Figure(
            "CPU periods throttled",
            None if usage.throttled_ratio is None else percent(usage.throttled_ratio),
            None if usage.cpu_periods is None else f"{usage.cpu_periods} periods",
            usage.throttled_ratio,
        ),
        Figure("Memory, last", *_memory(usage.memory_bytes, memory_limit)),
        Figure("Memory, peak", *_memory(peak, memory_limit)),
    ]
    if gpus:
        utilisation = usage.gpu_utilisation
        shown = None if utilisation is None else percent(utilisation)
        figures.append(Figure("GPU, mean", shown, f"{gpus} GPU", utilisation))
    return tuple(figures)


def _memory(amount: int | None, limit: int | None) -> tuple[str | None, str | None, float | None]:
    return (
        None if amount is None else bytes_in_words(amount),
        None if limit is None else bytes_in_words(limit),
        None if amount is None or not limit else min(amount / limit, 1.0),
    )


def _source(report: UsageReport) -> str:
    if report.problem:
        return f"Prometheus gave no answer: {report.problem}."
    if report.source is None:
        return "No Prometheus is configured, so usage is unknown."
    if report.source == "kept":
        return "Kept with the job's record when it ended."
    if not report.usage.measured:
        return "Prometheus has no sample yet; a job shorter than a few seconds may get none."
    return "From Prometheus; a few seconds old."


def _has_started(attempt: Attempt) -> bool:
    return attempt.started_at is not None or attempt.exit_code is not None


def _kept(view: JobView, why: str) -> LogEnd:
    """What was kept of the log, where it cannot be read any more."""
    if view.excerpt is None:
        return LogEnd("", False, f"Not to be had: {why}, and nothing was kept.")
    return LogEnd(view.excerpt.text, view.excerpt.truncated, f"What was kept of the last lines: {why}.")
