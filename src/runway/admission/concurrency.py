"""Limits of reads, open streams, bodies and submissions in progress: one tenant's haste does not slow another's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from runway.admission.rate_limit import RateLimiter
from runway.errors import RateLimited, TooBusy
from runway.policy import Policy, Rate

ANONYMOUS: Final = Rate(per_minute=6000, burst=600)
"""Reads without a tenant header, all of them together."""
ANONYMOUS_STREAM_SHARE: Final = 0.25
"""Part of the process's streams that all callers without a tenant header share, so that tenants keep the rest."""
STREAM_RETRY_SECONDS: Final = 10
SUBMISSIONS_PER_CALL: Final = 2
"""Submissions in progress for each call to Kubernetes that may be: half of them speak to it, half are about to."""
SUBMISSION_RETRY_SECONDS: Final = 1
MAX_BODIES: Final = 128
"""Request bodies that are read at once: they are all in memory, for as long as their clients take to send them."""


class RequestLimits:
    """The read buckets, and the streams and submissions in progress, of one process."""

    def __init__(
        self, policy: Policy, max_streams: int, max_calls: int, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._policy = policy
        self._max_streams = max_streams
        self._anonymous_streams = max(1, int(max_streams * ANONYMOUS_STREAM_SHARE))
        self._max_submissions = max_calls * SUBMISSIONS_PER_CALL
        self._clock = clock
        self._reads: dict[str | None, RateLimiter] = {None: RateLimiter(ANONYMOUS)}
        self._reads |= {name: RateLimiter(tenant.rate.reads) for name, tenant in policy.tenants.items()}
        self.streams: Counter[str | None] = Counter()
        self.submissions: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()

    def check_read_rate(self, tenant: str | None) -> None:
        """Take one read. Raises RateLimited with the seconds after which one will pass."""
        wait = self._reads[tenant].try_acquire(self._clock())
        if wait:
            raise RateLimited(
                f"{_name(tenant)} may not read that fast; the next read passes in {wait} s", retry_after=wait
            )

    def open_stream(self, tenant: str | None) -> None:
        """Count one more open stream of this tenant, or of the callers without one. Raises RateLimited or TooBusy."""
        limit = self._anonymous_streams if tenant is None else self._policy.tenants[tenant].rate.streams
        if self.streams[tenant] >= limit:
            raise RateLimited(f"{_name(tenant)}: {limit} of {limit} streams are open", retry_after=STREAM_RETRY_SECONDS)
        if self.streams.total() >= self._max_streams:
            raise TooBusy(f"{self._max_streams} streams are open, as many as this process allows")
        self.streams[tenant] += 1

    def close_stream(self, tenant: str | None) -> None:
        """One stream of this tenant, or of the callers without one, has ended."""
        self.streams[tenant] -= 1

    def submission_slot(self, tenant: str) -> AbstractContextManager[None]:
        """Count one more submission in progress meanwhile. Raises TooBusy at once where there are enough.

        Without a bound each caller waits for all who came before, and at twice the load that can be borne all of them
        wait in vain.
        """
        return _slot(self.submissions, tenant, self._max_submissions, "submissions are in progress")

    def body_slot(self, tenant: str) -> AbstractContextManager[None]:
        """Count one more request body that is read meanwhile. Raises TooBusy at once where there are enough."""
        return _slot(self.bodies, tenant, MAX_BODIES, "request bodies are being received")


@contextmanager
def _slot(counts: Counter[str], tenant: str, limit: int, what: str) -> Iterator[None]:
    """Count one more of this tenant meanwhile: at most `limit` of all, and half of that of one tenant.

    So no tenant alone can shut the others out. Raises TooBusy.
    """
    share = limit // 2
    if counts.total() >= limit:
        raise TooBusy(f"{limit} {what} already", retry_after=SUBMISSION_RETRY_SECONDS)
    if counts[tenant] >= share:
        raise TooBusy(
            f"{share} {what} for tenant {tenant}, as many as one tenant may", retry_after=SUBMISSION_RETRY_SECONDS
        )
    counts[tenant] += 1
    try:
        yield
    finally:
        counts[tenant] -= 1


def _name(tenant: str | None) -> str:
    return f"tenant {tenant}" if tenant is not None else "callers without a tenant header"
