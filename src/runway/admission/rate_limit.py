"""Rate limits: the generic cell rate algorithm (GCRA), one cell of state per tenant.

GCRA is a token bucket without a timer: the state is the theoretical arrival time (TAT) of the next request that would
keep exactly to the rate. https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runway.policy import Rate

_NS = 1_000_000_000


@dataclass(slots=True)
class RateLimiter:
    """At most `burst` requests at once and `per_minute` in the long run. Times are monotonic nanoseconds."""

    rate: Rate
    _tat: int | None = None

    def try_acquire(self, now: int) -> int:
        """Take one request at `now`. 0 if it may pass; otherwise after how many whole seconds one will.

        A refused request takes nothing, so the answer stays true however often a caller tries in the meantime.
        """
        tat = now if self._tat is None else max(self._tat, now)
        early = tat - (self.rate.burst - 1) * self._interval
        if now < early:
            return math.ceil((early - now) / _NS)
        self._tat = tat + self._interval
        return 0

    def backfill(self, at: int) -> None:
        """Count a request that passed at `at`, before this limiter was made. Oldest first."""
        self._tat = (at if self._tat is None else max(self._tat, at)) + self._interval

    @property
    def window_seconds(self) -> float:
        """How long ago a request can have been and still count: the time in which an empty bucket fills."""
        return self._interval * self.rate.burst / _NS

    @property
    def _interval(self) -> int:
        return -(-60 * _NS // self.rate.per_minute)
