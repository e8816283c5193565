"""Logs of ending pods are followed fairly: no tenant takes all places or all memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from runway.controllers.log_capture import MAX_BYTES, MAX_FOLLOWED_PER_TENANT, LogCapture
from runway.kube.client import KubeClient
from runway.kube.objects import Pod
from runway.kube.transport import Response
from tests.support.builders import NAMESPACE, pod, running


class Logs:
    """A transport whose logs end when the test says so."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.end = asyncio.Event()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        raise NotImplementedError

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        yield b""
        await self.end.wait()
        yield self.text


def ending(number: int, namespace: str = NAMESPACE) -> Pod:
    return pod(f"p{number}-{namespace}", namespace=namespace, state=running(), deleted=100, grace=30)


async def test_one_tenants_ending_pods_leave_places_for_another_tenant() -> None:
    logs = Logs(b"bye")
    endings = LogCapture(KubeClient(logs, 5))
    pods = [ending(number) for number in range(50)]
    for one in pods:
        endings.follow(one, (), lambda: None)
    other = ending(1, "runway-speech")
    endings.follow(other, (), lambda: None)
    assert sum(map(endings.follows, pods)) == MAX_FOLLOWED_PER_TENANT
    assert endings.follows(other)
    await endings.close()


async def test_ends_of_logs_are_bounded_in_bytes_and_a_small_tenant_keeps_its_own() -> None:
    logs = Logs(b"x" * 4000)
    logs.end.set()
    endings = LogCapture(KubeClient(logs, 5))
    other = ending(1, "runway-speech")
    pods = [ending(number) for number in range(1 + MAX_BYTES // 4000)]
    for one in (other, *pods):
        done = asyncio.Event()
        endings.follow(one, (), done.set)
        await asyncio.wait_for(done.wait(), 5)
    assert endings.of(other) is not None
    assert endings.of(pods[0]) is None
    assert endings.of(pods[-1]) is not None
