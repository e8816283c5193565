"""Wait for a condition with a timeout."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
GUARD_SECONDS = 180.0
"""The deadline of a wait that claims no time: it only ends a test that would hang.

On two slow cores, a Runway among many other processes has needed more than 30 s to start.
"""

_Found = TypeVar("_Found")


class TimedOut(Exception):
    """A condition did not become true within its timeout."""


def wait_for(probe: Callable[[], _Found | None], what: str, seconds: float = GUARD_SECONDS) -> _Found:
    """Call `probe` until it returns a value other than None, and return that value. Pauses grow and have jitter.

    Raises TimedOut, which names `what`, after `seconds`. Give `seconds` only where the time is part of the claim.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while (found := probe()) is None:
        if time.monotonic() >= deadline:
            raise TimedOut(f"{what}: not within {seconds:g} s")
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 (jitter, not a secret)
        pause = min(pause * 1.3, LONGEST_PAUSE_SECONDS)
    return found
