"""`runway submit`, its dry run, and `runway run`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Final

import typer
from rich.text import Text

from runway.api.models import DryRun
from runway.cli.client import Answer, ApiError, RequestFailed
from runway.cli.commands.logs import LogWriter, follow_log
from runway.cli.context import Exit, Session, open_session
from runway.cli.habits import config_of
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, Screen, emit
from runway.cli.spec import SpecOptions, build_spec, with_spec_options
from runway.cli.submission import submit_job
from runway.cli.views.job_views import show_submitted
from runway.cli.views.problems import show_violations
from runway.cli.views.progress import progress
from runway.cli.views.tables import (
    Column,
    amount_of,
    describe_budget,
    limited_resources,
    resource_usage,
    show_amount,
    to_milli,
)
from runway.cli.wait import briefly, finish, interruptible, wait_until
from runway.jobs.models import JobView
from runway.text import show_usd

CancelOnInterrupt = Annotated[
    bool, typer.Option("--cancel-on-interrupt", help="Cancel the job on Ctrl-C, SIGTERM and SIGHUP, as in CI.")
]
_API_WARNING: Final = re.compile(r'299 \S+ "(.*)"')
"""A warning of the API server, as its header has it: https://www.rfc-editor.org/rfc/rfc7234#section-5.5"""
_PRICE: Final = [Column(title="RESOURCE"), Column(title="QUANTITY", right=True), Column(title="USD", right=True)]
_QUOTA: Final = [
    Column(title="RESOURCE"),
    *(Column(title=title, right=True) for title in ("USAGE", "THIS JOB", "AFTER", "LIMIT")),
    Column(title=""),
]


@with_spec_options
def submit(
    context: typer.Context,
    options: SpecOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the decision, the price and the quota; submit nothing.")
    ] = False,
    wait_for_end: Annotated[
        bool, typer.Option("--wait", help="Wait until the job is finished and exit like `runway wait`.")
    ] = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Submit a job and print its id, state and price.

    The spec comes from options, from a file, or from both: options override the file. Arguments after -- are the
    command; it replaces the file's command and args. A lost answer loses nothing: for a minute, the command repeats the
    submission under one idempotency key.
    """
    if dry_run and (wait_for_end or options.idempotency_key):
        raise typer.BadParameter("--dry-run submits nothing: remove --wait and --idempotency-key")
    spec = build_spec(context, options, config_of(context).job)
    with open_session(context, url, tenant, output) as session:
        screen = session.screen
        if dry_run:
            plan = briefly(session, lambda: session.client.dry_run(spec))
            decision = plan.value.decision
            emit(plan.document, output, names=[decision], table=lambda: _show_dry_run(screen, plan.value))
            raise typer.Exit(Exit.OK if decision == "admitted" else Exit.REJECTED)
        job, replayed = submit_job(session, spec, options.idempotency_key, cancel=cancel_on_interrupt)
        view = job.value
        if wait_for_end:
            if output.for_people:
                show_submitted(screen.out, view, replayed=replayed)
            with interruptible(session, view.id, cancel=cancel_on_interrupt), progress(session) as show:
                show(view)
                job = wait_until(session, view.id, lambda view: view.is_finished, show=show)
            finish(job, output, screen.out)
        emit(job.document, output, names=[view.id], table=lambda: show_submitted(screen.out, view, replayed=replayed))
        if output is not Output.NAME:
            warn_of_wait(session, view)
        if screen.stderr.is_terminal:
            screen.err(f"next: runway wait {view.id}, or its log: runway logs -f {view.id}", style="dim")
            screen.err(f"console: {session.client.url.rstrip('/')}/jobs/{view.id}", style="dim")


def warn_of_wait(session: Session, view: JobView) -> None:
    """Say that no node has room for a new job now, where the server knows."""
    if view.cost is None or view.spec is None or view.state != "pending":
        return
    try:
        pool = session.client.policy()["pools"].get(view.cost.rate_card.partition("/")[0])
        free = pool.get("free") if isinstance(pool, dict) else None
        if not isinstance(free, dict) or not any(
            to_milli(str(getattr(view.spec.resources, name))) > to_milli(str(free.get(name)))
            for name in ("cpu", "memory", "gpu")
            if name in free
        ):
            return
        view = session.client.job(view.id).value  # Its own pod may have taken what was free.
    except RequestFailed:
        return
    if view.state == "pending" and not any(attempt.node for attempt in view.attempts):
        session.screen.err(
            "No node has room for it now, so it waits; `runway limits` shows what is free.", style="yellow"
        )


@with_spec_options
def run(
    context: typer.Context,
    options: SpecOptions,
    cancel_on_interrupt: CancelOnInterrupt = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Submit a job, follow its log, and exit with its outcome.

    The log is on stdout, everything else on stderr. With -o json, yaml or name the result is on stdout and the log on
    stderr. Ctrl-C, SIGTERM and SIGHUP leave the job running, unless --cancel-on-interrupt is set; on a terminal Ctrl-C
    asks whether to cancel it.
    """
    spec = build_spec(context, options, config_of(context).job)
    with open_session(context, url, tenant, output) as session:
        job, replayed = submit_job(session, spec, options.idempotency_key, cancel=cancel_on_interrupt)
        job_id = job.value.id
        show_submitted(session.screen.err, job.value, replayed=replayed)
        writer = LogWriter(typer.get_binary_stream("stdout" if output.for_people else "stderr"))
        with interruptible(session, job_id, offer_cancel=True, cancel=cancel_on_interrupt):
            job = _follow_attempts(session, job_id, writer)
        finish(job, output, session.screen.err)


