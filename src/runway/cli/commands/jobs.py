"""Commands on jobs that exist: `runway ls`, `status`, `wait` and `cancel`."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Final

import typer
from rich.text import Text

from runway.api.models import JobList
from runway.cli.client import Answer, ApiError, RequestFailed
from runway.cli.context import Exit, Session, exit_code, exit_for, open_session
from runway.cli.live import REFRESH_SECONDS, can_refresh, refresh
from runway.cli.options import DEFAULT_URL, As, JobName, JobOrNewest, Jobs, JobsOrAll, Tenant, Url, duration_option
from runway.cli.output import Output, emit, show_state
from runway.cli.resolve import ACTIVE, find_job, find_job_to_cancel, newest_job
from runway.cli.views.job_views import rows_of, show_job, show_outcome
from runway.cli.views.problems import show_problem
from runway.cli.views.progress import progress
from runway.cli.views.tables import Column, lay_out
from runway.cli.wait import RetryBudget, WaitTimedOut, briefly, finish, interruptible, patiently, wait_until
from runway.jobs.models import JobState, JobView
from runway.text import escape, show_duration

MAX_CANCELLED: Final = 10_000
CONFIRM_SHOWN: Final = 20
MAX_SINCE_SECONDS: Final = 100 * 365 * 86_400
"""No job is older; the times of Python begin in year 1."""
STATES: Final = ", ".join(JobState)


def ls(
    context: typer.Context,
    state: Annotated[
        list[JobState] | None,
        typer.Option(metavar="STATE", help=f"Only jobs in this state; may be repeated: {STATES}."),
    ] = None,
    name: JobName = None,
    since: Annotated[int | None, duration_option("Only jobs accepted in this time: 90, 30m, 2h, 7d.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="COUNT", help="Maximum number of jobs.")
    ] = 50,
    every: Annotated[bool, typer.Option("--all", "-a", help="List all jobs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until q, on a terminal.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """List jobs, newest first. COST: actual cost, or `max` and the highest possible cost while the job is active."""
    with open_session(context, url, tenant, output) as session:

        def poll() -> Answer[JobList]:
            start = (
                None if since is None else session.environment.now() - timedelta(seconds=min(since, MAX_SINCE_SECONDS))
            )
            return session.client.jobs(state or (), None if every else limit, name=name, since=start)

        def table(page: Answer[JobList]) -> tuple[list[Column], list[list[object]]]:
            now, wide = session.environment.now(), output is Output.WIDE
            width = session.screen.width
            return rows_of(page.value.jobs, now, width=width, wide=wide, tenants=tenant is None)

        if watch and can_refresh(session, output):
            refresh(session, REFRESH_SECONDS, poll, lambda page, outage: _screenful(session, *table(page), outage))
            return
        page = briefly(session, poll)
        names = [job.id for job in page.value.jobs]
        emit(page.document, output, names=names, table=lambda: session.screen.table(*table(page)))
        if not output.for_people:
            return
        if page.value.next_cursor is not None:
            session.screen.err(f"Showing the first {len(names)}; use --limit or --all for more.")
        elif not names:
            session.screen.err("No jobs.")


def _screenful(session: Session, heads: list[Column], rows: list[list[object]], outage: str | None) -> list[Text]:
    """Return the newest rows that fit the terminal, below a line with the time or the error."""
    console = session.screen.stdout
    now = session.environment.now()
    head = Text(escape(outage), "bold red") if outage else Text(f"{now:%H:%M:%S} UTC, q exits", "dim")
    lines = [head, *lay_out(heads, rows, width=session.screen.width)]
    for line in lines:
        line.truncate(console.width, overflow="ellipsis")
    return lines[: max(console.height - 1, 2)]


def status(
    context: typer.Context,
    job: JobOrNewest = None,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Show one job in full.

    The cause of a failure with a hint, why a job waits, its timeline, its attempts, its usage and its cost.
    """
    with open_session(context, url, tenant, output) as session:
        job_id = briefly(session, lambda: newest_job(session) if job is None else find_job(session, job))
        view = briefly(session, lambda: session.client.job(job_id))
        now = session.environment.now()
        emit(view.document, output, names=[view.value.id], table=lambda: show_job(session.screen, view.value, now))


