"""Commands on jobs that exist: ls, status, wait."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from runway.cli.context import open_session
from runway.cli.exits import Exit
from runway.cli.interrupts import finish, interruptible
from runway.cli.options import DEFAULT_URL, As, JobId, Tenant, Url, WaitTimeout
from runway.cli.output import Output, emit
from runway.cli.text import show_duration
from runway.cli.views.job_views import rows_of
from runway.cli.views.progress import progress
from runway.cli.views.status_view import show_job
from runway.cli.wait import WaitTimedOut, wait_until
from runway.cli.wire import is_over


class State(StrEnum):
    """The states of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


def ls(
    context: typer.Context,
    state: Annotated[
        list[State] | None, typer.Option("--state", help="Only jobs in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, metavar="COUNT", help="At most so many.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="All that Runway knows, however many.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """List jobs, newest first. COST is what a job came to, or `max` and what it can come to."""
    with open_session(context, url, tenant, output) as session:
        page = session.client.jobs(state or (), None if every else limit)
        heads, rows = rows_of(page["jobs"], session.edges.now(), wide=output is Output.WIDE, tenants=tenant is None)
        names = [view["id"] for view in page["jobs"]]
        emit(page, output, names=names, table=lambda: session.screen.table(heads, rows))
        if page["next_cursor"] is not None:
            session.screen.err(f"There are more than these {len(rows)}; --limit or --all shows them.")
        elif not page["jobs"] and output.for_people:
            session.screen.err("No jobs.")


def status(
    context: typer.Context, job_id: JobId, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None
) -> None:
    """Show all that is known of a job.

    Why it failed and what to do, what it waits for, what happened when, its attempts, what it used and costs.
    """
    with open_session(context, url, tenant, output) as session:
        view = session.client.job(job_id)
        now = session.edges.now()
        emit(view, output, names=[view["id"]], table=lambda: show_job(session.screen, view, now))


def wait(
    context: typer.Context,
    job_id: JobId,
    timeout: WaitTimeout = None,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Wait until a job is over, and exit with what became of it.

    Meanwhile stderr shows its state, why it waits, its time and cost: live on a terminal, elsewhere a line for each
    change. An outage of Runway is borne for five minutes.
    """
    with open_session(context, url, tenant, output) as session, interruptible(session, job_id):
        try:
            with progress(session) as tell:
                view = wait_until(session, job_id, is_over, tell=tell, timeout=timeout)
        except WaitTimedOut as gave_up:
            known = f"is {gave_up.view['state']} and goes on" if gave_up.view else "was not seen"
            session.screen.err(f"Gave up after {show_duration(timeout or 0)}: {job_id} {known}.", style="yellow")
            raise typer.Exit(Exit.TIMED_OUT) from gave_up
        finish(view, output, session.screen.out)
