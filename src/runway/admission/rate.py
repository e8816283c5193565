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

    def take(self, now: int) -> int:
        """Take one request at `now`. 0 if it may pass; otherwise after how many whole seconds one will.

        A refused request takes nothing, so the answer stays true however often a caller tries in the meantime.
        """
        interval = -(-60 * _NS // self.rate.per_minute)
        tat = now if self._tat is None else max(self._tat, now)
        early = tat - (self.rate.burst - 1) * interval
        if now < early:
            return math.ceil((early - now) / _NS)
        self._tat = tat + interval
        return 0
