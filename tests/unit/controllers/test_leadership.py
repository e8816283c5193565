"""Who becomes the writer, and when: the Lease, the lists and an API server that goes away in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest

from runway.controllers.leadership import (
    ANNOTATION_SUBMISSIONS_STOPPED,
    CONTACT_GRACE_SECONDS,
    CONTACT_RETRY_SECONDS,
    Leadership,
)
from runway.controllers.sync import Observer
from runway.errors import PublicError
from runway.kube.client import KubeClient
from runway.kube.leader_election import DURATION_SECONDS, RENEW_SECONDS, LeaderElector, LeaseLock
from runway.kube.transport import Response
from runway.telemetry.metrics import Metrics
from tests.support.builders import policy
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

CALL_SECONDS = 2.5


class SlowLease(FakeKubernetes):
    """An API server, or a process that stands still: the answer to a write of the Lease is seen late."""

    late = 0.0
    """Seconds."""
    edit: Callable[[], None] | None = None
    """What somebody does to the Lease between the next look at it and the write that follows."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        if "/leases" in path and method == "PUT" and self.edit is not None:
            edit, self.edit = self.edit, None
            edit()
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
        kubernetes = KubeClient(self.server, CALL_SECONDS)
        observer = Observer(kubernetes, self.policy, Metrics(), resync_seconds=900, clock=loop.time)
        self.election = LeaderElector(kubernetes, LeaseLock("default", "runway-writer", "one"), clock=loop.time)
        self.writer = Leadership(self.election, observer, CALL_SECONDS)
        self.tasks = [loop.create_task(observer.run())]
        loop.wait(1)
        assert observer.synced
        self.tasks += [loop.create_task(run()) for run in (self.election.run, self.writer.run)]

    def stopped(self) -> str | None:
        """Why it takes no submissions."""
        return self.writer.stop_reason

    def refusals(self) -> tuple[PublicError, ...]:
        """Why it admits no job."""
        return self.writer.refusals

    def break_watches(self) -> None:
        """The API server is away for a moment."""
        self.server.go_down()
        self.loop.wait(0.1)
        self.server.come_back()

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
    assert candidate.writer.is_leader


def test_it_writes_though_its_lease_ran_out_before_it_could_list(candidate: Candidate) -> None:
    """Nobody else took the Lease meanwhile, so it is renewed in the same term: the listing must go on."""
    while candidate.election.term == 0:
        candidate.loop.turns(1)
    candidate.server.go_down()
    candidate.loop.wait(DURATION_SECONDS + 5)
    assert not candidate.election.is_valid_for(0)
    assert not candidate.writer.is_leader
    candidate.server.come_back()
    candidate.loop.wait(10)
    assert candidate.writer.is_leader


def test_it_writes_though_it_learned_that_the_lease_is_its_own_when_that_had_run_out(candidate: Candidate) -> None:
    candidate.server.late = DURATION_SECONDS + 1
    candidate.loop.wait(DURATION_SECONDS + 2)
    assert (candidate.election.term, candidate.writer.is_leader) == (1, False)
    candidate.server.late = 0
    candidate.loop.wait(5 + DURATION_SECONDS)
    assert candidate.writer.is_leader


def test_a_stop_is_seen_at_the_next_renewal_and_survives_all_that_follow(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    assert candidate.stopped() is None
    candidate.server.annotate_lease(submissions_stopped="driver rollout")
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert candidate.stopped() == "driver rollout"
    candidate.loop.wait(60)
    assert candidate.stopped() == "driver rollout"
    assert candidate.writer.is_leader
    candidate.server.annotate_lease(submissions_stopped=None)
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert candidate.stopped() is None


def test_an_edit_in_the_moment_of_a_renewal_is_not_lost_nor_is_the_lease(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.edit = lambda: candidate.server.annotate_lease(submissions_stopped="in between")
    for _ in range(20):
        candidate.loop.wait(0.5)
        assert candidate.writer.is_leader
    assert candidate.stopped() == "in between"
    assert candidate.election.term == 1


def test_a_stop_outlasts_the_writer_that_saw_it(candidate: Candidate) -> None:
    """What is on the Lease stays there when it is given up and when another takes it."""
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped="driver rollout", of_somebody="else")
    candidate.server.lease["metadata"]["labels"] = {"team": "platform"}
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    candidate.loop.run_until_complete(candidate.election.release())
    assert candidate.server.lease["spec"]["holderIdentity"] == ""
    successor = LeaderElector(KubeClient(candidate.server, CALL_SECONDS), LeaseLock("default", "runway-writer", "two"))
    candidate.loop.run_until_complete(successor.try_acquire_or_renew())
    assert candidate.server.lease["spec"]["holderIdentity"] == "two"
    assert candidate.server.lease["metadata"]["annotations"] == {
        ANNOTATION_SUBMISSIONS_STOPPED: "driver rollout",
        "runway.internal/of-somebody": "else",
    }
    assert candidate.server.lease["metadata"]["labels"] == {"team": "platform"}


def test_a_stop_stands_while_the_lease_cannot_be_read(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped="driver rollout")
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    candidate.server.go_down()
    candidate.loop.wait(60)
    assert candidate.stopped() == "driver rollout"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "no reason was given"),
        (" \n\t ", "no reason was given"),
        ("false", "false"),
        ("a\x1b[2Jb\u202ec\0", "a\\x1b[2Jb\\u202ec\\x00"),
        ("two\nlines", "two lines"),
    ],
)
def test_whatever_stands_there_is_a_stop_and_harmless_to_show(candidate: Candidate, value: str, reason: str) -> None:
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped=value)
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert candidate.stopped() == reason


def test_a_reason_of_any_length_is_shown_in_part(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped="\x1b" * 200_000)
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert 0 < len(candidate.stopped() or "") <= 400


def test_no_job_is_admitted_once_one_watch_has_been_lost_for_longer_than_the_grace(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.forbidden = {"pods"}
    candidate.break_watches()
    candidate.loop.wait(CONTACT_GRACE_SECONDS - 1)
    assert candidate.refusals() == ()
    candidate.loop.wait(2)
    (refusal,) = candidate.refusals()
    assert (refusal.code, refusal.retry_after) == ("kubernetes_unavailable", CONTACT_RETRY_SECONDS)
    assert "pods: " in refusal.detail
    assert candidate.writer.is_leader, "it may still cancel"
    candidate.server.forbidden = set()
    candidate.loop.wait(CONTACT_RETRY_SECONDS + 1)
    assert candidate.refusals() == ()


def test_watches_that_break_while_lists_succeed_refuse_nobody(candidate: Candidate) -> None:
    """Usage is known again with each list, which comes every few seconds."""
    candidate.loop.wait(1)
    for _ in range(10):
        candidate.break_watches()
        candidate.loop.wait(CONTACT_RETRY_SECONDS + 1)
        assert candidate.refusals() == ()
