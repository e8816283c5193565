"""`/v1/jobs`: submit, list, read, cancel, and read the usage."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import Field

from runway import errors
from runway.api import dependencies as deps
from runway.api.models import DryRun, JobList, UsageView
from runway.api.openapi import SPEC_SCHEMA
from runway.api.problems import operation_id, responses
from runway.jobs.models import LABEL_GRAMMAR, TENANT_PATTERN, JobState, JobView, json_pattern, text
from runway.jobs.usage import findings
from runway.services.cancel import cancel
from runway.services.dry_run import dry_run as dry_run_job
from runway.services.job_usage import report_usage
from runway.services.list_jobs import JobFilter, Place, full_page
from runway.state.job_store import JobKey


class _SubmitRoute(APIRoute):
    """Calls the handler of a submission directly, unless the request has query parameters.

    To solve its dependencies, FastAPI needs a tenth of the time of a submission. Those of the router check only query
    parameters, so nothing is skipped.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        with_parameters = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await with_parameters(request)
            return await submit_job(request, await deps.required_tenant(request), _NO_PARAMETERS)

        return handle


def _router(route_class: type[APIRoute] = APIRoute) -> APIRouter:
    return APIRouter(
        tags=["jobs"],
        dependencies=deps.CHECKED_PARAMETERS,
        generate_unique_id_function=operation_id,
        route_class=route_class,
    )


_submissions, router = _router(_SubmitRoute), _router()

PAGE_BYTES: Final = 1 << 20
"""The maximum size of a page with more than one job. A specification may have 256 KiB, so 500 jobs have 125 MiB."""
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_KEY_HEADER: Final = "Idempotency-Key"
_KEY_PARAMETER: Final[dict[str, Any]] = {
    "name": _KEY_HEADER,
    "in": "header",
    "required": False,
    "description": "Makes a retry safe: Runway creates one job for a key. Sent once",
    "schema": {"type": "string", "pattern": "^[ -~]{1,255}$", "examples": ["train-resnet-2026-11-24"]},
}
_LINKS: Final[dict[str, Any]] = {
    operation: {"operationId": operation, "parameters": {"job_id": "$response.body#/id"}, "description": text}
    for operation, text in (
        ("read_job", "The job"),
        ("read_events", "The views of the job, one for each change"),
        ("read_logs", "The log of the job"),
        ("read_usage", "The resource usage of the job"),
        ("cancel_job", "Cancel the job"),
    )
}
_NEXT_PAGE: Final[dict[str, Any]] = {
    "operationId": "list_jobs",
    "parameters": {"cursor": "$response.body#/next_cursor"},
    "description": "The next page, unless `next_cursor` is null",
}
_LOCATION: Final[dict[str, Any]] = {
    "description": "The path of the job",
    "schema": {"type": "string", "format": "uri-reference"},
}
_REPLAY: Final[dict[str, Any]] = {
    "description": "Sent if the job existed before the request",
    "schema": {"type": "string", "enum": ["true"]},
}


class SubmitQuery(deps.QueryParameters):
    """The parameters of a submission."""

    dry_run: bool = False
    """Validate, price and let Kubernetes check the job, but create nothing."""


_NO_PARAMETERS: Final = SubmitQuery()


class ListQuery(deps.QueryParameters):
    """The filters and the position of a page of jobs."""

    tenant: Annotated[str, Field(max_length=63), text(maxLength=63, pattern=TENANT_PATTERN)] | None = None
    """Only jobs of this tenant."""
    state: list[JobState] | None = None
    """Only jobs in this state; may be repeated."""
    name: Annotated[str, Field(max_length=63, pattern=json_pattern(LABEL_GRAMMAR))] | None = None
    """Only jobs of exactly this name. Names are not unique."""
    id_prefix: Annotated[str, Field(pattern=r"^rw-[a-z2-7]{0,20}$")] | None = None
    """Only jobs whose id starts so."""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """The maximum number of jobs in a page. A page ends early at 1 MiB, with `next_cursor`."""
    cursor: Annotated[str | None, Field(max_length=400)] = None
    """`next_cursor` of the previous page."""


