"""The pages: overview, jobs, one job, one tenant, capacity, the API, and errors.

A page is a read: it counts against the read rate of the tenant in `X-Tenant-ID`, or of all callers without that header.
The header scopes a page as it scopes the API. The log and event streams of a page count too: a browser sends no header.
No page shows the value of an environment variable.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from runway.api.dependencies import AppState, ReadScope, app_state, find_job
from runway.api.jobs import read_cursor, write_cursor
from runway.console.docs_page import reference_of
from runway.console.job_page import log_end, pod_with_log, timeline_of, usage_shown
from runway.console.jobs_page import SORTS, ListAddress, in_order, list_address
from runway.console.overview_page import busiest, health_of, holders_of, recent_failures, tenant_summary
from runway.console.pools import capacity_rows, pool_summaries
from runway.console.templating import STATIC_FILES, html_response, render, render_page
from runway.errors import InvalidParameter, JobNotFound, PublicError, RouteNotFound, TenantPageNotFound, Violation
from runway.jobs.annotations import usd
from runway.jobs.cost import cost_so_far
from runway.jobs.models import JobState, JobView
from runway.jobs.view import without_env_values
from runway.services.list_jobs import JobFilter, scan_page
from runway.state.job_store import JobKey

router = APIRouter(include_in_schema=False)

NEWEST_JOBS: Final = 10
"""Jobs on the overview and on the page of a tenant."""
API_PATHS: Final = ("/v1", "/healthz", "/readyz", "/metrics", "/openapi.json")
"""An error under these paths is a problem document, whatever the client accepts."""

MAX_VARIABLES: Final = 200
MAX_COMMAND_LENGTH: Final = 4000
"""Characters of a command on a page."""


Address = Annotated[ListAddress, Depends(list_address)]
Handler = Callable[[Request, Any], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Add the pages to an app. A client that accepts HTML gets an error as a page."""
    app.router.routes.extend(router.routes)
    for kind in (PublicError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _as_page(app.exception_handlers[kind]))


@router.get("/")
async def overview(request: Request, scope: ReadScope) -> Response:
    """Show the cluster at a glance. Before the first synchronization the page says that its figures are incomplete."""
    use = app_state(request)
    known = _tenants(use, scope)
    tenants = [tenant_summary(use, tenant) for tenant in busiest(use, known)]
    failures, failures_count = recent_failures(use, known)
    newest = _views(use, scan_page(use.cluster, JobFilter(_namespace(use, scope)), None, NEWEST_JOBS).keys)
    return _page(
        use,
        "overview.html",
        tenants=tenants,
        left_out=len(known) - len(tenants),
        failures=_views(use, failures),
        failures_count=failures_count,
        newest=newest,
        pools=pool_summaries(use),
        health=health_of(use),
        retention=use.policy.limits.retention_seconds,
    )


@router.get("/capacity")
async def capacity(request: Request, _scope: ReadScope) -> Response:
    """Show what exists, what is used and what is free in each pool, its prices, and the limits of a job."""
    use = app_state(request)
    return _page(
        use,
        "capacity.html",
        pools=pool_summaries(use),
        limits=use.policy.limits,
        images=use.policy.images.allow,
        capacity=capacity_rows(use),
    )


@router.get("/jobs")
async def jobs(request: Request, scope: ReadScope, address: Address) -> Response:
    """Show a page of jobs."""
    use = app_state(request)
    use.cluster.require_synced()
    wanted = JobFilter(
        _namespace(use, _chosen_tenant(use, scope, address.tenant)), _chosen_state(address.state), search=address.q
    )
    if address.sort and address.sort not in SORTS:
        raise _invalid_filter("sort", "is not an order", address.sort, list(SORTS))
    after = read_cursor(address.cursor) if address.cursor else None
    found = scan_page(use.cluster, wanted, after, address.page_size)
    return _page(
        use,
        "jobs.html",
        views=in_order(_views(use, found.keys), address.sort),
        tenants=_tenants(use, scope),
        list=address,
        following=write_cursor(found.after) if found.after else "",
        looked_at=found.looked_at,
    )


@router.get("/jobs/{job_id}")
async def job(
    request: Request,
    job_id: str,
    scope: ReadScope,
    address: Address,
    log: Annotated[bool, Query(description="Whether to read the end of the log")] = True,
) -> Response:
    """Show one job in full."""
    use = app_state(request)
    key = find_job(use, job_id, scope)
    view = use.cluster.view(key)
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
        has_log=pod_with_log(use, key, view) is not None,
        usage=usage,
        timeline=timeline_of(view, use.now()),
        command=_command(view),
        spent=(spent := cost_so_far(view, use.now())),
        spent_percent=_percent_of_ceiling(view, spent),
        list=address,
        env=_env_lengths(view),
    )


