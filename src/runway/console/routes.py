"""The pages: overview, jobs, one job, one tenant, the API, and what is answered where there is none.

A page is a read: it takes one from the bucket of the `X-Tenant-ID` header, which scopes it as it does the API, or from
the one that all callers without a header share. So do the log and event streams that its script opens: a browser sends
no header. No page shows the value of an environment variable.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from runway.api.app_state import AppState, app_state
from runway.api.jobs import find_job, read_cursor, write_cursor
from runway.api.tenancy import ReadScope
from runway.console.docs_page import reference_of
from runway.console.job_page import log_end, usage_shown
from runway.console.overview_page import busiest, health_of, holders_of, tenant_summary
from runway.console.static_files import BY_PATH
from runway.console.templating import html_response, render, render_page
from runway.console.timeline import timeline_of
from runway.errors import InvalidParameter, JobNotFound, PublicError, RouteNotFound, Violation
from runway.jobs.annotations import usd
from runway.jobs.view import JobState, JobView, without_env_values
from runway.services.list_jobs import scan_page
from runway.state.job_store import JobKey

router = APIRouter(include_in_schema=False)

PAGE_SIZE: Final = 50
"""Jobs in a page."""
NEWEST_JOBS: Final = 10
"""Jobs on the overview and on a tenant's page."""
FOR_MACHINES: Final = ("/v1", "/healthz", "/readyz", "/metrics", "/openapi.json")
"""Whatever a client accepts, here an error is a problem document."""

MAX_VARIABLES: Final = 200
MAX_COMMAND_LENGTH: Final = 4000
"""Characters of a command that are shown."""

_READ: Final = ["GET", "HEAD"]

