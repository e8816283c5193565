"""`runway top`: what runs now and what it uses of what it was given, again and again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from runway.cli.client import RequestFailed
from runway.cli.context import Session, open_session
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, emit
from runway.cli.text import safe
from runway.cli.views.top_view import Frame, job_lines, quota_lines
from runway.cli.wait import Backoff
from runway.cli.wire import JobView, Usage

USAGE_REQUESTS: Final = 10
"""So many jobs are asked for their usage each time, those first whose figures are oldest."""
USAGE_REQUESTS_ONCE: Final = 30
JOBS: Final = 200
LIVE_STATES: Final = ("running", "cancelling", "pending")
ENDING_KEYS: Final = ("q", "Q")


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=1, max=3600, metavar="SECONDS", help="Time between two looks.")
    ] = 3,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Show quota and the jobs that run or wait, with what they use of their limits; q or Ctrl-C ends it.

    Without a terminal, or with -o json, yaml or name, it prints once. What is not known is shown as unknown.
    """
    with open_session(context, url, tenant, output) as session:
        live = output.for_people and session.screen.stdout.is_terminal and session.edges.at_terminal()
        if live and not once:
            try:
                _watch(session, every)
            except KeyboardInterrupt:
                return
        else:
            frame = Poller(session).poll(USAGE_REQUESTS_ONCE)
            document = {"tenants": frame.tenants, "jobs": frame.jobs, "usage": frame.usage}
            emit(document, output, names=[view["id"] for view in frame.jobs], table=lambda: _print(session, frame))


class Poller:
    """Looks at Runway, and remembers what jobs were last seen to use."""

    def __init__(self, session: Session) -> None:
        self._client, self._edges = session.client, session.edges
        self._usage: dict[str, Usage | None] = {}
        self._asked: dict[str, int] = {}
        self._requests = 0

    def poll(self, usage_requests: int) -> Frame:
        """Quota, jobs and usage as they are now. Raises RequestFailed; usage that cannot be had is None."""
        tenants = self._client.quota()["tenants"]
        page = self._client.jobs(LIVE_STATES, JOBS)
        running = [view for view in page["jobs"] if view["state"] != "pending"]
        waiting = [view for view in page["jobs"] if view["state"] == "pending"]
        self._refresh(running, usage_requests)
        return Frame(
            at=self._edges.now(),
            tenants=tenants,
            jobs=[*running, *waiting],
            more=page["next_cursor"] is not None,
            usage={view["id"]: self._usage.get(view["id"]) for view in running},
        )

    def _refresh(self, running: list[JobView], count: int) -> None:
        ids = [view["id"] for view in running]
        self._usage = {job_id: usage for job_id, usage in self._usage.items() if job_id in ids}
        self._asked = {job_id: at for job_id, at in self._asked.items() if job_id in ids}
        for job_id in sorted(ids, key=lambda job_id: self._asked.get(job_id, 0))[:count]:
            self._requests += 1
            self._asked[job_id] = self._requests
            try:
                self._usage[job_id] = self._client.usage(job_id)
            except RequestFailed:
                self._usage[job_id] = None


def _watch(session: Session, every: float) -> None:
    """Look again and again until a key ends it. An outage is told, with the last figures left in place."""
    source, backoff, frame = Poller(session), Backoff(session.edges.random), None
    console = session.screen.stdout
    with session.edges.keys() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            trouble, pause = None, every
            try:
                frame = source.poll(USAGE_REQUESTS)
                backoff.reset()
            except RequestFailed as error:
                if frame is None or not error.transient:
                    raise
                trouble, pause = str(error), max(every, backoff.next(), float(error.retry_after or 0))
            live.update(Group(*_lines(session, frame, every, trouble)), refresh=True)
            until = session.edges.monotonic() + pause
            while (left := until - session.edges.monotonic()) > 0:
                if read_key(left) in ENDING_KEYS:
                    return


def _lines(session: Session, frame: Frame, every: float, trouble: str | None) -> list[Text]:
    screen = session.screen
    head = _head(session, frame.at, f"every {every:g} s, q ends")
    if trouble is not None:
        seconds = (session.edges.now() - frame.at).total_seconds()
        head = Text(f"{safe(trouble)} (figures are {seconds:.0f} s old)", "bold red")
    lines = [head, *quota_lines(frame, screen.width, screen.stdout.encoding), Text()]
    lines += job_lines(
        frame, screen.width, screen.stdout.height - len(lines) - 1, several=session.client.tenant is None
    )
    for line in lines:
        line.truncate(screen.stdout.width, overflow="ellipsis")
    return lines


def _print(session: Session, frame: Frame) -> None:
    screen = session.screen
    screen.out(_head(session, frame.at, ""))
    for line in quota_lines(frame, screen.width, screen.stdout.encoding):
        screen.out(line)
    screen.out()
    for line in job_lines(frame, screen.width, None, several=session.client.tenant is None):
        screen.out(line)


def _head(session: Session, at: datetime, said: str) -> Text:
    tenant = f"tenant {session.client.tenant}" if session.client.tenant else "all tenants"
    parts = (f"Runway at {safe(session.client.url)}", tenant, f"{at:%H:%M:%S} UTC", said)
    return Text(", ".join(part for part in parts if part), "bold")
