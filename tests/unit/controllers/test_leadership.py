"""When a process becomes the leader, and when it accepts submissions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest

from runway.backoff import Timing
from runway.controllers.leadership import (
    ANNOTATION_SUBMISSIONS_STOPPED,
    DISCONNECT_GRACE_SECONDS,
    DISCONNECT_RETRY_SECONDS,
    Leadership,
)
from runway.controllers.sync import ClusterSync
from runway.errors import PublicError
from runway.kube.client import KubeClient
from runway.kube.leader_election import DURATION_SECONDS, RENEW_SECONDS, LeaderElector, LeaseLock
from runway.kube.transport import Response
from runway.settings import MAX_KUBERNETES_SECONDS
from runway.state.cluster_state import ClusterState
from runway.telemetry import Metrics
from tests.support.builders import policy
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

CALL_SECONDS = 2.5


class SlowLease(FakeKubernetes):
    """An API server whose responses to Lease writes are late."""

    late = 0.0
    """Seconds of delay."""
    edit: Callable[[], None] | None = None
    """An edit of the Lease between the next read and the write that follows."""

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
    """A synced process that tries to acquire the Lease."""

    def __init__(self, loop: VirtualLoop, call_seconds: float = CALL_SECONDS) -> None:
        self.loop = loop
        self.policy = policy()
        self.server = SlowLease({tenant.namespace for tenant in self.policy.tenants.values()})
        kubernetes = KubeClient(self.server, call_seconds)
        metrics = Metrics()
        cluster = ClusterState(self.policy, metrics, clock=loop.time)
        timing = Timing(loop.time)
        sync = ClusterSync(kubernetes, cluster, metrics, timing, resync_seconds=900)
        self.election = LeaderElector(kubernetes, LeaseLock("default", "runway-writer", "one"), timing)
        self.leadership = Leadership(self.election, cluster, sync, call_seconds, timing)
        self.tasks = [loop.create_task(sync.run())]
        loop.wait(1)
        assert cluster.synced
        self.tasks += [loop.create_task(run()) for run in (self.election.run, self.leadership.run)]

    def stopped(self) -> str | None:
        """Return the reason of the emergency stop."""
        return self.leadership.stop_reason

    def refusals(self) -> tuple[PublicError, ...]:
        """Return the reasons to reject submissions."""
        return self.leadership.refusals

    def break_watches(self) -> None:
        """Take the API server down for a moment."""
        self.server.go_down()
        self.loop.wait(0.1)
        self.server.come_back()

    def close(self) -> None:
        """Cancel all tasks."""
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


def test_process_leads_after_relist(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    assert candidate.leadership.is_leader


def test_process_with_the_longest_allowed_calls_leads_all_the_time() -> None:
    loop = VirtualLoop()
    candidate = Candidate(loop, MAX_KUBERNETES_SECONDS)
    loop.wait(1)
    led = []
    for _ in range(100):
        loop.wait(0.5)
        led.append(candidate.leadership.is_leader)
    assert all(led)
    candidate.close()
    loop.close()


def test_process_leads_after_lease_expired_before_relist(candidate: Candidate) -> None:
    """No other process acquired the Lease, so the term continues, and so must the relist."""
    while candidate.election.term == 0:
        candidate.loop.turns(1)
    candidate.server.go_down()
    candidate.loop.wait(DURATION_SECONDS + 5)
    assert candidate.election.valid_until <= candidate.loop.time()
    assert not candidate.leadership.is_leader
    candidate.server.come_back()
    candidate.loop.wait(10)
    assert candidate.leadership.is_leader


def test_process_leads_after_late_lease_response(candidate: Candidate) -> None:
    candidate.server.late = DURATION_SECONDS + 1
    candidate.loop.wait(DURATION_SECONDS + 2)
    assert (candidate.election.term, candidate.leadership.is_leader) == (1, False)
    candidate.server.late = 0
    candidate.loop.wait(5 + DURATION_SECONDS)
    assert candidate.leadership.is_leader


def test_process_stops_leading_when_an_edit_gives_its_lease_to_another(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    assert candidate.leadership.is_leader
    candidate.server.edit_lease(holderIdentity="two")
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert not candidate.leadership.is_leader


def test_emergency_stop_is_read_at_next_renewal_and_stays(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    assert candidate.stopped() is None
    candidate.server.annotate_lease(submissions_stopped="driver rollout")
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert candidate.stopped() == "driver rollout"
    candidate.loop.wait(60)
    assert candidate.stopped() == "driver rollout"
    assert candidate.leadership.is_leader
    candidate.server.annotate_lease(submissions_stopped=None)
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert candidate.stopped() is None


def test_lease_edit_during_renewal_is_kept(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.edit = lambda: candidate.server.annotate_lease(submissions_stopped="in between")
    for _ in range(20):
        candidate.loop.wait(0.5)
        assert candidate.leadership.is_leader
    assert candidate.stopped() == "in between"
    assert candidate.election.term == 1


def test_emergency_stop_survives_change_of_leader(candidate: Candidate) -> None:
    """Labels and annotations survive the release and the next acquisition."""
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped="driver rollout", of_somebody="else")
    candidate.server.lease["metadata"]["labels"] = {"team": "platform"}
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    candidate.loop.run_until_complete(candidate.election.release())
    assert candidate.server.lease["spec"]["holderIdentity"] == ""
    client, lock = KubeClient(candidate.server, CALL_SECONDS), LeaseLock("default", "runway-writer", "two")
    successor = LeaderElector(client, lock, Timing())
    candidate.loop.run_until_complete(successor.try_acquire_or_renew())
    assert candidate.server.lease["spec"]["holderIdentity"] == "two"
    assert candidate.server.lease["metadata"]["annotations"] == {
        ANNOTATION_SUBMISSIONS_STOPPED: "driver rollout",
        "runway.internal/of-somebody": "else",
    }
    assert candidate.server.lease["metadata"]["labels"] == {"team": "platform"}


def test_emergency_stop_stays_while_lease_is_unreadable(candidate: Candidate) -> None:
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
def test_any_annotation_value_is_a_sanitized_stop_reason(candidate: Candidate, value: str, reason: str) -> None:
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped=value)
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert candidate.stopped() == reason


def test_long_stop_reason_is_cut(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.annotate_lease(submissions_stopped="\x1b" * 200_000)
    candidate.loop.wait(RENEW_SECONDS + 0.5)
    assert 0 < len(candidate.stopped() or "") <= 400


def test_submissions_are_rejected_after_long_disconnect(candidate: Candidate) -> None:
    candidate.loop.wait(1)
    candidate.server.forbidden = {"pods"}
    candidate.break_watches()
    candidate.loop.wait(DISCONNECT_GRACE_SECONDS - 1)
    assert candidate.refusals() == ()
    candidate.loop.wait(2)
    (refusal,) = candidate.refusals()
    assert (refusal.code, refusal.retry_after) == ("kubernetes_unavailable", DISCONNECT_RETRY_SECONDS)
    assert "pods: " in refusal.detail
    assert candidate.leadership.is_leader, "it may still cancel"
    candidate.server.forbidden = set()
    candidate.loop.wait(DISCONNECT_RETRY_SECONDS + 1)
    assert candidate.refusals() == ()


def test_broken_watches_with_successful_lists_reject_nothing(candidate: Candidate) -> None:
    """Each list, every few seconds, makes usage known again."""
    candidate.loop.wait(1)
    for _ in range(10):
        candidate.break_watches()
        candidate.loop.wait(DISCONNECT_RETRY_SECONDS + 1)
        assert candidate.refusals() == ()
