"""Measure Runway at twice its sustainable load: latency of accepts and rejections.

Requests arrive at a fixed rate, independent of earlier responses. The rate is twice the sustainable one, which a run
with 32 concurrent requests measured before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp

from bench.load import Target
from bench.many_jobs import Latency

REFUSALS = (429, 503)


@dataclass(frozen=True, slots=True)
class Overload:
    """Responses by status, and the latency of accepted and rejected ones. Rates are per second."""

    sustainable: float
    rate: float
    seconds: float
    statuses: dict[int, int]
    accepted: Latency
    refused: Latency | None

    @property
    def accepted_per_second(self) -> float:
        """Accepted submissions per second."""
        return self.statuses.get(201, 0) / self.seconds


async def overload(target: Target, sustainable: float, seconds: float) -> Overload:
    """Send twice the sustainable load for `seconds`. Raises RuntimeError for any status but 201, 429 and 503."""
    rate = 2 * sustainable
    statuses: Counter[int] = Counter()
    accepted: list[float] = []
    refused: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def send() -> None:
            began = time.perf_counter()
            async with session.post(target.url, data=target.body(), headers=target.headers) as answer:
                await answer.read()
            took = time.perf_counter() - began
            statuses[answer.status] += 1
            (accepted if answer.status == 201 else refused).append(took)

        async with asyncio.TaskGroup() as tasks:
            begun, sent = time.perf_counter(), 0
            while (passed := time.perf_counter() - begun) < seconds:
                while sent < passed * rate:
                    tasks.create_task(send())
                    sent += 1
                await asyncio.sleep(0.001)
    if set(statuses) - {201, *REFUSALS}:
        raise RuntimeError(f"unexpected statuses under overload: {dict(statuses)}")
    found = Overload(
        sustainable, rate, seconds, dict(statuses), Latency.of(accepted), Latency.of(refused) if refused else None
    )
    print(
        f"overload, {rate:.0f}/s for {seconds:.0f} s: {dict(statuses)}; accepted {found.accepted_per_second:.0f}/s, "
        f"p50 {found.accepted.p50:.0f} ms, p99 {found.accepted.p99:.0f} ms"
        + (f"; rejected p50 {found.refused.p50:.0f} ms, p99 {found.refused.p99:.0f} ms" if found.refused else ""),
        flush=True,
    )
    return found
