"""`/v1/jobs/{id}/usage`: what a job uses of what it was given."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from runway.api.app_state import AppState, app_state
from runway.api.jobs import find_job
from runway.api.models import UsageView
from runway.api.problems import operation_id, responses
from runway.api.query import only_known_parameters
from runway.api.tenancy import ReadScope
from runway.errors import (
    InvalidParameter,
    JobNotFound,
    NotReady,
    RateLimited,
    RouteNotFound,
    TenantRequired,
    UnknownTenant,
)
from runway.jobs.record import record_of
from runway.jobs.usage import Usage, findings
from runway.services.job_usage import UsageReport, report_usage
from runway.state.job_store import JobKey

router = APIRouter(
    tags=["jobs"], dependencies=[Depends(only_known_parameters)], generate_unique_id_function=operation_id
)

_encoder: Final = msgspec.json.Encoder()


@router.get(
    "/v1/jobs/{job_id}/usage",
    response_model=UsageView,
    summary="Read a job's usage",
    response_description="What is known of its usage",
    responses=responses(
        TenantRequired, UnknownTenant, JobNotFound, RouteNotFound, InvalidParameter, RateLimited, NotReady
    ),
)
async def read_usage(request: Request, job_id: str, scope: ReadScope) -> Response:
    """CPU, throttling, memory and GPU figures. 200 also where they are unknown: `source` and `problem` say why."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    report = await report_usage(use.observer, use.prometheus, key, _kept(use, key), now=use.now)
    return Response(_encoder.encode(usage_view(key.name, report)), media_type="application/json")


def _kept(use: AppState, key: JobKey) -> Usage | None:
    job = use.observer.job(key)
    record = record_of(job) if job else None
    return record.usage if record else None


def usage_view(job_id: str, report: UsageReport) -> UsageView:
    """The figures, and what they mean in plain words."""
    words = list(findings(report.usage))
    return UsageView(id=job_id, source=report.source, problem=report.problem, findings=words, **asdict(report.usage))
