"""One writer: who may admit and cancel, and from when on.

1. The Lease becomes this process's (`cluster/lease.py`): a new term begins.
2. Everything is listed after that moment, so that whatever the last writer created is counted.
3. From then on this process writes, as long as the Lease is certainly its own for longer than a call to Kubernetes
   takes: a create that is sent now has ended, one way or the other, before anyone else can become the writer.

An operator's emergency stop stands on the Lease too: every process sees it at its next look, within some 3 s, and so
does every later one, since it is kept in Kubernetes. It refuses submissions and nothing else.

Lost contact refuses submissions too: while no list and no watch of Jobs or of pods succeeds, usage is unknown and a new
job could not be followed. Reads and cancels go on; a cancel only lowers usage and cost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from runway.controllers.sync import Observer
from runway.errors import ClusterError, KubernetesUnavailable, NotLeader, NotReady, PublicError, SubmissionsStopped
from runway.kube.backoff import Backoff
from runway.kube.leader_election import LeaderElector
from runway.text import one_line

log = structlog.get_logger()

MARGIN_SECONDS: Final = 1.0
"""Beyond the time of one call: for scheduling, and for clocks that do not run at quite the same speed."""

CONTACT_GRACE_SECONDS: Final = 15.0
"""For how long contact may be lost before submissions are refused. A reconnect or a relist takes less, and must refuse
nobody."""
CONTACT_RETRY_SECONDS: Final = 5
"""Retry-After of that refusal: the longest pause between two tries to regain contact."""

ANNOTATION_SUBMISSIONS_STOPPED: Final = "runway.internal/submissions-stopped"
"""The annotation of the Lease that stops submissions, whatever its value: that is the reason which users are told."""


class Leadership:
    """Whether this process is the writer. `run` is the one task that makes it one."""

    def __init__(
        self,
        election: LeaderElector,
        observer: Observer,
        call_seconds: float,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._election = election
        self._observer = observer
        self._needed = call_seconds + MARGIN_SECONDS
        self._sleep = sleep
        self._jitter = jitter
        self._caught_up = 0

    @property
    def is_leader(self) -> bool:
        """Whether a write may begin now."""
        return self._caught_up == self._election.term and self._election.is_valid_for(self._needed)

    def require_leader(self) -> None:
        """Raise the reason why a write may not begin now.

        NotLeader; NotReady at the start of a term; or KubernetesUnavailable, where Kubernetes has been away for so long
        that this process cannot know whether it is still the writer.
        """
        self._observer.require_synced()
        if self.is_leader:
            return
        if self._election.is_valid_for(self._needed):
            raise NotReady("this process has just become the writer and is still listing what there is")
        if self._election.problem:
            raise KubernetesUnavailable(f"the writer's lease cannot be renewed: {self._election.problem}")
        raise NotLeader(f"the writer is {self._election.holder or 'not known yet'}; this process only reads")

    @property
    def stop_reason(self) -> str | None:
        """Why submissions are stopped, as one harmless line; None where they are not."""
        reason = self._election.annotations.get(ANNOTATION_SUBMISSIONS_STOPPED)
        return None if reason is None else one_line(reason) or "no reason was given"

    @property
    def refusals(self) -> tuple[PublicError, ...]:
        """Every reason to admit no new job now: an operator's stop, and contact lost for too long."""
        found: list[PublicError] = []
        if (reason := self.stop_reason) is not None:
            found.append(SubmissionsStopped(reason))
        for kind, watch in self._observer.watches.items():
            if (seconds := self._observer.lost_seconds(watch)) > CONTACT_GRACE_SECONDS:
                found.append(
                    KubernetesUnavailable(
                        f"contact with Kubernetes has been lost for {seconds:.0f} s, so usage is unknown and no job is "
                        f"admitted ({kind}: {watch.disconnect_reason})",
                        retry_after=CONTACT_RETRY_SECONDS,
                    )
                )
        return tuple(found)

    def require_submissions_open(self) -> None:
        """Raise the first reason to admit no new job now: SubmissionsStopped or KubernetesUnavailable."""
        for refusal in self.refusals:
            raise refusal

    async def run(self) -> None:
        """At the start of each term, see that everything is listed after it began; then write."""
        while True:
            await self._election.acquired.wait()
            self._election.acquired.clear()
            await self._relist_for_term(self._election.term)

    async def _relist_for_term(self, term: int) -> None:
        """List until it succeeds or another term has begun.

        A Lease that has run out is no reason to stop: if it is renewed before anyone else takes it, the term goes on,
        and nothing else would begin the listing again.
        """
        backoff = Backoff(self._jitter)
        while self._election.term == term:
            try:
                await self._observer.ensure_listed_since(self._election.acquired_at)
            except (ClusterError, PublicError) as error:
                log.warning("cannot list yet", reason=str(error))
                await self._sleep(backoff.next())
            else:
                self._caught_up = term
                log.info("writing", term=term)
                return
