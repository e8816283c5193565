"""Dependencies of the routes: state of the app, tenant, parameters and body.

Runway has no authentication: the tenant header is a claim, and the network decides who can send it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final, cast

import msgspec
from fastapi import Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from runway import errors
from runway.admission.rate_limit import RequestLimits
from runway.api.problems import MAX_VIOLATIONS
from runway.controllers.leadership import Leadership
from runway.fair_share import FairSemaphore
from runway.jobs.annotations import JOB_ID
from runway.jobs.models import TENANT_PATTERN, JobView
from runway.jobs.spec import decode
from runway.jobs.view import without_env_values
from runway.kube.client import KubeClient
from runway.policy import TENANT_NAME, Policy
from runway.prometheus import Prometheus
from runway.services.submit import Submitter
from runway.settings import Settings
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics
from runway.text import did_you_mean, shorten

TENANT_HEADER: Final = "X-Tenant-ID"
TENANT_PARAMETER: Final[dict[str, Any]] = {
    "name": TENANT_HEADER,
    "in": "header",
    "required": False,
    "description": "The tenant's name. Sent once",
    "schema": {"type": "string", "pattern": TENANT_PATTERN, "examples": ["vision"]},
}
"""For `openapi_extra`: the dependencies read the raw headers, since FastAPI hides a header that is sent twice."""
SCOPED: Final[dict[str, Any]] = {"parameters": [TENANT_PARAMETER]}
READ_ERRORS: Final = (
    errors.TenantRequired,
    errors.UnknownTenant,
    errors.InvalidParameter,
    errors.RateLimited,
    errors.NotReady,
)
"""The errors of every read with a scope."""
JOB_ERRORS: Final = (errors.JobNotFound, errors.RouteNotFound, *READ_ERRORS)
"""The errors of every call for one job."""
BODY_SECONDS: Final = 20.0
"""The maximum time until a body arrives: 13 kB/s for the largest body."""


@dataclass(slots=True)
class AppState:
    """The parts of the app that a request may use."""

    settings: Settings
    policy: Policy
    policy_hash: str
    kubernetes: KubeClient
    cluster: ClusterState
    leadership: Leadership
    submitter: Submitter
    limits: RequestLimits
    metrics: Metrics
    prometheus: Prometheus | None
    now: Callable[[], datetime]
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a signal ends the process: open streams end then."""
    log_turn: FairSemaphore = field(default_factory=lambda: FairSemaphore(1))
    """Held while a slice of a log is processed, so that logs do not delay other requests."""


def app_state(request: Request) -> AppState:
    return cast("AppState", request.app.state.services)


