"""`runway top`: the active jobs and their usage, refreshed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from runway.backoff import Backoff
from runway.cli.client import Answer, RequestFailed
from runway.cli.context import Session, open_session
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, emit
from runway.cli.views.top_view import Frame, job_lines, quota_lines
from runway.jobs.models import Usage
from runway.text import escape

USAGE_REQUESTS: Final = 10
"""Each refresh requests the usage of at most this many jobs, the oldest figures first."""
USAGE_REQUESTS_ONCE: Final = 30
MAX_JOBS: Final = 200
ACTIVE_STATES: Final = ("running", "cancelling", "pending")
QUIT_KEYS: Final = ("q", "Q")


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=1, max=3600, metavar="SECONDS", help="Time between two refreshes.")
    ] = 3,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Show quota and active jobs with their usage, refreshed.

    q or Ctrl-C exits. Without a terminal, or with -o json, yaml or name, the command prints once. Unknown figures are
    shown as unknown.
    """
    with open_session(context, url, tenant, output) as session:
        live = output.for_people and session.screen.stdout.is_terminal and session.environment.at_terminal()
        if live and not once:
            try:
                _watch(session, every)
            except KeyboardInterrupt:
                return
        else:
            frame, document = Poller(session).poll(USAGE_REQUESTS_ONCE)
            emit(document, output, names=[view.id for view in frame.jobs], table=lambda: _print(session, frame))


class Poller:
    """Polls Runway and caches the usage of jobs."""

    def __init__(self, session: Session) -> None:
        self._client, self._environment = session.client, session.environment
        self._usage: dict[str, Answer[Usage] | None] = {}
        self._requested_at: dict[str, int] = {}
        self._requests = 0

    def poll(self, usage_requests: int) -> tuple[Frame, dict[str, object]]:
        """Return quota, jobs and usage, and the same as the server's documents.

        Usage that cannot be read is None. Raises RequestFailed.
        """
        quota = self._client.quota()
        page = self._client.jobs(ACTIVE_STATES, MAX_JOBS)
        # Running jobs first; both halves stay newest first.
        jobs = sorted(
            zip(page.value.jobs, page.document["jobs"], strict=True), key=lambda job: job[0].state == "pending"
        )
        views = [view for view, _ in jobs]
        running = [view.id for view in views if view.state != "pending"]
        self._refresh(running, usage_requests)
        usage = {job_id: self._usage.get(job_id) for job_id in running}
        frame = Frame(
            at=self._environment.now(),
            tenants=quota.value.tenants,
            jobs=views,
            more=page.value.next_cursor is not None,
            usage={job_id: answer.value if answer else None for job_id, answer in usage.items()},
        )
        return frame, {
            "tenants": quota.document["tenants"],
            "jobs": [document for _, document in jobs],
            "usage": {job_id: answer.document if answer else None for job_id, answer in usage.items()},
        }

    def _refresh(self, running: list[str], count: int) -> None:
        self._usage = {job_id: usage for job_id, usage in self._usage.items() if job_id in running}
        self._requested_at = {job_id: at for job_id, at in self._requested_at.items() if job_id in running}
        for job_id in sorted(running, key=lambda job_id: self._requested_at.get(job_id, 0))[:count]:
            self._requests += 1
            self._requested_at[job_id] = self._requests
            try:
                self._usage[job_id] = self._client.usage(job_id)
            except RequestFailed:
                self._usage[job_id] = None


def _watch(session: Session, every: float) -> None:
    """Refresh until a key exits. Report an outage, and keep the last figures."""
    poller, backoff, frame = Poller(session), Backoff(session.environment.random), None
    console, monotonic = session.screen.stdout, session.environment.monotonic
    with session.environment.keys() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            outage, pause = None, every
            try:
                frame, _ = poller.poll(USAGE_REQUESTS)
                backoff.reset()
            except RequestFailed as error:
                if frame is None or not error.transient:
                    raise
                outage, pause = str(error), max(every, backoff.next(), float(error.retry_after or 0))
            live.update(Group(*_lines(session, frame, every, outage)), refresh=True)
            until = monotonic() + pause
            while (left := until - monotonic()) > 0:
                if read_key(left) in QUIT_KEYS:
                    return


def _lines(session: Session, frame: Frame, every: float, outage: str | None) -> list[Text]:
    screen = session.screen
    head = _head(session, frame.at, f"every {every:g} s, q exits")
    if outage is not None:
        seconds = (session.environment.now() - frame.at).total_seconds()
        head = Text(f"{escape(outage)} (figures are {seconds:.0f} s old)", "bold red")
    lines = [head, *quota_lines(frame, screen.width, screen.stdout.encoding), Text()]
    height = screen.stdout.height - len(lines) - 1
    lines += job_lines(frame, screen.width, height, tenants=session.client.tenant is None)
    for line in lines:
        line.truncate(screen.stdout.width, overflow="ellipsis")
    return lines


def _print(session: Session, frame: Frame) -> None:
    screen = session.screen
    screen.out(_head(session, frame.at, ""))
    for line in quota_lines(frame, screen.width, screen.stdout.encoding):
        screen.out(line)
    screen.out()
    for line in job_lines(frame, screen.width, None, tenants=session.client.tenant is None):
        screen.out(line)


def _head(session: Session, at: datetime, note: str) -> Text:
    tenant = f"tenant {session.client.tenant}" if session.client.tenant else "all tenants"
    parts = (f"Runway at {escape(session.client.url)}", tenant, f"{at:%H:%M:%S} UTC", note)
    return Text(", ".join(part for part in parts if part), "bold")
