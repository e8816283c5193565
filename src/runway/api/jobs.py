"""`/v1/jobs`: submit, list, read, cancel."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from runway.api.app_state import AppState, app_state
from runway.api.body import read_json
from runway.api.models import DryRun, JobList
from runway.api.problems import operation_id, responses
from runway.api.query import only_known_parameters
from runway.api.tenancy import CancelTenant, ReadScope, required_tenant, view_for_scope
from runway.errors import (
    BodyTooLarge,
    BodyTooSlow,
    IdempotencyConflict,
    InvalidParameter,
    InvalidSpec,
    JobNotFound,
    KubernetesUnavailable,
    NotLeader,
    NotReady,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    RouteNotFound,
    SubmissionsStopped,
    TenantRequired,
    TooBusy,
    UnknownTenant,
    UnsupportedMediaType,
    Violation,
)
from runway.jobs.identity import JOB_ID
from runway.jobs.view import JobState, JobView
from runway.services.cancel import cancel
from runway.services.list_jobs import Place, full_page
from runway.state.job_store import JobKey

router = APIRouter(
    tags=["jobs"], dependencies=[Depends(only_known_parameters)], generate_unique_id_function=operation_id
)

_encoder = msgspec.json.Encoder()

PAGE_BYTES: Final = 1 << 20
"""Bytes of JSON after which a page of jobs ends, but for its first job. A specification may have 256 KiB, so 500 jobs
would else be an answer of 125 MiB, all of it in memory at once."""
_LIMIT: Final = f"Jobs in one page, at most: a page ends early at {PAGE_BYTES >> 20} MiB, with `next_cursor`"
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@router.post(
    "/v1/jobs",
    status_code=201,
    response_model=JobView,
    summary="Submit a job",
    response_description="The job was admitted, and Kubernetes has it",
    responses={
        200: {
            "model": JobView | DryRun,
            "description": "The first job again, with `Idempotent-Replay: true`; or a dry run's decision",
        },
        **responses(
            TenantRequired, UnknownTenant, QuotaExceeded, BodyTooSlow, IdempotencyConflict, BodyTooLarge,
            UnsupportedMediaType, InvalidSpec, InvalidParameter, RateLimited, SubmissionsStopped, NotReady, NotLeader,
            KubernetesUnavailable, OutcomeUnknown, TooBusy,
        ),
    },
)  # fmt: skip
async def submit_job(
    request: Request,
    dry_run: Annotated[bool, Query(description="Decide, price and let Kubernetes check, but keep nothing")] = False,
) -> Response:
    """It is admitted now or refused now, with every reason at once: there is no queue.

    The body is the job's specification. With an `Idempotency-Key` a retry is safe at any time: the same request is
    answered with the first job. With `dry_run` the same checks decide, Kubernetes checks the manifest, and nothing is
    kept.
    """
    use, tenant = app_state(request), required_tenant(request)
    key = _idempotency_key(request)
    with use.limits.body_slot(tenant):
        document = await read_json(request, use.settings.max_body_bytes)
    # Counted once the body is here: else callers that send theirs slowly could take all places.
    with use.limits.submission_slot(tenant):
        if dry_run:
            return _json(await use.submitter.dry_run(tenant, document))
        submission = await use.submitter.submit(tenant, document, key)
    headers = {"Location": f"/v1/jobs/{submission.view.id}"}
    if submission.replayed:
        return _json(submission.view, headers=headers | {"Idempotent-Replay": "true"})
    return _json(submission.view, status=201, headers=headers)


@router.get(
    "/v1/jobs",
    response_model=JobList,
    summary="List jobs",
    response_description="One page of jobs",
    responses=responses(TenantRequired, UnknownTenant, InvalidParameter, RateLimited, NotReady),
)
async def list_jobs(
    request: Request,
    scope: ReadScope,
    tenant: Annotated[str | None, Query(max_length=63, description="Only this tenant's jobs")] = None,
    state: Annotated[list[JobState] | None, Query(description="Only jobs in this state; may be repeated")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description=_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before")] = None,
) -> Response:
    """Newest first, in pages. `X-Tenant-ID`, where it is sent, scopes the list; `tenant` is the same as a filter.

    Values of `spec.env` are shown where `X-Tenant-ID` names their tenant, and else only their lengths.
    """
    use = app_state(request)
    use.observer.require_synced()
    if scope is not None and tenant not in (None, scope):
        raise InvalidParameter("the query asks for another tenant than the X-Tenant-ID header")
    wanted = _namespace(use, scope or tenant)
    after = read_cursor(cursor) if cursor else None
    found = await full_page(use.observer, wanted, state or (), after, limit + 1)
    encoded = ((place, _encoded(use, place[1], scope)) for place in found[:limit])
    jobs, last = fit_page(encoded, PAGE_BYTES)
    following = write_cursor(last) if last is not None and last != found[-1] else None
    return _json({"jobs": jobs, "next_cursor": following})


@router.get(
    "/v1/jobs/{job_id}",
    response_model=JobView,
    summary="Read a job",
    response_description="The job as it is now",
    responses=responses(
        TenantRequired, UnknownTenant, JobNotFound, RouteNotFound, InvalidParameter, RateLimited, NotReady
    ),
)
async def read_job(request: Request, job_id: str, scope: ReadScope) -> Response:
    """State, conditions, attempts, verdict and cost, derived each time from what Kubernetes says.

    Values of `spec.env` are shown where `X-Tenant-ID` names the job's tenant, and else only their lengths.
    """
    use = app_state(request)
    view = use.observer.view(find_job(use, job_id, scope))
    if view is None:
        raise JobNotFound(job_id)
    return _json(view_for_scope(view, scope))


@router.delete(
    "/v1/jobs/{job_id}",
    status_code=202,
    response_model=JobView,
    summary="Cancel a job",
    response_description="The job is being ended, or was over already",
    responses=responses(
        TenantRequired, UnknownTenant, JobNotFound, RouteNotFound, InvalidParameter, RateLimited, NotReady, NotLeader,
        KubernetesUnavailable, OutcomeUnknown, TooBusy,
    ),
)  # fmt: skip
async def cancel_job(request: Request, job_id: str, tenant: CancelTenant) -> Response:
    """SIGTERM, its grace period, SIGKILL. Idempotent; the record stays until its time to live.

    Only the job's own tenant cancels it, so `X-Tenant-ID` must be sent.
    """
    use = app_state(request)
    key = find_job(use, job_id, tenant)
    return _json(await cancel(use.kubernetes, use.observer, use.writer, key, use.now), status=202)


def find_job(use: AppState, job_id: str, scope: str | None) -> JobKey:
    """Where a job is; another tenant's is not found. Raises JobNotFound or NotReady."""
    use.observer.require_synced()
    if JOB_ID.fullmatch(job_id):
        tenants = use.policy.tenants.values() if scope is None else [use.policy.tenants[scope]]
        for tenant in tenants:
            key = JobKey(tenant.namespace, job_id)
            if use.observer.job(key) is not None:
                return key
    raise JobNotFound(job_id[:80])