def wait(
    context: typer.Context,
    jobs: Jobs,
    timeout: Annotated[int | None, duration_option("Stop waiting after this time; the jobs continue.")] = None,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Wait until jobs are finished, and exit with their outcome.

    Of several jobs the first argument that did not succeed gives the exit code. Meanwhile stderr shows the job's state,
    why it waits, its time and cost: live on a terminal, elsewhere a line for each change. The command keeps retrying
    for five minutes if Runway is down. With -o json or yaml the result for several jobs is {"jobs": [...]}.
    """
    with open_session(context, url, tenant, output) as session:
        job_ids = list(dict.fromkeys(patiently(session, lambda: [find_job(session, job) for job in jobs])))
        with interruptible(session, *job_ids):
            finished, codes = _wait_for_all(session, job_ids, timeout)
        if len(job_ids) == 1 and finished:
            finish(finished[0], output, session.screen.out)
        if finished:
            emit(
                {"jobs": [job.document for job in finished]},
                output,
                names=[job.value.id for job in finished],
                table=lambda: _show_outcomes(session, finished),
            )
        raise typer.Exit(next((code for code in codes if code != Exit.OK), Exit.OK))


def _show_outcomes(session: Session, jobs: list[Answer[JobView]]) -> None:
    for job in jobs:
        show_outcome(session.screen.out, job.value)


def _wait_for_all(
    session: Session, job_ids: list[str], timeout: float | None
) -> tuple[list[Answer[JobView]], list[int]]:
    """Wait for one job after the other. Return those that finished in time, and the exit code of each job."""
    monotonic = session.environment.monotonic
    deadline = None if timeout is None else monotonic() + timeout
    finished, codes = list[Answer[JobView]](), list[int]()
    for job_id in job_ids:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            with progress(session) as show:
                job = wait_until(session, job_id, lambda view: view.is_finished, show=show, timeout=left)
        except WaitTimedOut as expired:
            known = f"is still {expired.view.state}" if expired.view else "was not seen"
            after = show_duration(timeout or 0)
            session.screen.err(f"Stopped waiting after {after}; {job_id} {known}.", style="yellow")
            codes.append(Exit.TIMED_OUT)
        except ApiError as error:
            if error.code != "job_not_found" or len(job_ids) == 1:
                raise
            session.screen.err(f"{job_id}: {error}", style="bold red")
            codes.append(exit_for(error))
        else:
            finished.append(job)
            codes.append(exit_code(job.value))
    return finished, codes


def cancel(
    context: typer.Context,
    jobs: JobsOrAll = None,
    every: Annotated[bool, typer.Option("--all", help="Cancel all unfinished jobs of the tenant.")] = False,
    state: Annotated[
        list[JobState] | None,
        typer.Option(metavar="STATE", help="Cancel all jobs in this state: pending, running or cancelling."),
    ] = None,
    name: JobName = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Cancel without confirmation.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Cancel jobs: SIGTERM, their grace period, SIGKILL.

    --state and --name add up: `--state pending --name train` cancels the pending jobs of that name. On a terminal the
    command asks for confirmation; elsewhere -y is required. A failure does not stop the other cancellations. With -o
    json or yaml the result is {"jobs": [...], "problems": [...]}. --tenant or RUNWAY_TENANT must name the tenant.
    """
    if not tenant:
        raise typer.BadParameter("cancel requires the tenant of the jobs", param_hint="--tenant / RUNWAY_TENANT")
    selects = every or bool(state) or name is not None
    if bool(jobs) == selects:
        raise typer.BadParameter("name jobs, or select them with --all, --state and --name")
    if state and (final := [each for each in state if each.is_finished]):
        raise typer.BadParameter(f"{final[0]} jobs are finished", param_hint="--state")
    with open_session(context, url, tenant, output) as session:
        if not yes and not session.environment.at_terminal():
            session.screen.err("Error: not a terminal: pass -y to confirm", style="bold red")
            raise typer.Exit(Exit.USAGE)
        views: list[JobView] = []
        failed: list[tuple[str, RequestFailed]] = []
        if selects:
            views = briefly(session, lambda: session.client.jobs(state or ACTIVE, MAX_CANCELLED, name=name)).value.jobs
            job_ids = [view.id for view in views]
        else:
            job_ids, failed = _found(session, jobs or [])
        if selects and not job_ids:
            session.screen.err("No unfinished job matches.")
        elif job_ids and not yes:
            job_ids = _confirm(session, views or _read(session, job_ids, failed))
        _cancel_all(session, job_ids, failed, output)


def _found(session: Session, jobs: list[str]) -> tuple[list[str], list[tuple[str, RequestFailed]]]:
    """Return the ids of the jobs, and the arguments that name none. Raises AmbiguousJob."""
    job_ids, failed = list[str](), list[tuple[str, RequestFailed]]()
    for job in jobs:
        try:
            job_ids.append(briefly(session, partial(find_job_to_cancel, session, job)))
        except ApiError as error:
            if error.code != "job_not_found":
                raise
            failed.append((job, error))
    return list(dict.fromkeys(job_ids)), failed


def _read(session: Session, job_ids: list[str], failed: list[tuple[str, RequestFailed]]) -> list[JobView]:
    """Return the views of the jobs, and add those that do not exist to `failed`."""
    views = list[JobView]()
    for job_id in job_ids:
        try:
            views.append(briefly(session, partial(session.client.job, job_id)).value)
        except ApiError as error:
            if error.code != "job_not_found":
                raise
            failed.append((job_id, error))
    return views


def _cancel_all(session: Session, job_ids: list[str], failed: list[tuple[str, RequestFailed]], output: Output) -> None:
    jobs: list[Answer[JobView]] = []
    for job_id in job_ids:
        try:
            jobs.append(_cancel(session, job_id))
        except RequestFailed as error:
            failed.append((job_id, error))
    problems = [{"id": job_id, **error.problem} for job_id, error in failed]
    document = {"jobs": [job.document for job in jobs], "problems": problems}
    views = [job.value for job in jobs]
    emit(document, output, names=[view.id for view in views], table=lambda: _show_cancelled(session, views))
    if output not in (Output.JSON, Output.YAML):
        for job_id, failure in failed:
            session.screen.err(f"{job_id} was not cancelled:")
            show_problem(session.screen, failure, session.client.url)
    if failed:
        raise typer.Exit(max(exit_for(failure) for _, failure in failed))


def _cancel(session: Session, job_id: str) -> Answer[JobView]:
    """Cancel a job. Many cancels reach the rate limit of the tenant: wait as long as the server asks."""
    budget = RetryBudget(session)
    while True:
        try:
            return briefly(session, lambda: session.client.cancel(job_id))
        except RequestFailed as error:
            if error.code != "rate_limited":
                raise
            session.environment.sleep(budget.pause_after(error))


def _confirm(session: Session, views: list[JobView]) -> list[str]:
    """Ask whether to cancel these jobs, if there are any, and return their ids."""
    if not views:
        return []
    for view in views[:CONFIRM_SHOWN]:
        session.screen.err(f"  {view.id}", view.name or "", show_state(view.state), f"of {view.tenant}")
    if len(views) > CONFIRM_SHOWN:
        session.screen.err(f"  and {len(views) - CONFIRM_SHOWN} more")
    jobs = f"job {escape(views[0].id)}" if len(views) == 1 else f"these {len(views)} jobs"
    if not typer.confirm(f"Cancel {jobs}?", err=True):
        raise typer.Exit(Exit.REJECTED)
    return [view.id for view in views]


def _show_cancelled(session: Session, views: list[JobView]) -> None:
    for view in views:
        session.screen.out(view.id, "was already" if view.is_finished else "is", show_state(view.state))
