"""Send requests to an HTTP endpoint with a fixed number of workers, timed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests per second, and latency percentiles in milliseconds."""

    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Target:
    """The endpoint of the requests. `body` creates a body per request, before the measurement starts.

    `status` is that of every response.
    """

    url: str
    headers: Mapping[str, str]
    body: Callable[[], bytes]
    tls: ssl.SSLContext | None = None
    status: int = 201


async def measure(target: Target, requests: int, concurrency: int) -> Measured:
    """Send `requests` requests with `concurrency` workers. Raises RuntimeError for any other status."""
    bodies = [target.body() for _ in range(requests)]
    took: list[float] = []
    connector = aiohttp.TCPConnector(limit=concurrency, ssl=target.tls or True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def worker() -> None:
            while bodies:
                body = bodies.pop()
                started = time.perf_counter()
                async with session.post(target.url, data=body, headers=target.headers) as answer:
                    text = await answer.text()
                    if answer.status != target.status:
                        raise RuntimeError(f"{target.url} answered {answer.status}: {text[:300]}")
                took.append(time.perf_counter() - started)

        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(concurrency)))
        seconds = time.perf_counter() - begun
    took.sort()
    return Measured(len(took) / seconds, took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3)
