"""Who a request is for. There is no authentication: the header is a claim, and the network decides who can make it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from runway.api.app_state import app_state
from runway.errors import TenantRequired, UnknownTenant
from runway.jobs.view import JobView, without_env_values
from runway.policy import TENANT_NAME

HEADER = "X-Tenant-ID"

# The raw headers are read, since a parameter of FastAPI's would hide one that is sent twice. OpenAPI is told of them in
# `contract/document.py`.


def required_tenant(request: Request) -> str:
    """The tenant a write is for. Raises TenantRequired or UnknownTenant."""
    tenant = _claimed(request)
    if tenant is None:
        raise TenantRequired(f"send the header {HEADER} with the name of your tenant")
    return tenant


# Coroutines, since FastAPI runs plain functions in a thread.
async def rate_limited_tenant(request: Request) -> str:
    """The tenant a cancel is for, after taking one of its reads.

    Raises TenantRequired, UnknownTenant or RateLimited.
    """
    tenant = required_tenant(request)
    app_state(request).limits.check_read_rate(tenant)
    return tenant


async def rate_limited_scope(request: Request) -> str | None:
    """The tenant that a read is scoped to, after taking one of its reads; None where no header is sent.

    Raises TenantRequired, UnknownTenant or RateLimited.
    """
    scope = _claimed(request)
    app_state(request).limits.check_read_rate(scope)
    return scope


ReadScope = Annotated[str | None, Depends(rate_limited_scope)]
CancelTenant = Annotated[str, Depends(rate_limited_tenant)]


def view_for_scope(view: JobView, scope: str | None) -> JobView:
    """A view as a caller of this scope may see it: the values of its environment are for its own tenant."""
    return view if scope == view.tenant else without_env_values(view)


def _claimed(request: Request) -> str | None:
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise TenantRequired(f"the header {HEADER} is sent {len(values)} times; once is enough")
    if TENANT_NAME.fullmatch(values[0]) is None:
        raise TenantRequired(f"the header {HEADER} must be 1 to 63 lower-case letters, digits or '-'")
    if values[0] not in app_state(request).policy.tenants:
        raise UnknownTenant(f"tenant {values[0]} is not in the policy; ask a platform operator to add it")
    return values[0]
