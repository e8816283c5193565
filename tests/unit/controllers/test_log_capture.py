"""Follow the logs of terminating pods within fair limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from runway.backoff import Timing
from runway.controllers.log_capture import MAX_BYTES, MAX_FOLLOWED, LogCapture
from runway.kube.client import KubeClient
from runway.kube.objects import Pod
from runway.kube.transport import Response
from testbed.waiting import GUARD_SECONDS
from tests.support.builders import NAMESPACE, pod, running


class Logs:
    """A transport whose logs end on request of the test."""

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


def terminating(number: int, namespace: str = NAMESPACE) -> Pod:
    return pod(f"p{number}-{namespace}", namespace=namespace, state=running(), deleted=100, grace=30)


async def test_terminating_pods_of_one_tenant_leave_slots_for_another() -> None:
    logs = Logs(b"bye")
    capture = LogCapture(KubeClient(logs, 5), Timing())
    pods = [terminating(number) for number in range(50)]
    for one in pods:
        capture.follow(one, (), lambda: None)
    other = terminating(1, "runway-speech")
    capture.follow(other, (), lambda: None)
    assert sum(map(capture.follows, pods)) == MAX_FOLLOWED // 2
    assert capture.follows(other)
    for number in range(50):
        capture.follow(terminating(number, "runway-speech"), (), lambda: None)
    third = terminating(1, "runway-research")
    capture.follow(third, (), lambda: None)
    assert capture.follows(third), "two tenants leave slots for a third"
    await capture.close()


async def test_captured_logs_are_bounded_fairly() -> None:
    logs = Logs(b"x" * 4000)
    logs.end.set()
    capture = LogCapture(KubeClient(logs, 5), Timing())
    other = terminating(1, "runway-speech")
    pods = [terminating(number) for number in range(1 + MAX_BYTES // 4000)]
    for one in (other, *pods):
        done = asyncio.Event()
        capture.follow(one, (), done.set)
        await asyncio.wait_for(done.wait(), GUARD_SECONDS)
    assert capture.of(other) is not None
    assert capture.of(pods[0]) is None
    assert capture.of(pods[-1]) is not None


async def test_logs_are_followed_again_after_a_restart_of_the_recorder() -> None:
    capture = LogCapture(KubeClient(Logs(b"bye"), 5), Timing())
    for start in (0, 100, 200):
        pods = [terminating(start + number) for number in range(MAX_FOLLOWED // 2)]
        for one in pods:
            capture.follow(one, (), lambda: None)
        assert all(map(capture.follows, pods)), "no slot is lost"
        await capture.close()
