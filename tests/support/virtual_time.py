"""An event loop whose clock hardly moves while there is work and then jumps to the next timer.

Sleeps, time-outs and leases keep their real lengths and take no time at all, and a run is the same each time.
What would never end is an error soon: work that goes on and on while no timer is ever waited for, and a run that takes
far longer than anything in it may.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, TypeVar

TURN_SECONDS: Final = 1e-6
"""What one turn of the loop takes: what was done in different turns was done at different times."""
STILL_TURNS: Final = 20_000
"""Turns in a row, at most, in which no timer is waited for: whoever is busy for longer loops without a sleep."""
RUN_SECONDS: Final = 900.0
"""Of this clock, at most, for one `run_until_complete`: longer than every wait that a test asks for."""

_Result = TypeVar("_Result")


class NeverEnds(AssertionError):
    """What is run would go on for ever, or for far too long."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time` starts at 0 and is moved by nothing but timers. It does no I/O and takes no work from other threads.

    Raises NeverEnds where everything waits and no timer is set, where `STILL_TURNS` turns pass without a wait, and
    where one run takes more than `RUN_SECONDS`. Only a loop that never awaits escapes it.
    """

    def __init__(self, each_turn: Callable[[], None] = lambda: None) -> None:
        """`each_turn` is called between any two turns of the loop, before the clock moves."""
        self._now = 0.0
        self._still = 0
        self._run_ends = float("inf")
        super().__init__(_NoWaiting(self._jump, self._who))
        self._each_turn = each_turn

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def run_until_complete(self, future: Generator[Any, None, _Result] | Awaitable[_Result]) -> _Result:
        """As every loop does, for `RUN_SECONDS` of its clock at most."""
        self._still, self._run_ends = 0, self._now + RUN_SECONDS
        try:
            return super().run_until_complete(future)
        finally:
            self._run_ends = float("inf")

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
        self._still = 0 if seconds > TURN_SECONDS else self._still + 1
        self._now += max(seconds, TURN_SECONDS)
        if self._still > STILL_TURNS:
            raise NeverEnds(f"at {self._now:.6f} s: {STILL_TURNS} turns and nothing waits{self._who()}")
        if self._now > self._run_ends:
            raise NeverEnds(f"at {self._now:.6f} s: one run takes more than {RUN_SECONDS:g} s{self._who()}")

    def _who(self) -> str:
        """Where each task stands."""
        tasks = asyncio.all_tasks(self)
        return "".join(f"\n  {task.get_name()}: {_place(task)}" for task in tasks if not task.done())


class _NoWaiting(selectors.SelectSelector):
    """Where the loop would wait for I/O, the clock jumps."""

    def __init__(self, jump: Callable[[float], None], who: Callable[[], str]) -> None:
        super().__init__()
        self._jump = jump
        self._who = who

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NeverEnds(f"everything waits for something that will never come{self._who()}")
        self._jump(timeout)
        return []


def _place(task: asyncio.Task[Any]) -> str:
    """The chain of awaits that a task is suspended in, outermost first."""
    frames: list[str] = []
    awaited: object = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None)
    return " > ".join(frames)
