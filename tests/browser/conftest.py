"""Runway on a fake API server behind a real socket, and a real browser: for what no real job would say or do."""

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
from runway.cli.commands.serve import HTTP_PROTOCOL
from runway.policy import load_policy
from runway.settings import Settings
from tests.api.conftest import POLICY, Runway
from tests.support.chromium import chromium
from tests.support.fake_cluster import FakeKubernetes

SECONDS = 15.0

_Result = TypeVar("_Result")


class Served:
    """A Runway at `url`, on an event loop of its own. A context manager.

    `run` has something done on that loop, where alone the fake cluster may be touched.
    """

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
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the server did not end"
        self._loop.close()

    def run(self, action: Callable[[Runway], Awaitable[_Result]]) -> _Result:
        """What `action` returns, given a client of the server and the cluster."""

        async def with_client() -> _Result:
            async with asyncio.timeout(SECONDS), httpx2.AsyncClient(base_url=self.url, trust_env=False) as client:
                return await action(Runway(self._app, client, self.kubernetes))

        work: Coroutine[Any, Any, _Result] = with_client()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS + 1)

    async def _ready(self, _: Runway) -> None:
        while not self._server.started:  # noqa: ASYNC110 (uvicorn offers nothing else to wait for)
            await asyncio.sleep(0.02)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as client:
            runway = Runway(self._app, client, self.kubernetes)

            async def writes() -> bool:
                return bool((await client.get("/readyz")).json().get("role") == "writer")

            await runway.until(writes)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the session: while it runs Playwright has an event loop, and no test that is a coroutine can run."""
    with chromium() as running:
        yield running


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as running:
        yield running
