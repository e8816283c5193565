"""Commands on jobs: submit, run, ls, status, wait, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Annotated, NoReturn

import typer

from runway.cli.client import ApiError
from runway.cli.exits import Exit, exit_code
from runway.cli.logs import LogWriter, follow_log
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
    JobId,
    JobTimeout,
    MaxCost,
    Memory,
    Name,
    Retries,
    SpecFile,
    Tenant,
    Url,
    WaitTimeout,
)
from runway.cli.output import Output, emit
from runway.cli.render import JOB_COLUMNS, Say, job_row, show_job, show_outcome, show_submitted
from runway.cli.session import Session, open_session
from runway.cli.spec import SpecFlags, build_spec
from runway.cli.text import safe, show_duration
from runway.cli.waiting import GaveUp, wait_until
from runway.cli.wire import JobView, is_over


class State(StrEnum):
    """The states of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


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
    wait_for_end: Annotated[bool, typer.Option("--wait", help="Wait for the end and exit like `runway wait`.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Submit a job and print its id, state and price.

    The spec comes from flags, from a file, or from a file with flags over it. What follows -- is the command; it
    replaces the file's command and args.
    """
    spec = build_spec(
        SpecFlags(
            file=file, name=name, image=image, cpu=cpu, memory=memory, gpu=gpu, gpu_type=gpu_type, env=env,
            timeout=timeout, retries=retries, grace=grace, max_cost=max_cost, command=command,
        )
    )  # fmt: skip
    with open_session(context, url, tenant, output) as session:
        view, replayed = session.client.submit(spec, idempotency_key)
        say = session.screen.line
        if wait_for_end:
            if output is Output.TABLE:
                show_submitted(say, view, replayed=replayed)
            with _interruptible(session, view["id"]):
                view = wait_until(session, view["id"], is_over)
            _finish(view, output, say)
        emit(view, output, names=[view["id"]], table=lambda: show_submitted(say, view, replayed=replayed))


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
    the log goes to stderr. Interrupting the command leaves the job running.
    """
    spec = build_spec(
        SpecFlags(
            file=file, name=name, image=image, cpu=cpu, memory=memory, gpu=gpu, gpu_type=gpu_type, env=env,
            timeout=timeout, retries=retries, grace=grace, max_cost=max_cost, command=command,
        )
    )  # fmt: skip
    with open_session(context, url, tenant, output) as session:
        view, replayed = session.client.submit(spec, idempotency_key)
        say = session.screen.note
        show_submitted(say, view, replayed=replayed)
        writer = LogWriter(typer.get_binary_stream("stdout" if output is Output.TABLE else "stderr"))
        with _interruptible(session, view["id"]):
            view = _follow_attempts(session, view["id"], writer)
        _finish(view, output, say)


def ls(
    context: typer.Context,
    state: Annotated[State | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, metavar="COUNT", help="At most so many.")] = 50,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """List jobs, newest first. COST is what a job came to, or `max` and what it can come to."""
    with open_session(context, url, tenant, output) as session:
        page = session.client.jobs(state, limit)
        rows = [job_row(view, session.edges.now()) for view in page["jobs"]]
        names = [view["id"] for view in page["jobs"]]
        emit(page, output, names=names, table=lambda: session.screen.table(JOB_COLUMNS, rows))
        if page["next_cursor"] is not None:
            session.screen.note(f"There are more than these {limit}; --limit shows more.")


def status(
    context: typer.Context, job_id: JobId, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None
) -> None:
    """Show all that is known of a job.

    Its times, what it waits for, its attempts, why it failed and what to do, what it costs.
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

    An outage of Runway is borne for five minutes.
    """
    with open_session(context, url, tenant, output) as session, _interruptible(session, job_id):
        try:
            view = wait_until(session, job_id, is_over, timeout=timeout)
        except GaveUp as gave_up:
            known = f"is {gave_up.view['state']} and goes on" if gave_up.view else "was not seen"
            session.screen.note(f"Gave up after {show_duration(timeout or 0)}: {job_id} {known}.", style="yellow")
            raise typer.Exit(Exit.GAVE_UP) from gave_up
        _finish(view, output, session.screen.line)


def cancel(
    context: typer.Context,
    job_id: JobId,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    output: As = Output.TABLE,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Cancel a job: SIGTERM, its grace period, SIGKILL. On a terminal it asks first."""
    with open_session(context, url, tenant, output) as session:
        if not yes and session.edges.at_terminal():
            view = session.client.job(job_id)
            label = f" ({safe(view['name'])})" if view["name"] else ""
            if not typer.confirm(f"Cancel {job_id}{label}, which is {safe(view['state'])}?", err=True):
                raise typer.Exit(Exit.REFUSED)
        view = session.client.cancel(job_id)
        said = f"{view['id']} {'was already over:' if is_over(view) else 'is'} {view['state']}"
        emit(view, output, names=[view["id"]], table=lambda: session.screen.line(said))


def _finish(view: JobView, output: Output, say: Say) -> NoReturn:
    emit(view, output, names=[view["id"]], table=lambda: show_outcome(say, view))
    raise typer.Exit(exit_code(view))


def _follow_attempts(session: Session, job_id: str, writer: LogWriter) -> JobView:
    """Show the log of every attempt, one after the other, and return the view of the job when it is over."""
    attempt = 1
    while True:
        try:
            follow_log(session, job_id, writer, attempt=attempt)
        except ApiError as error:
            # The log is a convenience of `run`; how the job ended is not.
            if error.code != "logs_gone":
                raise
            session.screen.note("The pod is gone, and its log with it.", style="yellow")
        view = wait_until(session, job_id, partial(_is_past, attempt))
        if len(view["attempts"]) <= attempt:
            return view
        attempt += 1


def _is_past(attempt: int, view: JobView) -> bool:
    return is_over(view) or len(view["attempts"]) > attempt


@contextmanager
def _interruptible(session: Session, job_id: str) -> Iterator[None]:
    """Say on Ctrl-C that it ends the command alone."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        session.screen.note(f"Interrupted; {job_id} goes on. To stop it: runway cancel {job_id}")
        raise typer.Exit(Exit.CANCELLED) from interrupt
