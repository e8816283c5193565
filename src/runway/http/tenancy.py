"""Who a request is for. There is no authentication: the header is a claim, and the network decides who can make it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.params import Header

from runway.errors import TenantRequired, UnknownTenant
from runway.http.services import services
from runway.policy import TENANT_NAME

HEADER = "X-Tenant-ID"

# The dependencies are coroutines, since FastAPI runs plain functions in a thread. The parameter is declared so that
# OpenAPI shows the header; the raw headers are read instead, since FastAPI hides one that is sent twice.
_Declared = Annotated[str | None, Header(alias=HEADER, description="The tenant, as the policy names it")]


async def required_tenant(request: Request, _declared: _Declared = None) -> str:
    """The tenant a write is for. Raises TenantRequired or UnknownTenant."""
    tenant = _claimed(request)
    if tenant is None:
        raise TenantRequired(f"send the header {HEADER} with the name of your tenant")
    return tenant


async def optional_tenant(request: Request, _declared: _Declared = None) -> str | None:
    """The tenant a read is scoped to; None where no header is sent. Raises TenantRequired or UnknownTenant."""
    return _claimed(request)


RequiredTenant = Annotated[str, Depends(required_tenant)]
OptionalTenant = Annotated[str | None, Depends(optional_tenant)]


async def limited_scope(request: Request, scope: OptionalTenant) -> str | None:
    """The tenant that a read is scoped to, after taking one of its reads. Raises RateLimited too."""
    services(request).limits.take_read(scope)
    return scope


ReadScope = Annotated[str | None, Depends(limited_scope)]


def _claimed(request: Request) -> str | None:
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise TenantRequired(f"the header {HEADER} is sent {len(values)} times; once is enough")
    if TENANT_NAME.fullmatch(values[0]) is None:
        raise TenantRequired(f"the header {HEADER} must be 1 to 63 lower-case letters, digits or '-'")
    if values[0] not in services(request).policy.tenants:
        raise UnknownTenant(f"tenant {values[0]} is not in the policy; ask a platform operator to add it")
    return values[0]
