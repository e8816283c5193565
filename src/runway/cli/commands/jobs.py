"""Commands on jobs that exist: `runway ls`, `status`, `wait` and `cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from runway.cli.client import Answer, RequestFailed
from runway.cli.context import Exit, Session, exit_for, open_session
from runway.cli.options import DEFAULT_URL, As, JobId, JobIds, Tenant, Url, duration_option
from runway.cli.output import Output, emit, show_state
from runway.cli.views.job_views import rows_of, show_job
from runway.cli.views.problems import show_problem
from runway.cli.views.progress import progress
from runway.cli.wait import WaitTimedOut, finish, interruptible, wait_until
from runway.jobs.models import JobState, JobView
from runway.text import escape, show_duration


def ls(
    context: typer.Context,
    state: Annotated[list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="COUNT", help="Maximum number of jobs.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="List all jobs.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """List jobs, newest first. COST is the actual cost of a finished job, or `max` and the ceiling of an active one."""
    with open_session(context, url, tenant, output) as session:
        page = session.client.jobs(state or (), None if every else limit)
        jobs = page.value.jobs
        heads, rows = rows_of(jobs, session.environment.now(), wide=output is Output.WIDE, tenants=tenant is None)
        emit(page.document, output, names=[job.id for job in jobs], table=lambda: session.screen.table(heads, rows))
        if page.value.next_cursor is not None:
            session.screen.err(f"More than {len(jobs)} jobs match; raise --limit or use --all.")
        elif not jobs and output.for_people:
            session.screen.err("No jobs.")


def status(
    context: typer.Context, job_id: JobId, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None
) -> None:
    """Show one job in full.

    The cause of a failure with a hint, why a job waits, its timeline, its attempts, its usage and its cost.
    """
    with open_session(context, url, tenant, output) as session:
        job = session.client.job(job_id)
        now = session.environment.now()
        emit(job.document, output, names=[job.value.id], table=lambda: show_job(session.screen, job.value, now))


def wait(
    context: typer.Context,
    job_id: JobId,
    timeout: Annotated[int | None, duration_option("Stop waiting after this time; the job continues.")] = None,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Wait until a job is finished, and exit with its outcome.

    Meanwhile stderr shows its state, why it waits, its time and cost: live on a terminal, elsewhere a line for each
    change. An outage of Runway is retried for five minutes.
    """
    with open_session(context, url, tenant, output) as session, interruptible(session, job_id):
        try:
            with progress(session) as show:
                job = wait_until(session, job_id, lambda view: view.is_finished, show=show, timeout=timeout)
        except WaitTimedOut as expired:
            known = f"is still {expired.view.state}" if expired.view else "was not seen"
            session.screen.err(f"Timed out after {show_duration(timeout or 0)}: {job_id} {known}.", style="yellow")
            raise typer.Exit(Exit.TIMED_OUT) from expired
        finish(job, output, session.screen.out)


def cancel(
    context: typer.Context,
    job_ids: JobIds,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Cancel without confirmation.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Cancel jobs: SIGTERM, their grace period, SIGKILL.

    On a terminal it asks for confirmation; elsewhere -y is required. A failure does not stop the other cancellations.
    With -o json or yaml the result is {"jobs": [...], "problems": [...]}. --tenant or RUNWAY_TENANT must name the
    tenant of the jobs.
    """
    if not tenant:
        raise typer.BadParameter("cancel requires the tenant of the jobs", param_hint="--tenant / RUNWAY_TENANT")
    with open_session(context, url, tenant, output) as session:
        if not yes:
            _confirm(session, job_ids)
        jobs: list[Answer[JobView]] = []
        failed: list[tuple[str, RequestFailed]] = []
        for job_id in job_ids:
            try:
                jobs.append(session.client.cancel(job_id))
            except RequestFailed as error:
                failed.append((job_id, error))
        problems = [{"id": job_id, **error.problem} for job_id, error in failed]
        document = {"jobs": [job.document for job in jobs], "problems": problems}
        views = [job.value for job in jobs]
        emit(document, output, names=[view.id for view in views], table=lambda: _show_cancelled(session, views))
        if output not in (Output.JSON, Output.YAML):
            for job_id, failure in failed:
                session.screen.err(f"{job_id} was not cancelled:")
                show_problem(session.screen, failure, url)
        if failed:
            raise typer.Exit(max(exit_for(failure) for _, failure in failed))


def _confirm(session: Session, job_ids: list[str]) -> None:
    if not session.environment.at_terminal():
        session.screen.err("Error: not a terminal; use -y to cancel without confirmation", style="bold red")
        raise typer.Exit(Exit.USAGE)
    views = [session.client.job(job_id).value for job_id in job_ids]
    for view in views:
        session.screen.err(f"  {view.id}", view.name or "", show_state(view.state), f"of {view.tenant}")
    jobs = f"job {escape(views[0].id)}" if len(views) == 1 else f"these {len(views)} jobs"
    if not typer.confirm(f"Cancel {jobs}?", err=True):
        raise typer.Exit(Exit.REJECTED)


def _show_cancelled(session: Session, views: list[JobView]) -> None:
    for view in views:
        session.screen.out(view.id, "was already" if view.is_finished else "is", show_state(view.state))
