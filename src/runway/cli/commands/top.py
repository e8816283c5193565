"""`runway top`: the active jobs and their usage, refreshed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from runway.api.models import TenantQuotaView
from runway.cli.client import Answer, RequestFailed
from runway.cli.context import Session, open_session
from runway.cli.live import REFRESH_SECONDS, can_refresh, refresh
from runway.cli.options import DEFAULT_URL, As, JobsToShow, Tenant, Url
from runway.cli.output import Output, emit, show_state
from runway.cli.resolve import find_job
from runway.cli.views.job_views import shown_ids
from runway.cli.views.tables import RESOURCES, Column, bar, columns, lay_out, resource_usage, show_amount
from runway.jobs.cost import cost_so_far
from runway.jobs.models import JobView, Usage
from runway.jobs.usage import MEMORY_RATIO, THROTTLED_RATIO
from runway.text import escape, show_between, show_bytes, show_ratio, show_usd

USAGE_REQUESTS: Final = 10  # Each refresh requests the usage of at most this many jobs, the oldest figures first.
USAGE_REQUESTS_ONCE: Final = 30
MAX_JOBS: Final = 200
ACTIVE_STATES: Final = ("running", "cancelling", "pending")
BAR_WIDTH: Final = 8
NARROW: Final = 100  # In fewer columns there are no bars.
UNKNOWN: Final = Text("unknown", "dim")

_JOBS: Final = [
    Column(title="JOB"),
    Column(title="NAME", shrink=True, least=10, drop_priority=4),
    Column(title="STATE", drop_priority=1),
    Column(title="AGE", right=True, drop_priority=6),
    Column(title="CPU", right=True),
    Column(title="THROTTLED", right=True),
    Column(title="MEMORY", right=True),
    Column(title="GPU", right=True, drop_priority=3),
    Column(title="USD", right=True, drop_priority=5),
    Column(title="WHY", shrink=True, drop_priority=7),
]
_TENANT: Final = Column(title="TENANT", drop_priority=2)


def top(
    context: typer.Context,
    jobs: JobsToShow = None,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    every: Annotated[
        float, typer.Option(min=1, max=3600, metavar="SECONDS", help="Refresh interval in seconds.")
    ] = REFRESH_SECONDS,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Show quota, and the usage of active jobs, refreshed.

    Arguments select jobs. q exits. Without a terminal, or with -o json, yaml or name, the command prints once. Unknown
    figures are shown as unknown.
    """
    with open_session(context, url, tenant, output) as session:
        poller = Poller(session, [find_job(session, job) for job in jobs or ()])
        if can_refresh(session, output) and not once:
            refresh(
                session,
                every,
                lambda: poller.poll(USAGE_REQUESTS)[0],
                lambda frame, outage: _lines(session, frame, every, outage),
            )
        else:
            frame, document = poller.poll(USAGE_REQUESTS_ONCE)
            emit(document, output, names=[view.id for view in frame.jobs], table=lambda: _print(session, frame))


@dataclass(frozen=True, slots=True)
class Frame:
    """The state at one time. `usage` has an entry for each running job, None where it is unknown."""

    at: datetime
    tenants: list[TenantQuotaView]
    jobs: list[JobView]
    more: bool
    usage: dict[str, Usage | None]


class Poller:
    """Polls Runway for these jobs, or for all active ones, and caches the usage of jobs."""

    def __init__(self, session: Session, job_ids: list[str]) -> None:
        self._job_ids = job_ids
        self._client, self._now = session.client, session.environment.now
        self._usage: dict[str, Answer[Usage] | None] = {}  # The oldest figures first.

    def poll(self, usage_requests: int) -> tuple[Frame, dict[str, object]]:
        """Return quota, jobs and usage, and the same as the server's documents. Raises RequestFailed."""
        quota = self._client.quota()
        jobs, more = self._jobs()
        views = [view for view, _ in jobs]
        running = [view.id for view in views if view.state in ("running", "cancelling")]
        self._refresh(running, usage_requests)
        usage = {job_id: self._usage.get(job_id) for job_id in running}
        figures = {job_id: answer.value if answer else None for job_id, answer in usage.items()}
        frame = Frame(self._now(), quota.value.tenants, views, more, figures)
        return frame, {
            "tenants": quota.document["tenants"],
            "jobs": [document for _, document in jobs],
            "usage": {job_id: answer.document if answer else None for job_id, answer in usage.items()},
        }

    def _jobs(self) -> tuple[list[tuple[JobView, Any]], bool]:
        """Return the jobs, each with its document, and whether more are active."""
        if self._job_ids:
            return [(job.value, job.document) for job in map(self._client.job, self._job_ids)], False
        page = self._client.jobs(ACTIVE_STATES, MAX_JOBS)
        # Running jobs first; both halves stay newest first.
        jobs = sorted(
            zip(page.value.jobs, page.document["jobs"], strict=True), key=lambda job: job[0].state == "pending"
        )
        return jobs, page.value.next_cursor is not None

    def _refresh(self, running: list[str], count: int) -> None:
        known = [job_id for job_id in self._usage if job_id in running]
        unknown = [job_id for job_id in running if job_id not in self._usage]
        self._usage = {job_id: self._usage[job_id] for job_id in known}
        for job_id in [*unknown, *known][:count]:
            self._usage.pop(job_id, None)
            try:
                self._usage[job_id] = self._client.usage(job_id)
            except RequestFailed:
                self._usage[job_id] = None