class QueryParameters(BaseModel):
    """The query parameters of a route; `check_parameter_names` refuses all others."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


async def check_parameter_names(request: Request) -> None:
    """Refuse unknown and repeated parameters: `?dryrun=true` or `?dry_run=true&dry_run=false` must not submit.

    Raises InvalidParameter. It comes first, so that such a request counts against no rate limit.
    """
    if not request.scope["query_string"]:
        return
    counts = Counter(name for name, _ in request.query_params.multi_items())
    models = [field.field_info.annotation for field in request.scope["route"].dependant.query_params]
    known = [name for model in models for name in model.model_fields]
    hint = f"parameters here: {', '.join(known)}" if known else "this path has no parameters"
    violations = [
        errors.Violation(shorten(name), "unknown_parameter", "is unknown here", hint=did_you_mean(name, known) + hint)
        for name in islice((name for name in counts if name not in known), MAX_VIOLATIONS)
    ]
    violations += [
        errors.Violation(name, "repeated_parameter", f"is sent {counts[name]} times", hint="send it once")
        for name in known
        if counts[name] > 1 and name != "state"
    ]
    if violations:
        raise errors.InvalidParameter("a query parameter is invalid", violations=tuple(violations[:MAX_VIOLATIONS]))


CHECKED_PARAMETERS: Final = [Depends(check_parameter_names)]
"""The dependencies of every router under `/v1`."""


# The dependencies are coroutines, since FastAPI runs plain functions in a thread.
async def required_tenant(request: Request) -> str:
    """Return the tenant of a write. Raises TenantRequired or UnknownTenant."""
    tenant = _claimed_tenant(request)
    if tenant is None:
        raise errors.TenantRequired(f"the header {TENANT_HEADER} is missing")
    return tenant


async def rate_limited_tenant(request: Request, tenant: Annotated[str, Depends(required_tenant)]) -> str:
    """Return the tenant of a cancel, which counts as one of its reads. Raises RateLimited."""
    app_state(request).limits.check_read_rate(tenant)
    return tenant


async def rate_limited_scope(request: Request) -> str | None:
    """Count a read, and return its tenant or None. Raises TenantRequired, UnknownTenant or RateLimited."""
    scope = _claimed_tenant(request)
    app_state(request).limits.check_read_rate(scope)
    return scope


async def claimed_tenant(request: Request) -> str | None:
    """Return the tenant of a read that no limit counts, or None. Raises TenantRequired or UnknownTenant."""
    return _claimed_tenant(request)


SubmitTenant = Annotated[str, Depends(required_tenant)]
CancelTenant = Annotated[str, Depends(rate_limited_tenant)]
ReadScope = Annotated[str | None, Depends(rate_limited_scope)]
ClaimedTenant = Annotated[str | None, Depends(claimed_tenant)]
JobIdPath = Annotated[
    str, Path(description="The job's id, as `POST /v1/jobs` returned it", examples=["rw-agkyxsiunucc5lqpeogd"])
]


def _claimed_tenant(request: Request) -> str | None:
    values = request.headers.getlist(TENANT_HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise errors.TenantRequired(f"the header {TENANT_HEADER} is sent {len(values)} times; send it once")
    if TENANT_NAME.fullmatch(values[0]) is None:
        raise errors.TenantRequired(f"the header {TENANT_HEADER} must be 1 to 63 lower-case letters, digits or '-'")
    if values[0] not in app_state(request).policy.tenants:
        raise errors.UnknownTenant(f"the policy has no tenant {values[0]}")
    return values[0]


def view_for_scope(view: JobView, scope: str | None) -> JobView:
    """Hide the values of the environment from callers of other tenants."""
    return view if scope == view.tenant else without_env_values(view)


def find_job(use: AppState, job_id: str, scope: str | None) -> JobKey:
    """Find a job; another tenant's is not found. Raises JobNotFound or NotReady."""
    use.cluster.require_synced()
    if JOB_ID.fullmatch(job_id):
        tenants = use.policy.tenants.values() if scope is None else [use.policy.tenants[scope]]
        for tenant in tenants:
            key = JobKey(tenant.namespace, job_id)
            if use.cluster.job(key) is not None:
                return key
            if orphans := use.cluster.orphaned_pods(key):
                raise errors.JobOrphaned(job_id, [pod.metadata.name for pod in orphans])
    raise errors.JobNotFound(job_id[:80])


def job_view(use: AppState, key: JobKey) -> JobView:
    """Return the view of a job. Raises JobNotFound."""
    view = use.cluster.view(key)
    if view is None:
        raise errors.JobNotFound(key.name)
    return view


async def read_json(request: Request, limit: int, seconds: float = BODY_SECONDS) -> object:
    """Read strict JSON of limited size. Raises UnsupportedMediaType, BodyTooLarge, BodyTooSlow or InvalidSpec."""
    media_type, _, parameters = ", ".join(request.headers.getlist("content-type")).partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise errors.UnsupportedMediaType("the body must be application/json in UTF-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise errors.UnsupportedMediaType("the body must not be compressed")
    try:
        async with asyncio.timeout(seconds):
            body = await _read_body(request, limit)
    except TimeoutError:
        raise errors.BodyTooSlow(f"the request body did not arrive within {seconds:g} s") from None
    try:
        return decode(body)
    except ValueError as error:
        malformed = errors.Violation("body", "malformed_json", str(error), hint="send one JSON object")
        raise errors.InvalidSpec((malformed,)) from error


def json_response(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/json", headers=headers)


async def _read_body(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _body_too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _body_too_large(limit)
    return bytes(body)


def _body_too_large(limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(f"a request body may have at most {limit} bytes")
