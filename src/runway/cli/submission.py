"""Submit a job so that a lost answer loses nothing: every try has the same idempotency key."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Final

import typer

from runway.cli.client import Answer, ApiError, NotConnected, RequestFailed
from runway.cli.context import Exit, Session
from runway.cli.wait import RetryBudget, interruptible, may_help
from runway.jobs.manifest import keyed_job_id
from runway.jobs.models import JobView

SUBMIT_RETRY_SECONDS: Final = 60.0
"""Longer than a rolling update, in which first the connections are refused and then the leader changes."""


def submit_job(
    session: Session, spec: Mapping[str, object], key: str | None, *, cancel: bool = False
) -> tuple[Answer[JobView], bool]:
    """Submit a job under `key`, or under a key of its own; return its view, and whether an earlier command created it.

    A failed connection, 502, 503 and 504 are retried. Raises RequestFailed; its problem has the `id` and the key of a
    job that may exist. An interrupt ends the command as `interruptible` does; `cancel` cancels the job, if it exists.
    """
    own_key = key or session.environment.token()
    tenant = session.client.tenant
    job_id = keyed_job_id(tenant, own_key) if tenant else None
    with interruptible(session, job_id, cancel=cancel, exists=False) if job_id else nullcontext():
        return _submit(session, spec, own_key, job_id, is_own=key is None)


def _submit(
    session: Session, spec: Mapping[str, object], key: str, job_id: str | None, *, is_own: bool
) -> tuple[Answer[JobView], bool]:
    budget, is_sent, may_exist = RetryBudget(session, SUBMIT_RETRY_SECONDS), False, False
    while True:
        try:
            job, replayed = session.client.submit(spec, key)
        except RequestFailed as error:
            is_sent = is_sent or not isinstance(error, NotConnected)
            may_exist = (may_exist or _is_ambiguous(error)) and not _is_refusal(error)
            try:
                pause = budget.pause_after(error) if may_help(error) else None
            except RequestFailed:
                pause = None
            if pause is None:
                if not is_sent:
                    error.problem = {**error.problem, "detail": f"{error.problem['detail']}; nothing was submitted"}
                raise (_with_place(error, key, job_id) if may_exist and job_id else error) from error
            _pause(session, pause, is_sent=is_sent)
        else:
            budget.answered()
            return job, replayed and not is_own


def _pause(session: Session, seconds: float, *, is_sent: bool) -> None:
    """Wait for the next try. An interrupt before anything was sent ends the command and names no job."""
    try:
        session.environment.sleep(seconds)
    except KeyboardInterrupt as interrupt:
        if is_sent:
            raise
        with suppress(OSError):  # After SIGHUP there may be no terminal.
            session.screen.err("Interrupted; nothing was submitted.")
        raise typer.Exit(Exit.CANCELLED) from interrupt


def _is_ambiguous(error: RequestFailed) -> bool:
    """Return whether Runway may have created the job before this error."""
    if not isinstance(error, ApiError):
        return not isinstance(error, NotConnected)
    return error.code in ("outcome_unknown", "internal_error") or (not error.is_own and not 300 <= error.status < 500)


def _is_refusal(error: RequestFailed) -> bool:
    """Return whether no job has the key: Runway looks for one before it refuses, but after it counts the rate."""
    return isinstance(error, ApiError) and error.is_own and 400 <= error.status < 500 and error.status != 429


def _with_place(error: RequestFailed, key: str, job_id: str) -> RequestFailed:
    """Add the place of the job to an error after which it may exist."""
    error.problem = {"id": job_id, **error.problem, "idempotency_key": key}
    return error
