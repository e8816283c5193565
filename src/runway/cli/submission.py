"""Submit a job so that a lost answer loses nothing: every try has the same idempotency key."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Final

from runway.cli.client import Answer, ApiError, RequestFailed
from runway.cli.context import Session
from runway.cli.wait import RetryBudget, interruptible
from runway.jobs.manifest import keyed_job_id
from runway.jobs.models import JobView

SUBMIT_RETRY_SECONDS: Final = 60.0
"""Longer than the change of the leader in a rolling update."""


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
    budget = RetryBudget(session, SUBMIT_RETRY_SECONDS)
    while True:
        try:
            job, replayed = session.client.submit(spec, key)
        except RequestFailed as error:
            if not _may_help(error):
                raise
            try:
                pause = budget.pause_after(error)
            except RequestFailed:
                raise _with_place(error, key, job_id) from error
            session.environment.sleep(pause)
        else:
            budget.answered()
            return job, replayed and not is_own


def _may_help(error: RequestFailed) -> bool:
    """Return whether a retry can help: it does not end an operator's stop, and a rate limit asks for fewer calls."""
    return error.transient and error.code not in ("submissions_stopped", "rate_limited")


def _with_place(error: RequestFailed, key: str, job_id: str | None) -> RequestFailed:
    """Add the place of the job to an error after which it may exist."""
    unknown = not isinstance(error, ApiError) or error.code in ("outcome_unknown", "unexpected_answer")
    if unknown and job_id is not None:
        error.problem = {"id": job_id, **error.problem, "idempotency_key": key}
    return error