@_submissions.post(
    "/v1/jobs",
    status_code=201,
    response_model=JobView,
    summary="Submit a job",
    response_description="The job is admitted, and Kubernetes has created it",
    openapi_extra={
        "parameters": [deps.TENANT_PARAMETER | {"required": True}, _KEY_PARAMETER],
        "requestBody": {"required": True, "content": {"application/json": {"schema": SPEC_SCHEMA}}},
    },
    responses={
        201: {"headers": {"Location": _LOCATION}, "links": _LINKS},
        200: {
            "model": JobView | DryRun,
            "description": "The existing job, with `Idempotent-Replay: true`; or the decision of a dry run",
            "headers": {"Location": _LOCATION, "Idempotent-Replay": _REPLAY},
        },
        **responses(
            errors.TenantRequired, errors.UnknownTenant, errors.QuotaExceeded, errors.BodyTooSlow,
            errors.IdempotencyConflict, errors.BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidSpec,
            errors.InvalidParameter, errors.RateLimited, errors.SubmissionsStopped, errors.NotReady, errors.NotLeader,
            errors.KubernetesUnavailable, errors.OutcomeUnknown, errors.TooBusy,
        ),
    },
)  # fmt: skip
async def submit_job(request: Request, tenant: deps.SubmitTenant, query: Annotated[SubmitQuery, Query()]) -> Response:
    """Submit a job: Runway admits or refuses it now, with all reasons at once. There is no queue.

    The body is the specification of the job. With an `Idempotency-Key` a retry is safe at any time: the same request
    returns the existing job. With `dry_run` the same checks decide, Kubernetes checks the manifest, and Runway creates
    nothing.
    """
    use = deps.app_state(request)
    key = _idempotency_key(request)
    with use.limits.body_slot(tenant):
        document = await deps.read_json(request, use.settings.max_body_bytes)
    # The submission counts after its body is complete, so that slow clients cannot occupy all slots.
    with use.limits.submission_slot(tenant):
        if query.dry_run:
            return deps.json_response(await dry_run_job(use.submitter, tenant, document))
        submission = await use.submitter.submit(tenant, document, key)
    headers = {"Location": f"/v1/jobs/{submission.view.id}"}
    if submission.replayed:
        return deps.json_response(submission.view, headers=headers | {"Idempotent-Replay": "true"})
    return deps.json_response(submission.view, status=201, headers=headers)


router.routes.extend(_submissions.routes)


@router.get(
    "/v1/jobs",
    response_model=JobList,
    openapi_extra=deps.SCOPED,
    summary="List jobs",
    response_description="One page of jobs",
    responses={200: {"links": {"list_jobs": _NEXT_PAGE}}, **responses(*deps.READ_ERRORS)},
)
async def list_jobs(request: Request, scope: deps.ReadScope, query: Annotated[ListQuery, Query()]) -> Response:
    """List jobs, newest first, in pages. `X-Tenant-ID` scopes the list; `tenant` is the same as a filter.

    Only callers whose `X-Tenant-ID` names the job's tenant see values of `spec.env`; others see their lengths.
    """
    use = deps.app_state(request)
    use.cluster.require_synced()
    if scope is not None and query.tenant not in (None, scope):
        raise errors.InvalidParameter("`tenant` differs from the X-Tenant-ID header")
    wanted = JobFilter(_namespace(use, scope or query.tenant), query.state or (), query.name, query.id_prefix or "")
    after = read_cursor(query.cursor) if query.cursor else None
    found = await full_page(use.cluster, wanted, after, query.limit + 1)
    jobs, last = _encode_page(use, found[: query.limit], scope)
    following = write_cursor(last) if last is not None and last != found[-1] else None
    return deps.json_response({"jobs": jobs, "next_cursor": following})


@router.get(
    "/v1/jobs/{job_id}",
    response_model=JobView,
    openapi_extra=deps.SCOPED,
    summary="Read a job",
    response_description="The job as Kubernetes reports it now",
    responses=responses(*deps.JOB_ERRORS),
)
async def read_job(request: Request, job_id: deps.JobIdPath, scope: deps.ReadScope) -> Response:
    """Read state, conditions, attempts, failure and cost, as Kubernetes reports them now.

    Only callers whose `X-Tenant-ID` names the job's tenant see values of `spec.env`; others see their lengths.
    """
    use = deps.app_state(request)
    view = deps.job_view(use, deps.find_job(use, job_id, scope))
    return deps.json_response(deps.view_for_scope(view, scope))


