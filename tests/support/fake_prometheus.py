"""A fake Prometheus on a loopback port with the samples of a test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from testbed.waiting import GUARD_SECONDS


class FakePrometheus:
    """Answers every query with `samples`, or with `status`, `headers` and `body` if a test sets them."""

    def __init__(self) -> None:
        self.url = ""
        self.queries: list[dict[str, str]] = []
        """The form of each query."""
        self.credentials: str | None = None
        """The Authorization header of the last query."""
        self.samples: list[tuple[dict[str, str], str]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.gate = asyncio.Event()
        """Queries wait until this is set."""
        self.gate.set()

    def knows(self, pod: str, **figures: str | float) -> None:
        """Add these figures of a pod."""
        self.samples += [({"pod": pod, "figure": name}, str(value)) for name, value in figures.items()]

    async def until_asked(self, queries: int) -> None:
        """Wait until this number of queries has arrived."""
        async with asyncio.timeout(GUARD_SECONDS):
            while len(self.queries) < queries:  # noqa: ASYNC110 (one condition, for tests only)
                await asyncio.sleep(0.001)

    async def answer(self, request: web.Request) -> web.Response:
        self.queries.append({name: str(value) for name, value in (await request.post()).items()})
        self.credentials = request.headers.get("Authorization")
        await self.gate.wait()
        body = json.dumps(vector(*self.samples)).encode() if self.body is None else self.body
        return web.Response(status=self.status, headers=self.headers, body=body, content_type="application/json")


def vector(*samples: tuple[dict[str, str], str]) -> dict[str, Any]:
    """Return the response to an instant query with these labels and values."""
    result = [{"metric": labels, "value": [1795507200.123, value]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@asynccontextmanager
async def fake_prometheus() -> AsyncIterator[FakePrometheus]:
    """Run a fake Prometheus until the context exits."""
    fake = FakePrometheus()
    app = web.Application()
    app.router.add_post("/prefix/api/v1/query", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        fake.url = f"http://{host}:{port}/prefix/"
        yield fake
    finally:
        fake.gate.set()
        await runner.cleanup()
