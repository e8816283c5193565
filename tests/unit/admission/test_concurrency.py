"""Open streams count per tenant, and separately for anonymous callers."""

from __future__ import annotations

import pytest

from runway.admission.rate_limit import RequestLimits
from runway.errors import RateLimited, TooBusy
from tests.support.builders import policy

TENANT, OTHER = sorted(policy().tenants)[:2]


def limits(max_streams: int) -> RequestLimits:
    return RequestLimits(policy(), max_streams, max_calls=4, clock=lambda: 0)


def opened(limits: RequestLimits, tenant: str | None) -> int:
    """Return how many streams this caller can open before its own limit."""
    number = 0
    while True:
        try:
            limits.open_stream(tenant)
        except RateLimited:
            return number
        number += 1


@pytest.mark.parametrize(("max_streams", "shared"), [(100, 25), (10, 2), (3, 1), (1, 1)])
def test_anonymous_callers_share_a_quarter_of_the_streams_and_at_least_one(max_streams: int, shared: int) -> None:
    assert opened(limits(max_streams), None) == shared


def test_anonymous_and_tenant_streams_are_counted_separately() -> None:
    found = limits(100)
    allowed = policy().tenants[TENANT].rate.streams
    assert opened(found, None) == 25
    assert opened(found, TENANT) == allowed
    found.close_stream(None)
    assert opened(found, None) == 1
    found.close_stream(TENANT)
    found.open_stream(TENANT)


def test_tenants_divide_the_streams_of_the_process_and_leave_one_for_another() -> None:
    found = limits(4)
    found.open_stream(None)
    for _ in range(2):
        found.open_stream(TENANT)
    with pytest.raises(TooBusy, match="3 of 4 streams are open, 2 of them for tenant speech"):
        found.open_stream(TENANT)
    found.open_stream(OTHER)
    with pytest.raises(TooBusy, match="4 of 4 streams are open, 1 of them for tenant vision"):
        found.open_stream(OTHER)
