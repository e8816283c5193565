"""Runway on a fake API server behind a real socket, and a real browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

import httpx2
import pytest
import uvicorn
from playwright.sync_api import Browser

from runway.app import create_app
from runway.cli.main import HTTP_PROTOCOL
from runway.policy import load_policy
from runway.settings import Settings
from testbed.waiting import GUARD_SECONDS
from tests.api.conftest import POLICY, Runway
from tests.support.chromium import chromium
from tests.support.fake_cluster import FakeKubernetes

_Result = TypeVar("_Result")


class Served:
    """Context manager for Runway at `url` in another thread. Only `run` may access the fake cluster."""

    def __init__(self) -> None:
        policy = load_policy(POLICY)
        self.kubernetes = FakeKubernetes({tenant.namespace for tenant in policy.tenants.values()})
        self._app = create_app(Settings(policy=POLICY), policy, self.kubernetes)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                host="127.0.0.1",
                port=0,
                log_config=None,
                timeout_graceful_shutdown=1,
                http=HTTP_PROTOCOL,
                ws="none",
            )
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._server.serve(),))
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(GUARD_SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"
        self._loop.close()

    def run(self, action: Callable[[Runway], Awaitable[_Result]]) -> _Result:
        """Run `action` on the event loop of the server, and return its result."""

        async def with_client() -> _Result:
            async with (
                asyncio.timeout(GUARD_SECONDS),
                httpx2.AsyncClient(base_url=self.url, timeout=None, trust_env=False) as client,
            ):
                return await action(Runway(self._app, client, self.kubernetes))

        work: Coroutine[Any, Any, _Result] = with_client()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(GUARD_SECONDS + 1)

    async def _ready(self, _: Runway) -> None:
        while not self._server.started:  # noqa: ASYNC110 (uvicorn has no event to wait for)
            await asyncio.sleep(0.02)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=self.url, timeout=None, trust_env=False) as client:
            runway = Runway(self._app, client, self.kubernetes)

            async def writes() -> bool:
                return bool((await client.get("/readyz")).json().get("role") == "writer")

            await runway.until(writes)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser per module: no coroutine test can run while Playwright's event loop runs."""
    with chromium() as running:
        yield running


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as running:
        yield running
