"""Find the job that an argument names: a job id, the unique start of one, or a job name.

A full id costs no call. Text with the form of an id or of its start (`rw-`) is first looked up as one, so a job that is
named like another job's id never takes its place. Other text is a name first, and then the start of an id without
`rw-`. Every search is bounded: one page of at most `CANDIDATES` jobs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import typer

from runway.cli.client import ApiError, RequestFailed
from runway.cli.context import Session
from runway.jobs.models import JOB_ID_GRAMMAR, LABEL_GRAMMAR, JobState, JobView
from runway.text import escape

ACTIVE: Final = (JobState.PENDING, JobState.RUNNING)
CANDIDATES: Final = 6  # Jobs of a search: the newest, and the others that a message names.
MIN_BARE_PREFIX: Final = 4
"""Letters of an id without its `rw-`: with fewer, a misspelt name could be the start of an id."""

_ID: Final = re.compile(JOB_ID_GRAMMAR)
_ID_PREFIX: Final = re.compile(r"rw-[a-z2-7]{0,20}")
_BARE_PREFIX: Final = re.compile(rf"[a-z2-7]{{{MIN_BARE_PREFIX},20}}")
_REFERENCE: Final = re.compile(LABEL_GRAMMAR)


class AmbiguousJob(RequestFailed):
    """Several jobs fit an argument that must name one. The problem has the `candidates`."""

    @property
    def transient(self) -> bool:
        return False


def reference(text: str) -> str:
    """Return an argument that can name a job. Raises typer.BadParameter for any other text."""
    if not _REFERENCE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a job id or a job name; `runway ls` lists them")
    return text


def find_job(session: Session, text: str) -> str:
    """Return the id of a job; of several with one name the newest, and stderr names the others. Raises RequestFailed.

    The start of several ids raises AmbiguousJob.
    """
    if _ID.fullmatch(text):
        return text
    if found := _by_prefix(session, text) or _by_name(session, text):
        return found
    if _BARE_PREFIX.fullmatch(text) and (found := _by_prefix(session, f"rw-{text}")):
        return found
    raise _not_found(session, "Job not found", f"no job has the id or the name {text!r}{_of(session)}")


def find_job_to_cancel(session: Session, text: str) -> str:
    """Return the id of a job. A name must belong to exactly one unfinished job. Raises RequestFailed, AmbiguousJob."""
    if _ID.fullmatch(text):
        return text
    if found := _by_prefix(session, text):
        return found
    # A job that is already cancelling is not in the way of its successor.
    unfinished = _search(session, name=text, states=ACTIVE) or _search(session, name=text, states=[JobState.CANCELLING])
    if len(unfinished) > 1:
        hint = f"name one by its id, or cancel them all: runway cancel --name {text}"
        raise _ambiguous(f"several unfinished jobs have the name {text!r}", unfinished, hint)
    if unfinished:
        return unfinished[0].id
    if finished := _search(session, name=text):
        newest = f"the newest, {finished[0].id}, is {finished[0].state}"
        raise _not_found(session, "No unfinished job", f"every job with the name {text!r} is finished; {newest}")
    if _BARE_PREFIX.fullmatch(text) and (found := _by_prefix(session, f"rw-{text}")):
        return found
    raise _not_found(session, "Job not found", f"no job has the id or the name {text!r}{_of(session)}")


def newest_job(session: Session) -> str:
    """Return the id of the tenant's newest job, and name it on stderr. Raises typer.BadParameter without a tenant."""
    if not session.client.tenant:
        raise typer.BadParameter("name a job, or set a tenant for its newest job: --tenant NAME or RUNWAY_TENANT")
    jobs = session.client.jobs(limit=1).value.jobs
    if not jobs:
        raise _not_found(session, "No jobs", f"there is no job{_of(session)}")
    session.screen.err(f"Newest job{_of(session)}:", _short(jobs[0]), style="dim")
    return jobs[0].id


def _by_prefix(session: Session, text: str) -> str | None:
    if not _ID_PREFIX.fullmatch(text):
        return None
    found = _search(session, id_prefix=text)
    if len(found) > 1:
        raise _ambiguous(f"several job ids start with {text!r}", found, "add letters until only one id fits")
    return found[0].id if found else None


def _by_name(session: Session, text: str) -> str | None:
    found = _search(session, name=text)
    if len(found) > 1:
        more = ", and more" if len(found) == CANDIDATES else ""
        others = ", ".join(map(_short, found[1 : CANDIDATES - 1]))
        session.screen.err(f"Newest job with the name {text}: {_short(found[0])}. Others: {others}{more}.", style="dim")
    return found[0].id if found else None


def _search(
    session: Session, *, name: str | None = None, id_prefix: str | None = None, states: Sequence[str] = ()
) -> list[JobView]:
    return session.client.jobs(states, CANDIDATES, name=name, id_prefix=id_prefix).value.jobs


def _short(view: JobView) -> str:
    return escape(f"{view.id} ({view.state})")


def _of(session: Session) -> str:
    return f" in tenant {session.client.tenant}" if session.client.tenant else ""


def _ambiguous(detail: str, found: Sequence[JobView], hint: str) -> AmbiguousJob:
    candidates = [{"id": view.id, "name": view.name, "state": view.state} for view in found]
    problem = {"title": "Ambiguous job", "code": "ambiguous_job", "detail": detail, "hint": hint}
    return AmbiguousJob(problem | {"candidates": candidates})


def _not_found(session: Session, title: str, detail: str) -> ApiError:
    scope = " of this tenant" if session.client.tenant else ""
    hint = f"run `runway ls`: it lists the jobs{scope}; finished jobs are deleted after a time"
    return ApiError(404, {"title": title, "code": "job_not_found", "detail": detail, "hint": hint})
