"""An event loop with a virtual clock that jumps to the next timer when idle.

Sleeps, timeouts and leases keep their real lengths but take no real time, and runs are deterministic. An endless run
fails soon: one that never waits for a timer, and one that exceeds `RUN_SECONDS`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, TypeVar

TURN_SECONDS: Final = 1e-6
"""The duration of one turn of the loop, so that events in different turns have different times."""
STILL_TURNS: Final = 20_000
"""The maximum number of consecutive turns without a wait; more means a loop without a sleep."""
RUN_SECONDS: Final = 900.0
"""The maximum virtual time of one `run_until_complete`, longer than every wait in the tests."""

_Result = TypeVar("_Result")


class NeverEnds(AssertionError):
    """The run is endless or far too long."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without I/O and threads. `time` starts at 0, and only timers advance it.

    Raises NeverEnds in three cases: all tasks wait without a timer, `STILL_TURNS` turns pass without a wait, or one run
    takes more than `RUN_SECONDS`. It cannot detect a loop that never awaits.
    """

    def __init__(self, each_turn: Callable[[], None] = lambda: None) -> None:
        """Create the loop. It calls `each_turn` between any two turns, before the clock advances."""
        self._now = 0.0
        self._still = 0
        self._run_ends = float("inf")
        super().__init__(_NoWaiting(self._jump, self._who))
        self._each_turn = each_turn

    def time(self) -> float:
        """Return the seconds since the creation of the loop."""
        return self._now

    def run_until_complete(self, future: Generator[Any, None, _Result] | Awaitable[_Result]) -> _Result:
        """Run like every loop, for at most `RUN_SECONDS` of virtual time."""
        self._still, self._run_ends = 0, self._now + RUN_SECONDS
        try:
            return super().run_until_complete(future)
        finally:
            self._run_ends = float("inf")

    def turns(self, number: int) -> None:
        """Run `number` turns of the loop."""

        async def pass_by() -> None:
            for _ in range(number):
                await asyncio.sleep(0)

        self.run_until_complete(pass_by())

    def wait(self, seconds: float) -> None:
        """Run until the clock has advanced by `seconds`."""
        self.run_until_complete(asyncio.sleep(seconds))

    def _jump(self, seconds: float) -> None:
        self._each_turn()
        self._still = 0 if seconds > TURN_SECONDS else self._still + 1
        self._now += max(seconds, TURN_SECONDS)
        if self._still > STILL_TURNS:
            raise NeverEnds(f"at {self._now:.6f} s: {STILL_TURNS} turns and nothing waits{self._who()}")
        if self._now > self._run_ends:
            raise NeverEnds(f"at {self._now:.6f} s: one run takes more than {RUN_SECONDS:g} s{self._who()}")

    def _who(self) -> str:
        """Return the location of each task."""
        tasks = asyncio.all_tasks(self)
        return "".join(f"\n  {task.get_name()}: {_place(task)}" for task in tasks if not task.done())


class _NoWaiting(selectors.SelectSelector):
    """Advance the clock instead of waiting for I/O."""

    def __init__(self, jump: Callable[[float], None], who: Callable[[], str]) -> None:
        super().__init__()
        self._jump = jump
        self._who = who

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NeverEnds(f"all tasks wait for something that will never come{self._who()}")
        self._jump(timeout)
        return []


def _place(task: asyncio.Task[Any]) -> str:
    """Return the chain of awaits of a suspended task, outermost first."""
    frames: list[str] = []
    awaited: object = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None)
    return " > ".join(frames)