def fit_page(encoded: Iterable[tuple[Place, bytes | None]], most: int) -> tuple[list[msgspec.Raw], Place | None]:
    """The first of these jobs that together have at most `most` bytes, but at least one; and the last place taken.

    One that was deleted while others were looked for has no bytes, and is left out.
    """
    jobs: list[msgspec.Raw] = []
    last, size = None, 0
    for place, document in encoded:
        size += len(document or b"")
        if jobs and size > most:
            break
        if document is not None:
            jobs.append(msgspec.Raw(document))
        last = place
    return jobs, last


def _encoded(use: AppState, key: JobKey, scope: str | None) -> bytes | None:
    """A job's view as this caller may see it; None where it was deleted meanwhile."""
    view = use.observer.view(key)
    return None if view is None else _encoder.encode(view_for_scope(view, scope))


def _idempotency_key(request: Request) -> str | None:
    values = request.headers.getlist("Idempotency-Key")
    if not values:
        return None
    if len(values) > 1 or _IDEMPOTENCY_KEY.fullmatch(values[0]) is None:
        message = "must be sent once, with 1 to 255 printable ASCII characters"
        raise InvalidParameter(
            f"the Idempotency-Key header {message}", violations=(Violation("Idempotency-Key", "malformed", message),)
        )
    return values[0]


def _namespace(use: AppState, tenant: str | None) -> str | None:
    if tenant is None:
        return None
    known = use.policy.tenants.get(tenant)
    if known is None:
        raise UnknownTenant(f"tenant {tenant[:63]!r} is not in the policy")
    return known.namespace


def write_cursor(place: tuple[datetime, JobKey]) -> str:
    created, key = place
    return base64.urlsafe_b64encode(f"{created.isoformat()}|{key.namespace}|{key.name}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, JobKey]:
    try:
        created, namespace, name = base64.urlsafe_b64decode(cursor.encode("ascii")).decode().split("|")
        moment = datetime.fromisoformat(created)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
    except (ValueError, binascii.Error) as error:
        raise InvalidParameter("the cursor is not one that a list has returned") from error
    return moment, JobKey(namespace, name)


def _json(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encoder.encode(document), status_code=status, media_type="application/json", headers=headers)
