"""`/v1/jobs/{id}/logs`: the log of an attempt, as text."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import Field

from runway.api.dependencies import (
    JOB_ERRORS,
    SCOPED,
    JobIdPath,
    QueryParameters,
    ReadScope,
    app_state,
    find_job,
    refuse_repeated_parameters,
)
from runway.api.problems import operation_id, responses
from runway.api.streaming import Body, StreamingResponse
from runway.errors import KubernetesUnavailable, LogsGone, LogsNotReady, TooBusy
from runway.services.job_logs import LogQuery, open_log

router = APIRouter(
    tags=["jobs"], dependencies=[Depends(refuse_repeated_parameters)], generate_unique_id_function=operation_id
)

ATTEMPT_HEADER: Final = "Runway-Attempt"


class LogParameters(QueryParameters):
    """The selection of an attempt and of the lines of its log."""

    follow: bool = False
    """Wait until the container starts, and send its log until it ends; with `attempt`, wait for that attempt too."""
    tail: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Only the last lines. A line of more than 16 KiB counts as several, as in the container runtime."""
    attempt: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The number of the attempt: 1 is the first, as in the view. Default: the last attempt."""
    timestamps: bool = False
    """Start each line with its time, in nanoseconds."""


@router.get(
    "/v1/jobs/{job_id}/logs",
    response_class=Response,
    openapi_extra=SCOPED,
    summary="Read a job's log",
    responses={
        200: {
            "description": "The log, byte for byte. It is complete if the answer ends regularly; otherwise Runway "
            "breaks the connection off",
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": {
                ATTEMPT_HEADER: {
                    "description": "The number of the attempt: use it as `attempt` to continue after a break",
                    "schema": {"type": "integer"},
                }
            },
        },
        **responses(*JOB_ERRORS, LogsNotReady, LogsGone, KubernetesUnavailable, TooBusy),
    },
)
async def read_logs(
    request: Request, job_id: JobIdPath, scope: ReadScope, query: Annotated[LogParameters, Query()]
) -> Response:
    """Read the log of one attempt from its pod. After the pod is deleted: 410 with the stored excerpt."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    selection = LogQuery(query.attempt, query.follow, query.tail, query.timestamps)

    async def opened() -> Body:
        opened = await open_log(use.kubernetes, use.cluster, key, selection, use.log_turn)
        return Body(opened.chunks, {ATTEMPT_HEADER: str(opened.attempt)})

    return StreamingResponse(use, scope, opened, "text/plain; charset=utf-8")
