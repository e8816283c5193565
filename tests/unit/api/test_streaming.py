"""A shutdown signal closes the streams before the server waits for them."""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType

from runway.api.streaming import close_streams_on_shutdown
from testbed.waiting import GUARD_SECONDS


async def test_signal_closes_streams_and_reaches_the_handler_of_the_server() -> None:
    closing = asyncio.Event()
    handled: list[int] = []

    def server(number: int, _: FrameType | None) -> None:
        handled.append(number)

    before = signal.signal(signal.SIGTERM, server)
    try:
        with close_streams_on_shutdown(closing):
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(GUARD_SECONDS):
                await closing.wait()
        assert handled == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is server
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_signal_without_a_handler_stays_unhandled() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    closing = asyncio.Event()
    try:
        with close_streams_on_shutdown(closing):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            assert not closing.is_set()
        assert closing.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