@router.get("/tenants/{tenant}")
async def tenant(request: Request, tenant: str, scope: ReadScope) -> Response:
    """Show a tenant's quota, the jobs that use it, and its newest jobs."""
    use = app_state(request)
    if tenant not in _tenants(use, scope):
        raise TenantPageNotFound(f"the policy has no tenant {tenant[:63]!r}")
    use.cluster.require_synced()
    holders, count = holders_of(use, tenant)
    newest = _views(use, scan_page(use.cluster, JobFilter(_namespace(use, tenant)), None, NEWEST_JOBS).keys)
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


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Show the HTTP API from the OpenAPI document. It never changes: rendered once, it does not count as a read."""
    state = request.app.state
    if not hasattr(state, "docs_page"):
        state.docs_page = render("docs.html", {"api": reference_of(request.app.openapi())})
    return html_response(state.docs_page)


@router.get("/static/{name}")
async def static(request: Request) -> Response:
    """Return a static file. Its path changes with its content, so a client may cache it forever."""
    file = STATIC_FILES.get(request.url.path)
    if file is None:
        raise RouteNotFound(f"no route {request.url.path[:200]!r}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(file.content, media_type=file.media_type, headers=headers)


def _as_page(plain: Callable[..., Any]) -> Handler:
    """Answer with a page where the client accepts HTML. Status and headers are those of the problem."""

    async def answer(request: Request, error: Any) -> Response:
        problem: Response = await plain(request, error)
        if not problem.body or not _wants_page(request):  # OPTIONS has no body.
            return problem
        document = msgspec.json.decode(bytes(problem.body))
        kept = {name: value for name, value in problem.headers.items() if name in ("retry-after", "allow")}
        values = {"problem": document, "path": request.url.path[:200]}
        return render_page("error.html", values, status=problem.status_code, headers=kept)

    return answer


def _wants_page(request: Request) -> bool:
    path = request.url.path
    is_api = any(path == known or path.startswith(f"{known}/") for known in API_PATHS)
    return not is_api and "text/html" in request.headers.get("accept", "")


def _page(use: AppState, template: str, **values: object) -> Response:
    common = {"now": use.now(), "all_states": [str(state) for state in JobState], "synced": use.cluster.synced}
    return render_page(template, common | values)


def _tenants(use: AppState, scope: str | None) -> list[str]:
    return list(use.policy.tenants) if scope is None else [scope]


def _namespace(use: AppState, tenant: str | None) -> str | None:
    return None if tenant is None else use.policy.tenants[tenant].namespace


def _views(use: AppState, keys: list[JobKey]) -> list[JobView]:
    return [view for key in keys if (view := use.cluster.view(key)) is not None]


def _chosen_tenant(use: AppState, scope: str | None, tenant: str) -> str | None:
    if not tenant:
        return scope
    known = _tenants(use, scope)
    if tenant not in known:
        raise _invalid_filter("tenant", "is not a known tenant", tenant, known)
    return tenant


def _chosen_state(state: str) -> tuple[JobState, ...]:
    if not state:
        return ()
    if state not in list(JobState):
        raise _invalid_filter("state", "is not a state", state, list(JobState))
    return (JobState(state),)


def _invalid_filter(field: str, message: str, observed: str, allowed: list[Any]) -> InvalidParameter:
    violation = Violation(field, "unknown_value", message, observed[:80], hint=f"choose one of {', '.join(allowed)}")
    return InvalidParameter(f"the filter {field} is invalid", violations=(violation,))


def _command(view: JobView) -> str:
    """Return the command in shell syntax, without the middle of a long one."""
    if view.spec is None:
        return ""
    text = shlex.join([*view.spec.command, *view.spec.args])
    if len(text) <= MAX_COMMAND_LENGTH:
        return text
    head, tail = text[: MAX_COMMAND_LENGTH // 2], text[-MAX_COMMAND_LENGTH // 2 :]
    return f"{head} [{len(text) - MAX_COMMAND_LENGTH} characters left out] {tail}"


def _env_lengths(view: JobView) -> list[tuple[str, int]]:
    """Return the names of the first environment variables, with the lengths of their values."""
    env = view.spec.env if view.spec else {}
    return [(name, len(value)) for name, value in islice(sorted(env.items()), MAX_VARIABLES)]


def _percent_of_ceiling(view: JobView, spent: Decimal | None) -> float:
    """Return the cost in percent of its ceiling; 0 where either is unknown."""
    ceiling = usd(view.cost.ceiling) if view.cost else None
    return round(float(min(100 * spent / ceiling, Decimal(100))), 2) if spent and ceiling else 0.0


async def _nothing() -> None:
    return None
