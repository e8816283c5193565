"""Exponential back-off with jitter, so that retries of several clients spread out.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays in seconds: each is random between half and all of a ceiling that doubles up to `longest`.

    `random` returns a number in [0, 1).
    """

    random: Callable[[], float]
    first: float = 0.5
    longest: float = 5.0
    _failures: int = 0

    def next(self) -> float:
        """Return the delay before the next attempt."""
        ceiling = min(self.longest, self.first * float(1 << min(self._failures, 16)))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self.random())

    def reset(self) -> None:
        """Start again from the first delay."""
        self._failures = 0