def _follow_attempts(session: Session, job_id: str, writer: LogWriter) -> Answer[JobView]:
    """Show the log of every attempt, and before it the progress. Return the finished job."""
    attempt = 1
    while True:
        _wait(session, job_id, partial(_has_started, attempt))
        try:
            follow_log(session, job_id, writer, attempt=attempt)
        except ApiError as error:
            # A missing log does not hide the outcome of the job.
            if error.code != "logs_gone":
                raise
            session.screen.err("The pod and its log are deleted.", style="yellow")
        job = _wait(session, job_id, partial(_is_past, attempt))
        if job.value.attempt_count <= attempt:
            return job
        attempt += 1


def _wait(session: Session, job_id: str, done: Callable[[JobView], bool]) -> Answer[JobView]:
    with progress(session) as show:
        return wait_until(session, job_id, done, show=show)


def _has_started(attempt: int, view: JobView) -> bool:
    return _is_past(attempt, view) or (view.attempt_count == attempt and view.attempts[-1].started_at is not None)


def _is_past(attempt: int, view: JobView) -> bool:
    return view.is_finished or view.attempt_count > attempt


def _show_dry_run(screen: Screen, plan: DryRun) -> None:
    count = len(plan.violations)
    if plan.decision == "admitted":
        decision, reason = Text("Would be admitted", "bold green"), ""
    else:
        decision, reason = Text("Would be refused", "bold red"), f"for {count} violation{'s' if count != 1 else ''}"
    screen.out(decision, reason, "(dry run: nothing was submitted)", hang=2)
    show_violations(screen.out, map(asdict, plan.violations))
    for warning in plan.warnings:
        found = _API_WARNING.fullmatch(warning)
        screen.out(f"  warning: {found[1] if found else warning}", style="yellow", hang=4)
    if plan.cost is None:
        screen.out("Price: unknown until the spec is valid", style="dim")
    else:
        cost = plan.cost
        screen.out(f"Price in {cost.currency} ({cost.rate_card})", style="bold")
        rows: list[tuple[object, ...]] = [(line.resource, line.quantity, show_usd(line.hourly)) for line in cost.lines]
        rows.append(("an hour", "", Text(show_usd(cost.hourly), "bold")))
        rows.append(("at most", "", Text(show_usd(cost.ceiling), "bold")))
        screen.table(_PRICE, rows, indent=2)
    _show_quota(screen, plan)


def _show_quota(screen: Screen, plan: DryRun) -> None:
    requested = plan.quota.requested
    rows: list[tuple[object, ...]] = []
    for resource in limited_resources(plan.quota.limit):
        amounts = resource_usage(plan.quota, resource)
        now, more = amounts.used + amounts.reserved, to_milli(str(amount_of(requested, resource))) if requested else 0
        shown = [show_amount(resource, amount) for amount in (now, more, now + more, amounts.limit)]
        if requested is None:
            rows.append((resource, shown[0], "", "", shown[3], ""))
        else:
            over = Text("over", "bold red") if now + more > amounts.limit else ""
            rows.append((resource, shown[0], f"+{shown[1]}" if more else "", *shown[2:], over))
    screen.out("Quota", style="bold")
    screen.table(_QUOTA, rows, indent=2)
    if plan.quota.budget is not None:
        screen.out(f"  {describe_budget(plan.quota.budget)}", hang=4)
