"""`runway submit` and `runway run`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from runway.cli.client import ApiError
from runway.cli.commands.logs import LogWriter, follow_log
from runway.cli.context import Session, open_session
from runway.cli.exits import Exit
from runway.cli.interrupts import finish, interruptible
from runway.cli.options import (
    DEFAULT_URL,
    As,
    Command,
    Cpu,
    Env,
    Gpu,
    GpuType,
    Grace,
    IdempotencyKey,
    Image,
    JobTimeout,
    MaxCost,
    Memory,
    Name,
    Retries,
    SpecFile,
    Tenant,
    Url,
)
from runway.cli.output import Output, emit
from runway.cli.spec import SpecFlags, build_spec
from runway.cli.views.dry_run_view import show_plan
from runway.cli.views.job_views import show_submitted
from runway.cli.views.progress import progress
from runway.cli.wait import wait_until
from runway.cli.wire import JobView, attempts_begun, is_over


def submit(
    context: typer.Context,
    command: Command = None,
    file: SpecFile = None,
    image: Image = None,
    cpu: Cpu = None,
    memory: Memory = None,
    gpu: Gpu = None,
    gpu_type: GpuType = None,
    env: Env = None,
    timeout: JobTimeout = None,
    retries: Retries = None,
    grace: Grace = None,
    max_cost: MaxCost = None,
    name: Name = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be decided, the price and the quota; submit nothing.")
    ] = False,
    wait_for_end: Annotated[bool, typer.Option("--wait", help="Wait for the end and exit like `runway wait`.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Submit a job and print its id, state and price.

    The spec comes from flags, from a file, or from a file with flags over it. What follows -- is the command; it
    replaces the file's command and args.
    """
    if dry_run and (wait_for_end or idempotency_key):
        raise typer.BadParameter("a dry run submits nothing, so there is no --wait and no --idempotency-key for it")
    spec = build_spec(
        SpecFlags(
            file=file, name=name, image=image, cpu=cpu, memory=memory, gpu=gpu, gpu_type=gpu_type, env=env,
            timeout=timeout, retries=retries, grace=grace, max_cost=max_cost, command=command,
        )
    )  # fmt: skip
    with open_session(context, url, tenant, output) as session:
        if dry_run:
            _plan(session, spec, output)
        view, replayed = session.client.submit(spec, idempotency_key)
        screen = session.screen
        if wait_for_end:
            if output.for_people:
                show_submitted(screen.out, view, replayed=replayed)
            with interruptible(session, view["id"]), progress(session) as tell:
                tell(view)
                view = wait_until(session, view["id"], is_over, tell=tell)
            finish(view, output, screen.out)
        emit(view, output, names=[view["id"]], table=lambda: show_submitted(screen.out, view, replayed=replayed))
        if screen.stderr.is_terminal:
            screen.err(f"next: runway wait {view['id']}, or its log: runway logs -f {view['id']}", style="dim")


def run(
    context: typer.Context,
    command: Command = None,
    file: SpecFile = None,
    image: Image = None,
    cpu: Cpu = None,
    memory: Memory = None,
    gpu: Gpu = None,
    gpu_type: GpuType = None,
    env: Env = None,
    timeout: JobTimeout = None,
    retries: Retries = None,
    grace: Grace = None,
    max_cost: MaxCost = None,
    name: Name = None,
    idempotency_key: IdempotencyKey = None,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Submit a job, follow its log, and exit with what became of it.

    The log goes to stdout, everything else to stderr; with -o json, yaml or name stdout carries the result alone and
    the log goes to stderr. Interrupting the command leaves the job running; on a terminal it asks whether to cancel it.
    """
    spec = build_spec(
        SpecFlags(
            file=file, name=name, image=image, cpu=cpu, memory=memory, gpu=gpu, gpu_type=gpu_type, env=env,
            timeout=timeout, retries=retries, grace=grace, max_cost=max_cost, command=command,
        )
    )  # fmt: skip
    with open_session(context, url, tenant, output) as session:
        view, replayed = session.client.submit(spec, idempotency_key)
        say = session.screen.err
        show_submitted(say, view, replayed=replayed)
        writer = LogWriter(typer.get_binary_stream("stdout" if output.for_people else "stderr"))
        with interruptible(session, view["id"], offer_cancel=True):
            view = _follow_attempts(session, view["id"], writer)
        finish(view, output, say)


def _plan(session: Session, spec: dict[str, object], output: Output) -> None:
    plan = session.client.dry_run(spec)
    emit(plan, output, names=[plan["decision"]], table=lambda: show_plan(session.screen, plan))
    raise typer.Exit(Exit.OK if plan["decision"] == "admitted" else Exit.REJECTED)


def _follow_attempts(session: Session, job_id: str, writer: LogWriter) -> JobView:
    """Show the log of every attempt, one after the other, and return the view of the job when it is over.

    Until an attempt has started its progress is shown instead; never both, since they share the terminal.
    """
    attempt = 1
    while True:
        _wait(session, job_id, partial(_has_started, attempt))
        try:
            follow_log(session, job_id, writer, attempt=attempt)
        except ApiError as error:
            # The log is a convenience of `run`; how the job ended is not.
            if error.code != "logs_gone":
                raise
            session.screen.err("The pod is gone, and its log with it.", style="yellow")
        view = _wait(session, job_id, partial(_is_past, attempt))
        if attempts_begun(view) <= attempt:
            return view
        attempt += 1


def _wait(session: Session, job_id: str, done: Callable[[JobView], bool]) -> JobView:
    with progress(session) as tell:
        return wait_until(session, job_id, done, tell=tell)


def _has_started(attempt: int, view: JobView) -> bool:
    if is_over(view) or attempts_begun(view) > attempt:
        return True
    return attempts_begun(view) == attempt and view["attempts"][-1]["started_at"] is not None


def _is_past(attempt: int, view: JobView) -> bool:
    return is_over(view) or attempts_begun(view) > attempt
