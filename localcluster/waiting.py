"""Wait for a condition with a timeout."""

import random
import time
from collections.abc import Callable

from localcluster.errors import LocalClusterError

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5


def until(
    reason_to_wait: Callable[[], str | None],
    *,
    what: str,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call `reason_to_wait` until it returns None. Pauses grow and have jitter.

    Raises LocalClusterError with the last reason after `timeout` seconds.
    """
    deadline = clock() + timeout
    pause = FIRST_PAUSE_SECONDS
    while (reason := reason_to_wait()) is not None:
        if clock() >= deadline:
            raise LocalClusterError(f"{what}: not within {timeout:g} s: {reason}")
        sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - jitter, not a secret
        pause = min(pause * 1.3, LONGEST_PAUSE_SECONDS)
