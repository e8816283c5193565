"""Clocks, and exponential back-off with jitter, so that retries spread out.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Timing:
    """The clocks, sleep and randomness of a process; tests replace them. `clock` returns monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random


@dataclass(slots=True)
class Backoff:
    """Delays in seconds: each is random between half and all of a ceiling that doubles up to `longest`."""

    random: Callable[[], float]  # Returns a number in [0, 1).
    first: float = 0.5
    longest: float = 5.0
    _failures: int = 0

    def next(self) -> float:
        ceiling = min(self.longest, self.first * float(1 << min(self._failures, 16)))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self.random())

    def reset(self) -> None:
        self._failures = 0