Handler = Callable[[Request, Any], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Add the pages to an app whose errors are problem documents; who takes HTML is told of them by pages then."""
    app.router.routes.extend(router.routes)
    for kind in (PublicError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _for_people(app.exception_handlers[kind]))


@router.api_route("/", methods=_READ)
async def overview(request: Request, scope: ReadScope) -> Response:
    """The cluster at a glance; also before the first lists are in, and then it says that its figures are not whole."""
    use = app_state(request)
    known = _tenants(use, scope)
    tenants = [tenant_summary(use, tenant) for tenant in busiest(use, known)]
    newest = _views(use, scan_page(use.observer, _namespace(use, scope), (), None, NEWEST_JOBS).keys)
    left_out = len(known) - len(tenants)
    return _page(use, "overview.html", tenants=tenants, left_out=left_out, newest=newest, health=health_of(use))


@router.api_route("/jobs", methods=_READ)
async def jobs(
    request: Request,
    scope: ReadScope,
    tenant: Annotated[str, Query(max_length=63)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """A page of jobs. An empty parameter is none: that is what a form sends."""
    use = app_state(request)
    use.observer.require_synced()
    wanted, states = _chosen_tenant(use, scope, tenant), _chosen_state(state)
    found = scan_page(use.observer, _namespace(use, wanted), states, read_cursor(cursor) if cursor else None, PAGE_SIZE)
    return _page(
        use,
        "jobs.html",
        views=_views(use, found.keys),
        tenants=_tenants(use, scope),
        tenant=wanted or "",
        state=state,
        cursor=cursor,
        following=write_cursor(found.after) if found.after else "",
        looked_at=found.looked_at,
    )


@router.api_route("/jobs/{job_id}", methods=_READ)
async def job(
    request: Request,
    job_id: str,
    scope: ReadScope,
    log: Annotated[bool, Query(description="Whether the end of the log is read")] = True,
) -> Response:
    """Everything that is known of one job."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    view = use.observer.view(key)
    if view is None:
        raise JobNotFound(job_id)
    shown_log, usage = await asyncio.gather(
        log_end(use, key, view, scope) if log else _nothing(), usage_shown(use, key, view)
    )
    return _page(
        use,
        "job.html",
        job=without_env_values(view),
        log=shown_log,
        usage=usage,
        timeline=timeline_of(view, use.now()),
        command=_command(view),
        spent=_spent(view),
        env=_env_lengths(view),
    )


@router.api_route("/tenants/{tenant}", methods=_READ)
async def tenant(request: Request, tenant: str, scope: ReadScope) -> Response:
    """A tenant's quota, who holds it, and its newest jobs."""
    use = app_state(request)
    if tenant not in _tenants(use, scope):
        raise RouteNotFound(f"no tenant {tenant[:63]!r} is in the policy")
    use.observer.require_synced()
    holders, count = holders_of(use, tenant)
    newest = _views(use, scan_page(use.observer, _namespace(use, tenant), (), None, NEWEST_JOBS).keys)
    return _page(
        use,
        "tenant.html",
        tenant=tenant_summary(use, tenant),
        rate=use.policy.tenants[tenant].rate,
        streams=use.limits.streams[tenant],
        holders=holders,
        holders_count=count,
        newest=newest,
    )


@router.api_route("/docs", methods=_READ)
async def docs(request: Request) -> Response:
    """The HTTP API, made of the app's own OpenAPI document. That never changes: rendered once, it counts as no read."""
    state = request.app.state
    if not hasattr(state, "docs_page"):
        state.docs_page = render("docs.html", {"api": reference_of(request.app.openapi())})
    return html_response(state.docs_page)


@router.api_route("/static/{name}", methods=_READ)
async def static(request: Request) -> Response:
    """A file of the pages. Its path changes with its content, so it may be kept for good."""
    asset = BY_PATH.get(request.url.path)
    if asset is None:
        raise RouteNotFound(f"nothing is at {request.url.path[:200]!r}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(asset.content, media_type=asset.media_type, headers=headers)


def _for_people(plain: Callable[..., Any]) -> Handler:
    """The same answer as a page, where it is not for a machine: status and headers are those of the problem."""

    async def answer(request: Request, error: Any) -> Response:
        problem: Response = await plain(request, error)
        if not _wants_page(request):
            return problem
        document = msgspec.json.decode(bytes(problem.body))
        kept = {name: value for name, value in problem.headers.items() if name in ("retry-after", "allow")}
        values = {"problem": document, "path": request.url.path[:200]}
        return render_page("error.html", values, status=problem.status_code, headers=kept)

    return answer


def _wants_page(request: Request) -> bool:
    path = request.url.path
    for_machine = any(path == known or path.startswith(f"{known}/") for known in FOR_MACHINES)
    return not for_machine and "text/html" in request.headers.get("accept", "")


def _page(use: AppState, template: str, **values: object) -> Response:
    common = {"now": use.now(), "all_states": [str(state) for state in JobState], "synced": use.observer.synced}
    return render_page(template, common | values)


def _tenants(use: AppState, scope: str | None) -> list[str]:
    return list(use.policy.tenants) if scope is None else [scope]


def _namespace(use: AppState, tenant: str | None) -> str | None:
    return None if tenant is None else use.policy.tenants[tenant].namespace


def _views(use: AppState, keys: list[JobKey]) -> list[JobView]:
    return [view for key in keys if (view := use.observer.view(key)) is not None]


def _chosen_tenant(use: AppState, scope: str | None, tenant: str) -> str | None:
    if not tenant:
        return scope
    known = _tenants(use, scope)
    if tenant not in known:
        raise _unusable("tenant", "is not one that can be chosen here", tenant, known)
    return tenant


def _chosen_state(state: str) -> tuple[JobState, ...]:
    if not state:
        return ()
    if state not in list(JobState):
        raise _unusable("state", "is not a state", state, list(JobState))
    return (JobState(state),)


def _unusable(field: str, message: str, observed: str, allowed: list[Any]) -> InvalidParameter:
    violation = Violation(field, "unknown_value", message, observed[:80], hint=f"choose one of {', '.join(allowed)}")
    return InvalidParameter(f"the filter {field} cannot be used", violations=(violation,))


def _command(view: JobView) -> str:
    """The command as a shell would take it, its middle left out where it is long."""
    if view.spec is None:
        return ""
    text = shlex.join([*view.spec.command, *view.spec.args])
    if len(text) <= MAX_COMMAND_LENGTH:
        return text
    head, tail = text[: MAX_COMMAND_LENGTH // 2], text[-MAX_COMMAND_LENGTH // 2 :]
    return f"{head} [{len(text) - MAX_COMMAND_LENGTH} characters left out] {tail}"


def _env_lengths(view: JobView) -> list[tuple[str, int]]:
    """The names of the first environment variables, with the lengths of their values."""
    env = view.spec.env if view.spec else {}
    return [(name, len(value)) for name, value in islice(sorted(env.items()), MAX_VARIABLES)]


def _spent(view: JobView) -> float:
    """The actual cost in percent of its ceiling; 0 where either is not known."""
    actual = usd(view.cost.actual) if view.cost and view.cost.actual else None
    ceiling = usd(view.cost.ceiling) if view.cost else None
    return round(float(min(100 * actual / ceiling, Decimal(100))), 2) if actual and ceiling else 0.0


async def _nothing() -> None:
    return None
