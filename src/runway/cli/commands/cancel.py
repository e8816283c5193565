"""`runway cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from runway.cli.client import RequestFailed
from runway.cli.context import Session, exit_for, open_session
from runway.cli.exits import Exit
from runway.cli.options import DEFAULT_URL, As, JobIds, Tenant, Url
from runway.cli.output import Output, emit, show_state
from runway.cli.text import safe
from runway.cli.views.problems import show_problem
from runway.cli.wire import JobView, is_over


def cancel(
    context: typer.Context,
    job_ids: JobIds,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Cancel jobs: SIGTERM, their grace period, SIGKILL.

    On a terminal it asks first; elsewhere -y is needed. Each job is tried, whatever becomes of the others. With -o json
    or yaml the result is {"jobs": [...], "problems": [...]}. Only a tenant's own jobs are cancelled: --tenant or
    RUNWAY_TENANT must name it.
    """
    if not tenant:
        raise typer.BadParameter("cancel needs the tenant of the jobs", param_hint="--tenant / RUNWAY_TENANT")
    with open_session(context, url, tenant, output) as session:
        if not yes:
            _ask(session, job_ids)
        views: list[JobView] = []
        failed: list[tuple[str, RequestFailed]] = []
        for job_id in job_ids:
            try:
                views.append(session.client.cancel(job_id))
            except RequestFailed as error:
                failed.append((job_id, error))
        document = {"jobs": views, "problems": [{"id": job_id, **error.problem} for job_id, error in failed]}
        emit(document, output, names=[view["id"] for view in views], table=lambda: _show(session, views))
        if output not in (Output.JSON, Output.YAML):
            for job_id, failure in failed:
                session.screen.err(f"{job_id} was not cancelled:")
                show_problem(session.screen, failure, url)
        if failed:
            raise typer.Exit(max(exit_for(failure) for _, failure in failed))


def _ask(session: Session, job_ids: list[str]) -> None:
    """Ask whether these jobs are to end. Raises typer.Exit unless the answer is yes."""
    if not session.edges.at_terminal():
        session.screen.err("Error: there is no terminal to ask at; -y cancels without asking", style="bold red")
        raise typer.Exit(Exit.USAGE)
    views = [session.client.job(job_id) for job_id in job_ids]
    for view in views:
        session.screen.err(f"  {view['id']}", view["name"] or "", show_state(view["state"]), f"of {view['tenant']}")
    what = f"job {safe(views[0]['id'])}" if len(views) == 1 else f"these {len(views)} jobs"
    if not typer.confirm(f"Cancel {what}?", err=True):
        raise typer.Exit(Exit.REJECTED)


def _show(session: Session, views: list[JobView]) -> None:
    for view in views:
        session.screen.out(view["id"], "was already over:" if is_over(view) else "is", show_state(view["state"]))
