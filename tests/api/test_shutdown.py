"""SIGTERM: "not ready" while everything is still answered, and only then the server's own end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.api.conftest import serve
from tests.support.fake_cluster import FakeKubernetes

LONG = 60
"""Seconds that no test lasts."""


@pytest.fixture
def handed_on() -> Iterator[list[int]]:
    """The signals that reach the server's handler, which the app must not replace for good."""
    handed_on: list[int] = []

    def handler(number: int, _frame: object) -> None:
        handed_on.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    yield handed_on
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


async def test_readiness_is_off_while_requests_are_still_answered(
    kubernetes: FakeKubernetes, handed_on: list[int]
) -> None:
    async with serve(kubernetes, instance="one", drain_seconds=LONG) as runway:
        os.kill(os.getpid(), signal.SIGTERM)

        async def not_ready() -> bool:
            return (await runway.client.get("/readyz")).status_code == 503

        await runway.until(not_ready)
        answer = await runway.client.get("/readyz")
        assert (answer.json()["code"], answer.json()["detail"]) == ("not_ready", "this process has been told to end")
        assert (await runway.client.get("/healthz")).status_code == 200
        assert (await runway.submit()).status_code == 201
        assert kubernetes.lease["spec"]["holderIdentity"] == "one"
        assert handed_on == []

        os.kill(os.getpid(), signal.SIGTERM)
        assert handed_on == [signal.SIGTERM], "who is told twice does not wait"


async def test_the_server_is_told_when_the_time_is_over(kubernetes: FakeKubernetes, handed_on: list[int]) -> None:
    async with serve(kubernetes, drain_seconds=0.05) as runway:
        os.kill(os.getpid(), signal.SIGTERM)

        async def told() -> bool:
            return handed_on == [signal.SIGTERM]

        await runway.until(told)
