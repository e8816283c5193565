"""How a command that waited for a job ends: with the job's end, or by Ctrl-C before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from runway.cli.context import Session
from runway.cli.exits import Exit, exit_code
from runway.cli.output import Output, emit
from runway.cli.views.job_views import show_outcome
from runway.cli.views.problems import Say
from runway.cli.wire import JobView


def finish(view: JobView, output: Output, say: Say) -> NoReturn:
    """Show how a job ended, and exit with what became of it."""
    emit(view, output, names=[view["id"]], table=lambda: show_outcome(say, view))
    raise typer.Exit(exit_code(view))


@contextmanager
def interruptible(session: Session, job_id: str, *, offer_cancel: bool = False) -> Iterator[None]:
    """On Ctrl-C end the command alone, and say how to come back to the job.

    With `offer_cancel` ask at a terminal whether to cancel the job, no being the answer to a second Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        note = session.screen.err
        note()
        if offer_cancel and session.edges.at_terminal() and _wants_cancel(job_id):
            view = session.client.cancel(job_id)
            note(f"{job_id} is {view['state']}. To wait for its end: runway wait {job_id}")
        else:
            note(f"Interrupted; {job_id} goes on.")
            note(f"  to come back: runway wait {job_id}")
            note(f"  its log:      runway logs -f {job_id}")
            note(f"  to stop it:   runway cancel {job_id}")
        raise typer.Exit(Exit.CANCELLED) from interrupt


def _wants_cancel(job_id: str) -> bool:
    try:
        return typer.confirm(f"Cancel {job_id}?", err=True)
    except (typer.Abort, KeyboardInterrupt):
        return False
