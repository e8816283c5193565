"""An event loop whose clock hardly moves while there is work and then jumps to the next timer.

Sleeps, time-outs and leases keep their real lengths and take no time at all, and a run is the same each time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Final

TURN_SECONDS: Final = 1e-6
"""What one turn of the loop takes: what was done in different turns was done at different times."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time` starts at 0 and is moved by nothing but timers. It does no I/O and takes no work from other threads.

    Raises RuntimeError where everything waits and no timer is set: nothing could ever go on.
    """

    def __init__(self, each_turn: Callable[[], None] = lambda: None) -> None:
        """`each_turn` is called between any two turns of the loop, before the clock moves."""
        self._now = 0.0
        super().__init__(_NoWaiting(self._jump))
        self._each_turn = each_turn

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def turns(self, number: int) -> None:
        """Run what is ready, and what that makes ready, so many times over."""

        async def pass_by() -> None:
            for _ in range(number):
                await asyncio.sleep(0)

        self.run_until_complete(pass_by())

    def wait(self, seconds: float) -> None:
        """Run until the clock has moved on by so many seconds."""
        self.run_until_complete(asyncio.sleep(seconds))

    def _jump(self, seconds: float) -> None:
        self._each_turn()
        self._now += max(seconds, TURN_SECONDS)


class _NoWaiting(selectors.SelectSelector):
    """Where the loop would wait for I/O, the clock jumps."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for something that will never come")
        self._jump(timeout)
        return []
