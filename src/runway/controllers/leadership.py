"""Decide whether this process may write, and whether it accepts submissions.

1. This process acquires the Lease (`kube/leader_election.py`): a new term begins.
2. It lists everything again, and then is the leader (docs/decisions/009-leader-lease.md).

An emergency stop is an annotation of the Lease. Every process reads it with each attempt to renew, within about 3 s. It
rejects submissions and nothing else. A lost connection rejects submissions, too, because usage is unknown. Reads and
cancels continue.
"""

from __future__ import annotations

from typing import Final

import structlog

from runway.backoff import Backoff, Timing
from runway.controllers.sync import ClusterSync
from runway.errors import ClusterError, KubernetesUnavailable, NotLeader, NotReady, PublicError, SubmissionsStopped
from runway.kube.leader_election import LeaderElector
from runway.state.cluster_state import ClusterState
from runway.text import one_line

log = structlog.get_logger()

MARGIN_SECONDS: Final = 1.0
"""Added to the time of one call, for scheduling delays and clock drift."""
DISCONNECT_GRACE_SECONDS: Final = 15.0
"""Maximum time without a connection before submissions are rejected. A reconnect or a relist takes less."""
DISCONNECT_RETRY_SECONDS: Final = 5
"""Retry-After of that error: the longest pause between two connection attempts."""
LEASE_NAME: Final = "runway-writer"
ANNOTATION_SUBMISSIONS_STOPPED: Final = "runway.internal/submissions-stopped"
"""This annotation of the Lease stops submissions; its value is the reason that users read."""


class Leadership:
    """The leadership of this process. `run` is the only task that makes it the leader."""

    def __init__(
        self, election: LeaderElector, cluster: ClusterState, sync: ClusterSync, call_seconds: float, timing: Timing
    ) -> None:
        self._election = election
        self._cluster = cluster
        self._sync = sync
        self._required_seconds = call_seconds + MARGIN_SECONDS
        self._timing = timing
        self._synced_term = 0

    @property
    def is_leader(self) -> bool:
        """Whether this process may start a write now."""
        return self._synced_term == self._election.term and self._holds_lease

    @property
    def _holds_lease(self) -> bool:
        return self._timing.clock() + self._required_seconds < self._election.valid_until

    def require_leader(self) -> None:
        """Raise NotLeader, NotReady or KubernetesUnavailable if this process may not start a write now."""
        if self.is_leader and self._cluster.failure is None:
            return  # A leader has listed everything in its term, so it is synced.
        self._cluster.require_synced()
        if self._holds_lease:
            raise NotReady("this process has just become the leader and is still listing the jobs in the cluster")
        if self._election.problem:
            raise KubernetesUnavailable(f"the leader's Lease cannot be renewed: {self._election.problem}")
        raise NotLeader(f"the leader is {self._election.holder or 'not known yet'}; this process only reads")

    @property
    def stop_reason(self) -> str | None:
        """The reason of the emergency stop as one sanitized line; None without a stop."""
        reason = self._election.annotations.get(ANNOTATION_SUBMISSIONS_STOPPED)
        return None if reason is None else one_line(reason) or "no reason was given"

    @property
    def refusals(self) -> tuple[PublicError, ...]:
        """Every reason to reject submissions now: an emergency stop, and lost connections."""
        found: list[PublicError] = []
        if (reason := self.stop_reason) is not None:
            found.append(SubmissionsStopped(reason))
        for kind, watch in self._cluster.watches.items():
            if watch.disconnected_at is None:
                continue
            if (seconds := self._timing.clock() - watch.disconnected_at) > DISCONNECT_GRACE_SECONDS:
                detail = (
                    f"contact with Kubernetes has been lost for {seconds:.0f} s, so usage is unknown and no job is "
                    f"admitted ({kind}: {watch.disconnect_reason})"
                )
                found.append(KubernetesUnavailable(detail, retry_after=DISCONNECT_RETRY_SECONDS))
        return tuple(found)

    def require_submissions_open(self) -> None:
        for refusal in self.refusals:
            raise refusal

    @property
    def may_end_jobs(self) -> bool:
        """Whether this process may end jobs at a limit: it leads, its watches are connected, no stop is in force."""
        watches = self._cluster.watches.values()
        return (
            self.is_leader
            and self._cluster.failure is None
            and self.stop_reason is None
            and all(watch.synced and watch.disconnect_reason is None for watch in watches)
        )

    async def run(self) -> None:
        """Relist at the start of each term, or of this task in a term without a relist; then write."""
        while True:
            if self._synced_term == self._election.term:
                await self._election.acquired.wait()
            self._election.acquired.clear()
            await self._relist_for_term(self._election.term)

    async def _relist_for_term(self, term: int) -> None:
        """Relist until it succeeds or another term begins. An expired Lease may still be renewed in the same term."""
        backoff = Backoff(self._timing.jitter)
        while self._election.term == term:
            try:
                await self._sync.ensure_listed_since(self._election.acquired_at)
            except (ClusterError, PublicError) as error:
                log.warning("cannot list yet", reason=str(error))
                await self._timing.sleep(backoff.next())
            else:
                self._synced_term = term
                log.info("leading", term=term)
                return
