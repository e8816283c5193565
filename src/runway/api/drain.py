"""The end in good order: "not ready" first, and only then no more requests.

The server closes its door in the moment of SIGTERM, while whoever routes to this process still does so: Endpoints and
load balancers follow with a delay. So the signal is held back for a while, in which everything is answered as before
and `/readyz` says 503. https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-flow
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

log = structlog.get_logger()


@contextmanager
def draining(begun: asyncio.Event, seconds: float) -> Iterator[None]:
    """At the first SIGTERM set `begun`, and hand the signal on to the handler in place now after so many seconds.

    A second SIGTERM is handed on at once. Only the main thread can take signals; in another one this does nothing.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    loop = asyncio.get_running_loop()

    def told(number: int, frame: FrameType | None) -> None:
        if begun.is_set():
            before(number, frame)
        else:
            loop.call_soon_threadsafe(begin)

    def begin() -> None:
        begun.set()
        log.info("draining", seconds=seconds)
        loop.call_later(seconds, before, int(signal.SIGTERM), None)

    signal.signal(signal.SIGTERM, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
