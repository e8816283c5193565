"""Limits of reads and of open streams, per tenant: one tenant's polling does not slow another's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from runway.admission.rate import RateLimiter
from runway.errors import RateLimited, TooBusy
from runway.policy import Policy, Rate

ANONYMOUS: Final = Rate(per_minute=6000, burst=600)
"""Reads without a tenant header, all of them together."""
STREAM_RETRY_SECONDS: Final = 10


class Limits:
    """The read buckets and stream counts of one process."""

    def __init__(self, policy: Policy, max_streams: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._policy = policy
        self._max_streams = max_streams
        self._clock = clock
        self._reads: dict[str | None, RateLimiter] = {None: RateLimiter(ANONYMOUS)}
        self._reads |= {name: RateLimiter(tenant.rate.reads) for name, tenant in policy.tenants.items()}
        self.streams: Counter[str] = Counter()

    def take_read(self, tenant: str | None) -> None:
        """Take one read. Raises RateLimited with the seconds after which one will pass."""
        wait = self._reads[tenant].take(self._clock())
        if wait:
            who = f"tenant {tenant}" if tenant else "callers without a tenant header"
            raise RateLimited(f"{who} may not read that fast; the next read passes in {wait} s", retry_after=wait)

    def open_stream(self, tenant: str) -> None:
        """Count one more open stream of this tenant. Raises RateLimited or TooBusy."""
        limit = self._policy.tenants[tenant].rate.streams
        if self.streams[tenant] >= limit:
            raise RateLimited(
                f"tenant {tenant} has {limit} streams open, as many as it may", retry_after=STREAM_RETRY_SECONDS
            )
        if self.streams.total() >= self._max_streams:
            raise TooBusy(f"{self._max_streams} streams are open, as many as this process allows")
        self.streams[tenant] += 1

    def close_stream(self, tenant: str) -> None:
        """One stream of this tenant has ended."""
        self.streams[tenant] -= 1
