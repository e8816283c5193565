"""Measure Runway with many jobs: memory, start, reads, pages and view delay.

Each number of jobs runs on `fake_apiserver`; the smallest is the baseline of the others. The baseline of the start is
a client that fetches the same list and discards it.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.fake_apiserver import RUNNING_EVERY, FakeApiServer, name_of
from bench.process import POLICY, Process
from runway.policy import load_policy

PORT = 8027
EVENTS_A_SECOND = 200
ROUNDS = 5
HEADERS = {"X-Tenant-ID": "bench"}


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Compute the percentiles of these durations."""
        in_order = sorted(seconds)
        return cls(in_order[len(in_order) // 2] * 1e3, in_order[int(len(in_order) * 0.99)] * 1e3)


@dataclass(frozen=True, slots=True)
class ManyJobs:
    """The measurements with `jobs` jobs, in seconds and in MB of 10^6 bytes."""

    jobs: int
    ready: float
    fetched: float
    memory: float
    peak: float
    reads: dict[str, Latency]
    pages: dict[str, Latency]
    shown: Latency


async def measure_many_jobs(jobs: int, reads: int, changes: int) -> ManyJobs:
    """Start a Runway that lists `jobs` jobs, and measure it."""
    server = FakeApiServer(load_policy(POLICY), jobs)
    with tempfile.TemporaryDirectory() as scratch:
        async with server.serve(Path(scratch)) as kubeconfig, aiohttp.ClientSession(headers=HEADERS) as client:
            fetched = await _fetch(client, server.url)
            with Process(kubeconfig, port=PORT) as process:
                await asyncio.to_thread(process.wait_for, "writer")
                ready = time.monotonic() - process.started
                await until_idle(process)
                took, pages = [
                    {what: await _read(client, process.url + path, reads) for what, path in paths.items()}
                    for paths in (_reads(jobs), _pages(jobs))
                ]
                shown = await _shown(client, server, process.url, changes)
                memory, peak = process.memory()
    found = ManyJobs(jobs, ready, fetched, memory, peak, took, pages, shown)
    print(
        f"{jobs} jobs: ready after {ready:.2f} s (list alone {fetched:.2f} s), {memory:.0f} MB, peak {peak:.0f} MB; "
        + ", ".join(f"{what} p99 {one.p99:.1f} ms" for what, one in (took | pages).items())
        + f"; view delay p50 {shown.p50:.1f}, p99 {shown.p99:.1f} ms",
        flush=True,
    )
    return found


def _reads(jobs: int) -> dict[str, str]:
    return {
        "one job": f"/v1/jobs/{name_of(jobs // 2)}",
        "first page of the list": "/v1/jobs",
        "metrics": "/metrics",
    }


def _pages(jobs: int) -> dict[str, str]:
    """Return the console pages; the job page is without a log, which the fake API server does not have."""
    return {"overview page": "/", "jobs page": "/jobs", "one job's page": f"/jobs/{name_of(jobs // 2)}?log=false"}


async def _fetch(client: aiohttp.ClientSession, url: str) -> float:
    """Return the seconds for fetching the lists of Jobs and pods, page by page, without decoding them."""
    started = time.monotonic()
    for path in ("/apis/batch/v1/jobs", "/api/v1/pods"):
        query = {"limit": "500"}
        while True:
            async with client.get(url + path, params=query) as answer:
                head = (await answer.read())[:200]
            token = json.loads(head[: head.index(b',"items"')] + b"}")["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
    return time.monotonic() - started


async def until_idle(process: Process) -> None:
    """Wait until the CPU is idle: after the start, Runway checks each job's record once."""
    async with asyncio.timeout(120):
        before = float("-inf")
        while (spent := process.cpu_seconds()) - before > 0.1:
            before = spent
            await asyncio.sleep(1)


async def _read(client: aiohttp.ClientSession, url: str, times: int) -> Latency:
    """Return the median percentiles of several rounds, because a shared machine slows down for seconds."""
    found = []
    for _ in range(ROUNDS):
        took = []
        for _ in range(times):
            started = time.perf_counter()
            async with client.get(url) as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{url} answered {answer.status}")
            took.append(time.perf_counter() - started)
        found.append(Latency.of(took))
    return Latency(statistics.median(one.p50 for one in found), statistics.median(one.p99 for one in found))


async def _shown(client: aiohttp.ClientSession, server: FakeApiServer, url: str, changes: int) -> Latency:
    """Measure from a watch event to the view on an event stream, under a load of other changes."""
    watched = RUNNING_EVERY
    others = [number for number in range(0, server.jobs, RUNNING_EVERY) if number != watched]
    news: asyncio.Queue[float] = asyncio.Queue()
    chance = random.Random(8)  # noqa: S311 (not a secret)

    async def listen() -> None:
        async with client.get(f"{url}/v1/jobs/{name_of(watched)}/events", timeout=aiohttp.ClientTimeout()) as stream:
            async for line in stream.content:
                if line.startswith(b"data:"):
                    news.put_nowait(time.perf_counter())

    async def disturb() -> None:
        start, sent = time.perf_counter(), 0
        while True:
            while sent < (time.perf_counter() - start) * EVENTS_A_SECOND:
                server.change_pod(chance.choice(others), sent % 50)
                sent += 1
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(listen()), asyncio.create_task(disturb())]
    try:
        took = []
        async with asyncio.timeout(60 + changes):
            await news.get()
            for turn in range(changes):
                await asyncio.sleep(chance.uniform(0.02, 0.06))
                sent_at = time.perf_counter()
                server.change_pod(watched, 100 + turn)
                took.append(await news.get() - sent_at)
        return Latency.of(took)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
