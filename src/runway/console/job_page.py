"""The page of a job beyond its view: the end of its log, and its usage against its limits.

A page costs at most one log read and one Prometheus query, at the same time, each with a timeout. A node or Prometheus
that does not answer delays the page by two seconds, and the page names it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from runway.api.dependencies import AppState
from runway.errors import ClusterError, NotFound, PublicError, Rejected
from runway.jobs.log_excerpt import RAW_BYTES
from runway.jobs.models import Attempt, JobView, Usage
from runway.jobs.record import record_of
from runway.jobs.usage import findings
from runway.kube.log_tail import read_tail
from runway.services.job_usage import UsageReport, report_usage
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
    if attempt.pod in use.cluster.deleted_pods(key):
        return _stored_excerpt(view, "its pod is deleted")
    try:
        use.limits.open_stream(scope)
    except PublicError as error:
        return LogEnd("", False, f"Not read: {error.detail}. Reload the page to retry.")
    try:
        async with asyncio.timeout(LOG_SECONDS):
            end = await read_tail(use.kubernetes, key.namespace, attempt.pod, RAW_BYTES)
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
    text = end.log.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        return LogEnd("", False, "The log is empty." if view.is_finished else "The log is empty so far.")
    return LogEnd(text, end.cut, f"The last lines of pod {attempt.pod}.")


async def usage_shown(use: AppState, key: JobKey, view: JobView) -> UsageSection:
    """Return the usage of a job. Raises JobNotFound."""
    job = use.cluster.job(key)
    record = record_of(job) if job else None
    report = await report_usage(use.cluster, use.prometheus, key, record.usage if record else None, now=use.now)
    gpus = view.spec.resources.gpu if view.spec else 0
    return UsageSection(figures_of(report.usage, gpus), _source(report), findings(report.usage))


def figures_of(usage: Usage, gpus: int) -> tuple[FigureView, ...]:
    """Return the figures with their limits. Only a job with GPUs has a GPU utilisation."""
    cpu, cpu_limit = usage.cpu_cores, usage.cpu_limit_cores
    peak, memory_limit = usage.memory_peak_bytes, usage.memory_limit_bytes
    figures = [
        FigureView(
            "CPU, mean",
            None if cpu is None else f"{cpu:.3g}",
            None if cpu_limit is None else f"{cpu_limit:g} CPU",
            None if cpu is None or not cpu_limit else min(cpu / cpu_limit, 1.0),
        ),
        FigureView(
            "CPU periods throttled",
            None if usage.throttled_ratio is None else show_ratio(usage.throttled_ratio),
            None if usage.cpu_periods is None else f"{usage.cpu_periods} periods",
            usage.throttled_ratio,
        ),
        FigureView("Memory, last", *_memory(usage.memory_bytes, memory_limit)),
        FigureView("Memory, peak", *_memory(peak, memory_limit)),
    ]
    if gpus:
        utilisation = usage.gpu_utilisation
        shown = None if utilisation is None else show_ratio(utilisation)
        figures.append(FigureView("GPU, mean", shown, f"{gpus} GPU", utilisation))
    return tuple(figures)


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


def _has_started(attempt: Attempt) -> bool:
    return attempt.started_at is not None or attempt.exit_code is not None


def _stored_excerpt(view: JobView, why: str) -> LogEnd:
    """Return the stored excerpt of a log that cannot be read."""
    if view.excerpt is None:
        return LogEnd("", False, f"Unavailable: {why}, and there is no stored excerpt.")
    return LogEnd(view.excerpt.text, view.excerpt.truncated, f"The stored excerpt: {why}.")
