"""Measure many open streams on one Runway: memory, delay of a change, and CPU time while nothing happens.

The baseline of a delay is one open stream, that of the CPU time is no stream. The fake API server and all clients share
the bench's process, so its work is part of the delays.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from bench.fake_apiserver import RUNNING_EVERY, FakeApiServer, name_of
from bench.many_jobs import PORT, Latency, until_idle
from bench.process import POLICY, Process
from bench.raw_http import get
from runway.policy import load_policy

EVENT_STREAMS: Final = 500
LOG_STREAMS: Final = 100
SETTINGS: Final = {"RUNWAY_MAX_STREAMS": "2000"}
"""One tenant gets half of the streams."""
EVENT_MARK, LOG_MARK = b"data: ", b"a line of the log"
IDLE_SECONDS: Final = 20.0
SETTLE_SECONDS: Final = 2.0
EVENT_JOBS: Final = range(0, EVENT_STREAMS * RUNNING_EVERY, RUNNING_EVERY)
LOG_JOBS: Final = range(EVENT_JOBS.stop, EVENT_JOBS.stop + LOG_STREAMS * RUNNING_EVERY, RUNNING_EVERY)


@dataclass(frozen=True, slots=True)
class Fanout:
    """Delays by number and kind of streams, resident KB (10^3 bytes) per stream, and CPU use in percent of a core."""

    delays: dict[str, Latency]
    event_stream: float
    log_stream: float
    idle: float
    idle_with_streams: float


class _Client(asyncio.Protocol):
    """The client of one stream. It puts the time of each chunk with the mark into the queue of all clients."""

    def __init__(self, path: str, mark: bytes, news: asyncio.Queue[float]) -> None:
        self._path, self._mark, self._news = path, mark, news

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(get(self._path, "X-Tenant-ID: bench"))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._mark in data:
            self._news.put_nowait(time.perf_counter())


async def measure_fanout(changes: int) -> Fanout:
    """Measure a Runway with one stream, then with all streams, each of its own job, then with all of one job."""
    server, seconds = FakeApiServer(load_policy(POLICY), LOG_JOBS.stop), count(1)

    def change(number: int) -> None:
        server.change_pod(number, next(seconds))

    with tempfile.TemporaryDirectory() as scratch:
        async with server.serve(Path(scratch)) as kubeconfig:
            with Process(kubeconfig, port=PORT, settings=SETTINGS) as process:
                await asyncio.to_thread(process.wait_for, "writer")
                await until_idle(process)
                delays = {}
                async with _events(EVENT_JOBS[:1]) as news:
                    delays["one event stream"] = await _delay(news, change, EVENT_JOBS[:1], changes)
                async with _logs(LOG_JOBS[:1]) as news:
                    delays["one log stream"] = await _delay(news, server.write_log, LOG_JOBS[:1], changes)
                idle, before = await _cpu(process), process.memory()[0]
                async with _events(EVENT_JOBS) as events:
                    with_events = await _settled_memory(process)
                    async with _logs(LOG_JOBS) as logs:
                        with_logs = await _settled_memory(process)
                        idle_with_streams = await _cpu(process)
                        what = f"{EVENT_STREAMS} event streams"
                        delays[what] = await _delay(events, change, EVENT_JOBS, changes)
                        delays[f"{LOG_STREAMS} log streams"] = await _delay(logs, server.write_log, LOG_JOBS, changes)
                async with _events([0] * EVENT_STREAMS) as news:
                    found = await _delay(news, change, [0], max(1, changes // 10), EVENT_STREAMS)
                    delays[f"{EVENT_STREAMS} event streams of one job"] = found
    of_events, of_logs = (with_events - before) * 1e3 / EVENT_STREAMS, (with_logs - with_events) * 1e3 / LOG_STREAMS
    print(
        f"fanout: {of_events:.0f} KB per event stream, {of_logs:.0f} KB per log stream; CPU while nothing happens "
        f"{idle:.1f} %, with all streams {idle_with_streams:.1f} %; "
        + ", ".join(f"{what} p50 {one.p50:.1f}, p99 {one.p99:.1f} ms" for what, one in delays.items()),
        flush=True,
    )
    return Fanout(delays, of_events, of_logs, idle, idle_with_streams)


@asynccontextmanager
async def _open(paths: Sequence[str], mark: bytes) -> AsyncGenerator[asyncio.Queue[float], None]:
    """Open a stream of each path, one after the other; yield the arrival times of later chunks."""
    loop, news, transports = asyncio.get_running_loop(), asyncio.Queue[float](), []
    try:
        async with asyncio.timeout(60):
            for path in paths:
                transport, _ = await loop.create_connection(partial(_Client, path, mark, news), "127.0.0.1", PORT)
                transports.append(transport)
                await news.get()
        yield news
    finally:
        for transport in transports:
            transport.abort()


def _events(jobs: Sequence[int]) -> AbstractAsyncContextManager[asyncio.Queue[float]]:
    return _open([f"/v1/jobs/{name_of(number)}/events" for number in jobs], EVENT_MARK)


def _logs(jobs: Sequence[int]) -> AbstractAsyncContextManager[asyncio.Queue[float]]:
    return _open([f"/v1/jobs/{name_of(number)}/logs?follow=true" for number in jobs], LOG_MARK)


async def _delay(
    news: asyncio.Queue[float], change: Callable[[int], None], jobs: Sequence[int], changes: int, readers: int = 1
) -> Latency:
    """Measure from a change of a job to its arrival at each of its readers."""
    chance = random.Random(8)  # noqa: S311 (not a secret)
    took = []
    async with asyncio.timeout(60 + changes):
        for _ in range(changes):
            await asyncio.sleep(chance.uniform(0.02, 0.06))
            sent_at = time.perf_counter()
            change(chance.choice(jobs))
            took += [await news.get() - sent_at for _ in range(readers)]
    return Latency.of(took)


async def _settled_memory(process: Process) -> float:
    await asyncio.sleep(SETTLE_SECONDS)
    return process.memory()[0]


async def _cpu(process: Process) -> float:
    """Return the CPU use of the next `IDLE_SECONDS` in percent of a core."""
    began, before = time.perf_counter(), process.cpu_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    return 100 * (process.cpu_seconds() - before) / (time.perf_counter() - began)