def _lines(session: Session, frame: Frame, every: float, outage: str | None) -> list[Text]:
    screen = session.screen
    head = _head(session, frame.at, f"every {every:g} s, q exits")
    if outage is not None:
        seconds = (session.environment.now() - frame.at).total_seconds()
        head = Text(f"{escape(outage)} (figures are {seconds:.0f} s old)", "bold red")
    lines = [head, *_quota_lines(frame, screen.width, screen.stdout.encoding), Text()]
    height = screen.stdout.height - len(lines) - 1
    lines += _job_lines(frame, screen.width, height, tenants=session.client.tenant is None)
    for line in lines:
        line.truncate(screen.stdout.width, overflow="ellipsis")
    return lines


def _print(session: Session, frame: Frame) -> None:
    screen = session.screen
    quota = _quota_lines(frame, screen.width, screen.stdout.encoding)
    jobs = _job_lines(frame, screen.width, None, tenants=session.client.tenant is None)
    for line in [_head(session, frame.at, ""), *quota, Text(), *jobs]:
        screen.out(line)


def _head(session: Session, at: datetime, note: str) -> Text:
    tenant = f"tenant {session.client.tenant}" if session.client.tenant else "all tenants"
    parts = (f"Runway at {escape(session.client.url)}", tenant, f"{at:%H:%M:%S} UTC", note)
    return Text(", ".join(part for part in parts if part), "bold")


def _quota_lines(frame: Frame, width: int | None, encoding: str) -> list[Text]:
    bars = width is None or width >= NARROW
    rows = [
        [quota.tenant, *(_quota(quota, resource, encoding, bars=bars) for resource in RESOURCES)]
        for quota in frame.tenants
    ]
    return lay_out(columns("TENANT", *map(str.upper, RESOURCES)), rows, width=width)


def _job_lines(frame: Frame, width: int | None, height: int | None, *, tenants: bool) -> list[Text]:
    """Return a line for each job, at most `height` lines; with `tenants` each line names the tenant."""
    if not frame.jobs:
        return [Text("No active jobs.", "dim")]
    ids = shown_ids(frame.jobs, width)
    heads, rows = list(_JOBS), [[job_id, *_job(view, frame)] for job_id, view in zip(ids, frame.jobs, strict=True)]
    if tenants:
        heads.insert(1, _TENANT)
        for row, view in zip(rows, frame.jobs, strict=True):
            row.insert(1, view.tenant)
    lines = lay_out(heads, rows, width=width)
    left_out = 0 if height is None else max(0, len(lines) - max(height - 1, 2))
    if not left_out and not frame.more:
        return lines
    more = f"{left_out} more" if left_out else "more"
    return [*lines[: len(lines) - left_out], Text(f"… {more}; `runway ls` lists them")]


def _quota(quota: TenantQuotaView, resource: str, encoding: str, *, bars: bool) -> Text:
    amounts = resource_usage(quota, resource)
    taken = amounts.used + amounts.reserved
    style = "" if taken < amounts.limit else "red" if amounts.limit else "dim"
    figures = Text(f"{show_amount(resource, taken)}/{show_amount(resource, amounts.limit)}", style)
    return bar(amounts, BAR_WIDTH, encoding).append(" ").append_text(figures) if bars else figures


def _job(view: JobView, frame: Frame) -> list[object]:
    spent = cost_so_far(view, frame.at)
    figures: list[object] = [""] * 4
    if view.id in frame.usage:
        figures = _usage(frame.usage[view.id] or Usage(), view.spec.resources.gpu if view.spec else 0)
    return [
        view.name,
        show_state(view.state),
        show_between(view.created_at, frame.at),
        *figures,
        None if spent is None else show_usd(spent),
        ", ".join(condition.code for condition in view.conditions),
    ]


def _usage(usage: Usage, gpus: int) -> list[object]:
    """Return CPU, throttling, memory and GPU of a running job."""
    cores, limit, throttled = usage.cpu_cores, usage.cpu_limit_cores, usage.throttled_ratio
    gpu = UNKNOWN if usage.gpu_utilisation is None else Text(show_ratio(usage.gpu_utilisation))
    return [
        UNKNOWN if cores is None else f"{cores:.2f}{'' if limit is None else f'/{limit:g}'}",
        UNKNOWN if throttled is None else Text(f"{throttled:.0%}", "red" if throttled >= THROTTLED_RATIO else ""),
        _memory(usage.memory_bytes, usage.memory_limit_bytes),
        Text(f"{gpus} ").append_text(gpu) if gpus else Text("-", "dim"),
    ]


def _memory(amount: int | None, limit: int | None) -> Text:
    if amount is None:
        return UNKNOWN
    style = "red" if limit and amount >= MEMORY_RATIO * limit else ""
    return Text(show_bytes(amount) + (f"/{show_bytes(limit)}" if limit else ""), style)
