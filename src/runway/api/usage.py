"""`/v1/jobs/{id}/usage`: the resource usage of a job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from runway.api.dependencies import (
    SCOPED,
    AppState,
    JobIdPath,
    ReadScope,
    app_state,
    find_job,
    no_parameters,
    refuse_repeated_parameters,
)
from runway.api.models import UsageView
from runway.api.problems import operation_id, responses
from runway.errors import (
    InvalidParameter,
    JobNotFound,
    NotReady,
    RateLimited,
    RouteNotFound,
    TenantRequired,
    UnknownTenant,
)
from runway.jobs.models import Usage
from runway.jobs.record import record_of
from runway.jobs.usage import findings
from runway.services.job_usage import UsageReport, report_usage
from runway.state.job_store import JobKey

router = APIRouter(
    tags=["jobs"],
    dependencies=[Depends(refuse_repeated_parameters), Depends(no_parameters)],
    generate_unique_id_function=operation_id,
)

_encoder: Final = msgspec.json.Encoder()


@router.get(
    "/v1/jobs/{job_id}/usage",
    response_model=UsageView,
    openapi_extra=SCOPED,
    summary="Read a job's usage",
    response_description="The known figures",
    responses=responses(
        TenantRequired, UnknownTenant, JobNotFound, RouteNotFound, InvalidParameter, RateLimited, NotReady
    ),
)
async def read_usage(request: Request, job_id: JobIdPath, scope: ReadScope) -> Response:
    """Read CPU, throttling, memory and GPU figures. An unknown figure is null: `source` and `problem` say why."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    report = await report_usage(use.cluster, use.prometheus, key, _kept(use, key), now=use.now)
    return Response(_encoder.encode(usage_view(key.name, report)), media_type="application/json")


def _kept(use: AppState, key: JobKey) -> Usage | None:
    job = use.cluster.job(key)
    record = record_of(job) if job else None
    return record.usage if record else None


def usage_view(job_id: str, report: UsageReport) -> UsageView:
    """Combine the figures with their findings."""
    words = list(findings(report.usage))
    return UsageView(id=job_id, source=report.source, problem=report.problem, findings=words, **asdict(report.usage))
