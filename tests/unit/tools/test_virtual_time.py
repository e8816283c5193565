"""An endless run on the virtual clock fails soon."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from contextlib import closing

import pytest

from tests.support.virtual_time import RUN_SECONDS, STILL_TURNS, NeverEnds, VirtualLoop


async def busy() -> None:
    while True:  # noqa: ASYNC110 (the fault under test)
        await asyncio.sleep(0)


async def patient() -> None:
    while True:  # noqa: ASYNC110
        await asyncio.sleep(3)


async def waiting() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (busy(), f"{STILL_TURNS} turns and nothing waits\n  main: busy"),
        (patient(), f"more than {RUN_SECONDS:g} s\n  main: patient"),
        (waiting(), "will never come\n  main: waiting"),
    ],
    ids=["a loop without a sleep", "a loop without an end", "a wait for nothing"],
)
def test_endless_run_raises_with_task_locations(work: Coroutine[None, None, None], reason: str) -> None:
    with closing(VirtualLoop()) as loop:
        task = loop.create_task(work, name="main")
        with pytest.raises(NeverEnds, match=re.escape(reason)):
            loop.run_until_complete(task)
        task.cancel()
        loop.turns(1)
        assert task.cancelled()


def test_long_sleep_advances_virtual_clock_instantly() -> None:
    with closing(VirtualLoop()) as loop:
        loop.wait(RUN_SECONDS - 1)
        assert loop.time() == pytest.approx(RUN_SECONDS - 1)
