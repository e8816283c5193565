"""Who becomes the writer, and when: the Lease, the lists and an API server that goes away in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from runway.cluster.client import Kubernetes
from runway.cluster.connection import Answer
from runway.cluster.lease import DURATION_SECONDS, Election, Seat
from runway.flow.lead import Writer
from runway.flow.observe import Observer
from runway.telemetry.metrics import Metrics
from tests.support.builders import policy
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

CALL_SECONDS = 2.5


class SlowLease(FakeKubernetes):
    """An API server, or a process that stands still: the answer to a write of the Lease is seen late."""

    late = 0.0
    """Seconds."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Answer:
        answer = await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)
        if "/leases" in path and method != "GET":
            await asyncio.sleep(self.late)
        return answer


class Candidate:
    """A process that has listed everything, and then stands for election."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.policy = policy()
        self.server = SlowLease({tenant.namespace for tenant in self.policy.tenants.values()})
        kubernetes = Kubernetes(self.server, CALL_SECONDS)
        observer = Observer(kubernetes, self.policy, Metrics(), resync_seconds=900, clock=loop.time)
        self.election = Election(kubernetes, Seat("default", "runway-writer", "one"), clock=loop.time)
        self.writer = Writer(self.election, observer, CALL_SECONDS)
        self.tasks = [loop.create_task(observer.run())]
        loop.wait(1)
        assert observer.synced
        self.tasks += [loop.create_task(run()) for run in (self.election.run, self.writer.run)]

    def close(self) -> None:
        """It ends."""
        for task in self.tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))


@pytest.fixture
def candidate() -> Iterator[Candidate]:
    loop = VirtualLoop()
    candidate = Candidate(loop)
    yield candidate
    candidate.close()
    loop.close()


def test_it_writes_once_it_has_listed(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    assert candidate.writer.is_writer


def test_it_writes_though_its_lease_ran_out_before_it_could_list(candidate: Candidate) -> None:
    """Nobody else took the Lease meanwhile, so it is renewed in the same term: the listing must go on."""
    while candidate.election.term == 0:
        candidate.loop.turns(1)
    candidate.server.go_down()
    candidate.loop.wait(DURATION_SECONDS + 5)
    assert not candidate.election.holds_for(0)
    assert not candidate.writer.is_writer
    candidate.server.come_back()
    candidate.loop.wait(10)
    assert candidate.writer.is_writer


def test_it_writes_though_it_learned_that_the_lease_is_its_own_when_that_had_run_out(candidate: Candidate) -> None:
    candidate.server.late = DURATION_SECONDS + 1
    candidate.loop.wait(DURATION_SECONDS + 2)
    assert (candidate.election.term, candidate.writer.is_writer) == (1, False)
    candidate.server.late = 0
    candidate.loop.wait(5 + DURATION_SECONDS)
    assert candidate.writer.is_writer
