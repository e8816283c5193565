"""Submits at a fixed rate: `python -m tests.hostile.flood URL RATE SECONDS`.

Does not wait for responses before it sends more. Prints the number of requests, and of responses by status or error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Final

import aiohttp

CONNECTIONS: Final = 256
BODY: Final = json.dumps(
    {"image": "runway.local/busybox:1", "command": ["quiet"], "resources": {"cpu": "100m", "memory": "32Mi"}}
)
HEADERS: Final = {"X-Tenant-ID": "vision", "Content-Type": "application/json"}


async def flood(url: str, rate: float, seconds: float) -> None:
    """Send all requests, and wait for every response."""
    answers: Counter[str] = Counter()
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def send() -> None:
            try:
                async with session.post(f"{url}/v1/jobs", data=BODY, headers=HEADERS) as answer:
                    await answer.read()
                    answers[str(answer.status)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                answers[type(error).__name__] += 1

        begun, sent = time.perf_counter(), 0
        async with asyncio.TaskGroup() as tasks:
            while (passed := time.perf_counter() - begun) < seconds:
                while sent < passed * rate:
                    tasks.create_task(send())
                    sent += 1
                await asyncio.sleep(0.002)
    print(json.dumps({"sent": sent, "answers": answers}))


if __name__ == "__main__":
    asyncio.run(flood(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
