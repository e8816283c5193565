"""Rate limits, and bounds on streams, submissions and bodies in progress.

Rates are per tenant, and tenants share the other bounds fairly (`runway.fair_share`). So a tenant that sends many
requests does not slow another.

The rate limit is the generic cell rate algorithm (GCRA): a token bucket without a timer. Its state is the theoretical
arrival time (TAT) of the next request that keeps exactly to the rate.
https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from runway.errors import RateLimited, TooBusy
from runway.fair_share import FairSlots
from runway.policy import Policy, Rate

ANONYMOUS: Final = Rate(per_minute=6000, burst=600)  # The rate of all reads without a tenant header together.
ANONYMOUS_STREAM_SHARE: Final = 0.25
"""The share of the process's streams for all callers without a tenant header; the rest is for tenants."""
STREAM_RETRY_SECONDS: Final = 10
SUBMISSIONS_PER_CALL: Final = 2
"""Submissions in progress per concurrent call to Kubernetes: one that is in the call, one that prepares it."""
SUBMISSION_RETRY_SECONDS: Final = 1
MAX_BODIES: Final = 128
"""Request bodies received at once: each is in memory for as long as its client takes to send it."""

_NS: Final = 1_000_000_000


@dataclass(slots=True)
class RateLimiter:
    """At most `burst` requests at once and `per_minute` in the long run. Times are monotonic nanoseconds."""

    rate: Rate
    _interval: int = field(init=False)
    _tat: int | None = None

    def __post_init__(self) -> None:
        self._interval = -(-60 * _NS // self.rate.per_minute)

    def try_acquire(self, now: int) -> int:
        """Count a request at `now` and return 0, or return the whole seconds until the next one is allowed."""
        tat = now if self._tat is None else max(self._tat, now)
        early = tat - (self.rate.burst - 1) * self._interval
        if now < early:
            return math.ceil((early - now) / _NS)
        self._tat = tat + self._interval
        return 0

    def backfill(self, at: int) -> None:
        """Count a request at `at`, before this limiter was created. Call it oldest first."""
        self._tat = (at if self._tat is None else max(self._tat, at)) + self._interval

    @property
    def window_seconds(self) -> float:
        """The time in which an empty bucket fills; older requests no longer count."""
        return self._interval * self.rate.burst / _NS


class RequestLimits:
    """The read rates, and the streams, submissions and bodies in progress, of one process."""

    def __init__(
        self, policy: Policy, max_streams: int, max_calls: int, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._policy = policy
        self._anonymous_streams = max(1, int(max_streams * ANONYMOUS_STREAM_SHARE))
        self._clock = clock
        self._reads: dict[str | None, RateLimiter] = {None: RateLimiter(ANONYMOUS)}
        self._reads |= {name: RateLimiter(tenant.rate.reads) for name, tenant in policy.tenants.items()}
        self._streams = FairSlots(max_streams)
        self.streams = self._streams.held
        """Open streams by tenant."""
        self._submissions = FairSlots(max_calls * SUBMISSIONS_PER_CALL)
        self._bodies = FairSlots(MAX_BODIES)

    def check_read_rate(self, tenant: str | None) -> None:
        """Count one read. Raises RateLimited with the seconds until the next one is allowed."""
        wait = self._reads[tenant].try_acquire(self._clock())
        if wait:
            raise RateLimited(f"{_name(tenant)} exceeded the read rate; retry in {wait} s", retry_after=wait)

    def open_stream(self, tenant: str | None) -> None:
        """Count one more open stream of a tenant, or of all callers without one. Raises RateLimited or TooBusy."""
        limit = self._anonymous_streams if tenant is None else self._policy.tenants[tenant].rate.streams
        if self.streams[tenant] >= limit:
            raise RateLimited(f"{_name(tenant)}: {limit} of {limit} streams are open", retry_after=STREAM_RETRY_SECONDS)
        _take(self._streams, tenant, "streams are open", STREAM_RETRY_SECONDS)

    def close_stream(self, tenant: str | None) -> None:
        """Count one stream less of a tenant, or of all callers without one."""
        self._streams.release(tenant)

    def submission_slot(self, tenant: str) -> AbstractContextManager[None]:
        """Count a submission while it is in progress. Raises TooBusy at once if too many are."""
        return _slot(self._submissions, tenant, "submissions are in progress")

    def body_slot(self, tenant: str) -> AbstractContextManager[None]:
        """Count a request body while it is received. Raises TooBusy at once if too many are."""
        return _slot(self._bodies, tenant, "request bodies are being received")


@contextmanager
def _slot(slots: FairSlots, tenant: str, activity: str) -> Iterator[None]:
    """Hold a slot of this tenant. Raises TooBusy."""
    _take(slots, tenant, activity, SUBMISSION_RETRY_SECONDS)
    try:
        yield
    finally:
        slots.release(tenant)


def _take(slots: FairSlots, tenant: str | None, activity: str, retry_after: int) -> None:
    """Take a slot if this tenant holds fewer than are free. Raises TooBusy."""
    if not slots.has_room(tenant):
        shares = f"{slots.held[tenant]} of them for {_name(tenant)}; a tenant gets one more while it has fewer than"
        detail = f"{slots.limit - slots.free} of {slots.limit} {activity}, {shares} the {slots.free} that are free"
        raise TooBusy(detail, retry_after=retry_after)
    slots.take(tenant)


def _name(tenant: str | None) -> str:
    return f"tenant {tenant}" if tenant is not None else "callers without a tenant header"