@router.delete(
    "/v1/jobs/{job_id}",
    status_code=202,
    response_model=JobView,
    openapi_extra={"parameters": [deps.TENANT_PARAMETER | {"required": True}]},
    summary="Cancel a job",
    response_description="The job is terminating or finished",
    responses=responses(
        *deps.JOB_ERRORS, errors.NotLeader, errors.KubernetesUnavailable, errors.OutcomeUnknown, errors.TooBusy
    ),
)
async def cancel_job(request: Request, job_id: deps.JobIdPath, tenant: deps.CancelTenant) -> Response:
    """Send SIGTERM, and SIGKILL after the grace period. The record stays until its time to live. Idempotent.

    Only the job's own tenant can cancel it, so `X-Tenant-ID` is required.
    """
    use = deps.app_state(request)
    key = deps.find_job(use, job_id, tenant)
    return deps.json_response(await cancel(use.kubernetes, use.cluster, use.leadership, key, use.now), status=202)


@router.get(
    "/v1/jobs/{job_id}/usage",
    response_model=UsageView,
    openapi_extra=deps.SCOPED,
    summary="Read a job's usage",
    response_description="The known figures",
    responses=responses(*deps.JOB_ERRORS),
)
async def read_usage(request: Request, job_id: deps.JobIdPath, scope: deps.ReadScope) -> Response:
    """Read CPU, throttling, memory and GPU figures. An unknown figure is null: `source` and `problem` say why."""
    use = deps.app_state(request)
    key = deps.find_job(use, job_id, scope)
    record = use.cluster.record(key)
    report = await report_usage(use.cluster, use.prometheus, key, record.usage if record else None, now=use.now)
    known = {"id": key.name, "source": report.source, "problem": report.problem, "findings": findings(report.usage)}
    return deps.json_response(known | asdict(report.usage))


def _encode_page(use: deps.AppState, places: list[Place], scope: str | None) -> tuple[list[msgspec.Raw], Place | None]:
    """Encode the first jobs that together have at most `PAGE_BYTES`, but at least one; and return the last position."""
    jobs: list[msgspec.Raw] = []
    last, size = None, 0
    for place in places:
        view = use.cluster.view(place[1])
        if view is not None:  # The job may have been deleted during the scan.
            document = msgspec.json.encode(deps.view_for_scope(view, scope))
            size += len(document)
            if jobs and size > PAGE_BYTES:
                break
            jobs.append(msgspec.Raw(document))
        last = place
    return jobs, last


def _idempotency_key(request: Request) -> str | None:
    values = request.headers.getlist(_KEY_HEADER)
    if not values:
        return None
    if len(values) > 1 or _IDEMPOTENCY_KEY.fullmatch(values[0]) is None:
        message = "must be sent once, with 1 to 255 printable ASCII characters"
        violation = errors.Violation(_KEY_HEADER, "malformed", message)
        raise errors.InvalidParameter(f"the {_KEY_HEADER} header {message}", violations=(violation,))
    return values[0]


def _namespace(use: deps.AppState, tenant: str | None) -> str | None:
    if tenant is None:
        return None
    known = use.policy.tenants.get(tenant)
    if known is None:
        raise errors.UnknownTenant(f"the policy has no tenant {tenant[:63]!r}")
    return known.namespace


def write_cursor(place: Place) -> str:
    created, key = place
    return base64.urlsafe_b64encode(f"{created.isoformat()}|{key.namespace}|{key.name}".encode()).decode()


def read_cursor(cursor: str) -> Place:
    try:
        created, namespace, name = base64.urlsafe_b64decode(cursor.encode("ascii")).decode().split("|")
        moment = datetime.fromisoformat(created)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
    except (ValueError, binascii.Error) as error:
        raise errors.InvalidParameter("the cursor is not a `next_cursor` of a list") from error
    return moment, JobKey(namespace, name)
