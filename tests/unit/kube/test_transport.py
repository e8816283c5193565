"""Calls of many tenants over one connection pool."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from uvicorn.config import Config

from runway.backoff import Timing
from runway.errors import AmbiguousOutcome, NotExecuted, TooBusy
from runway.kube.kubeconfig import load_access
from runway.kube.transport import AiohttpTransport
from testbed.waiting import GUARD_SECONDS

MAX_IN_FLIGHT = 4
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: fake
contexts: [{{name: fake, context: {{cluster: fake, user: fake}}}}]
users: [{{name: fake, user: {{}}}}]
clusters: [{{name: fake, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
"""


class ApiServer:
    """An API server that does not answer calls for one namespace, as if its admission webhook hung."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked: list[str] = []
        self.elapsed = 0.0
        """The clock of the caller, in seconds."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        if "/runway-vision/" in request.path:
            await self.answers.wait()
        return web.Response(text="{}")


@pytest.fixture
async def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def transport(server: ApiServer, tmp_path: Path) -> AsyncIterator[AiohttpTransport]:
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.format(port=runner.addresses[0][1]))
    access = await asyncio.to_thread(load_access, str(tmp_path / "kubeconfig"))
    transport = AiohttpTransport(access, MAX_IN_FLIGHT, Timing(clock=lambda: server.elapsed))
    yield transport
    server.answers.set()
    await transport.close()
    await runner.cleanup()


async def call(transport: AiohttpTransport, path: str, seconds: float = GUARD_SECONDS) -> int:
    answer = await transport.request("GET", path, query={}, body=None, content_type="application/json", seconds=seconds)
    return answer.status


async def until_asked(server: ApiServer, number: int) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while len(server.asked) < number:  # noqa: ASYNC110 (seen at the server)
            await asyncio.sleep(0.001)


async def test_wait_for_a_turn_is_a_part_of_the_time_of_a_call(transport: AiohttpTransport, server: ApiServer) -> None:
    """The leader starts a write only while its Lease is valid for the whole time of the call."""
    path = "/apis/batch/v1/namespaces/runway-vision/jobs"
    hanging = [asyncio.create_task(call(transport, path)) for _ in range(MAX_IN_FLIGHT // 2)]
    await until_asked(server, len(hanging))
    waiting = asyncio.create_task(call(transport, path, seconds=60))
    await asyncio.sleep(0)
    server.elapsed = 57.0
    hanging[0].cancel()
    await until_asked(server, len(hanging) + 1)
    async with asyncio.timeout(GUARD_SECONDS / 4):
        with pytest.raises(AmbiguousOutcome, match="within 60 s"):
            await waiting
    server.answers.set()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_hanging_calls_of_one_tenant_leave_those_of_others_and_the_lease_alone(
    transport: AiohttpTransport, server: ApiServer
) -> None:
    path = "/apis/batch/v1/namespaces/runway-vision/jobs"
    hanging = [asyncio.create_task(call(transport, path)) for _ in range(2 + 8)]
    await until_asked(server, MAX_IN_FLIGHT // 2)
    with pytest.raises(TooBusy, match="waiting for their turn"):
        await call(transport, path)
    for other in (
        "/apis/batch/v1/namespaces/runway-speech/jobs/rw-1",
        "/apis/coordination.k8s.io/v1/namespaces/runway/leases/runway-writer",
        "/api/v1/pods",
    ):
        assert await call(transport, other) == 200
    assert server.asked.count(path) == MAX_IN_FLIGHT // 2
    server.answers.set()
    assert await asyncio.gather(*hanging) == [200] * len(hanging)


def test_uvloop_653_connections_reset_while_they_open_are_failed_calls(tmp_path: Path) -> None:
    """A load balancer can reset connections while they open.

    In the event loop of `runway serve`, descriptors were closed twice, those of other connections too.
    """

    async def calls(port: int) -> list[object]:
        kubeconfig = KUBECONFIG.format(port=port).replace("http:", "https:").replace("user: {}", "user: {token: none}")
        (tmp_path / "kubeconfig").write_text(kubeconfig)
        transport = AiohttpTransport(load_access(str(tmp_path / "kubeconfig")), 20)
        try:
            return [
                result
                for _ in range(100)
                for result in await asyncio.gather(
                    *(call(transport, f"/api/v1/pods?n={number}") for number in range(20)), return_exceptions=True
                )
            ]
        finally:
            await transport.close()

    loop = Config("runway.app:create").get_loop_factory()
    with resetting_server() as port, asyncio.Runner(loop_factory=loop) as runner:
        results = runner.run(calls(port))
    assert {type(result) for result in results} <= {NotExecuted, AmbiguousOutcome}


@contextmanager
def resetting_server() -> Iterator[int]:
    """Reset each connection at once, before the client continues; `TcpProxy.refuse` is later. Yields the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:

        def reset() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:  # The test has ended.
                    return
                with connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=reset)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(GUARD_SECONDS)
