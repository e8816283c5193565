"""One writer: a Kubernetes Lease that exactly one process holds.

The holder renews the Lease; another process takes it only after it has watched the same record stand unchanged for the
whole lease duration, by its own monotonic clock. Clocks are never compared between machines:
https://kubernetes.io/docs/concepts/architecture/leases/

The holder counts its own time from *before* it asked for the renewal, so it always gives up earlier than anyone can
take over, and it stops writing while there is still time for a call in flight to end. `resourceVersion` makes each
change a compare-and-swap: of two processes that see an old Lease expire, one gets it.

What others put on the Lease, its labels and annotations, is theirs: it is read at each look and written back as it was.
An edit between the look and the renewal makes the renewal a conflict, so it is not lost either; the next look follows
long before the Lease runs out.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from runway.errors import ClusterError, NotFound, ObjectExists, PublicError
from runway.kube.client import KubeClient
from runway.kube.objects import Lease

log = structlog.get_logger()

DURATION_SECONDS: Final = 15
RENEW_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class LeaseLock:
    """Which Lease, and under what name this process holds it."""

    namespace: str
    name: str
    identity: str


class LeaderElector:
    """Holds, or waits for, one Lease. `run` is the one task that renews it; times are monotonic seconds."""

    def __init__(
        self,
        kubernetes: KubeClient,
        seat: LeaseLock,
        *,
        duration: int = DURATION_SECONDS,
        renew_every: float = RENEW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kubernetes = kubernetes
        self._seat = seat
        self._duration = duration
        self._renew_every = renew_every
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._jitter = jitter
        self._valid_until = float("-inf")
        self._seen: tuple[str, float] | None = None
        self.holder: str | None = None
        self.annotations: Mapping[str, str] = {}
        """What stood on the Lease at the last look that succeeded; nothing where there is no Lease."""
        self.problem: str | None = None
        """Why the last look at the Lease failed; None where it did not."""
        self._transitions: int | None = None
        self.term = 0
        """Counts the times that this process became the holder: a new term starts from what Kubernetes then holds."""
        self.acquired_at = float("inf")
        """When the term began."""
        self.acquired = asyncio.Event()
        """Set at the start of each term; whoever waits for it clears it."""

    def is_valid_for(self, seconds: float) -> bool:
        """Whether the Lease is certainly still this process's in so many seconds."""
        return self._clock() + seconds < self._valid_until

    async def run(self) -> None:
        """Renew or wait for the Lease until cancelled."""
        while True:
            await self.try_acquire_or_renew()
            await self._sleep(self._renew_every * (0.75 + 0.25 * self._jitter()))

    async def try_acquire_or_renew(self) -> None:
        """Look at the Lease, and take or renew it where that is possible now. No error leaves: time alone decides."""
        asked = self._clock()
        try:
            lease = await self._kubernetes.get_lease(self._seat.namespace, self._seat.name)
            self.annotations = lease.metadata.annotations if lease else {}
            if lease is None:
                await self._kubernetes.create_lease(self._seat.namespace, self._document(None))
            elif self._can_acquire(lease):
                await self._kubernetes.update_lease(self._seat.namespace, self._seat.name, self._document(lease))
            else:
                self.holder, self.problem = lease.spec.holder_identity, None
                return
        except ObjectExists:
            self.problem = None
            return  # Someone else was quicker; the next look tells who.
        except (ClusterError, PublicError) as error:
            reason = "its namespace does not exist" if isinstance(error, NotFound) else str(error)
            log.warning("lease not renewed", reason=reason, holder=self.holder)
            self.problem = reason
            return
        if lease is None or not self._is_same_term(lease):
            self.term += 1
            self._transitions = 0 if lease is None else _transitions(lease, self._seat.identity)
            self.acquired_at = self._clock()
            self.acquired.set()
            log.info("lease taken", identity=self._seat.identity, term=self.term, before=self.holder)
        self.holder, self.problem = self._seat.identity, None
        self._valid_until = asked + self._duration

    async def release(self) -> None:
        """Give the Lease up, so that a successor need not wait for it to run out."""
        if not self.is_valid_for(0):
            return
        self._valid_until = float("-inf")
        try:
            lease = await self._kubernetes.get_lease(self._seat.namespace, self._seat.name)
            if lease is not None and lease.spec.holder_identity == self._seat.identity:
                document = self._document(lease, holder="")
                await self._kubernetes.update_lease(self._seat.namespace, self._seat.name, document)
        except (ClusterError, PublicError) as error:
            log.warning("lease not released", reason=str(error))

    def _is_same_term(self, lease: Lease) -> bool:
        """Whether nobody else has held the Lease since this process's term began, even if it ran out meanwhile.

        The count of transitions tells a term of ours from one that was taken by a request whose answer was lost.
        """
        ours = lease.spec.holder_identity == self._seat.identity
        return self.term > 0 and ours and lease.spec.lease_transitions == self._transitions

    def _can_acquire(self, lease: Lease) -> bool:
        holder = lease.spec.holder_identity
        if not holder or holder == self._seat.identity:
            return True
        now = self._clock()
        if self._seen is None or self._seen[0] != lease.metadata.resource_version:
            self._seen = (lease.metadata.resource_version, now)
        return now - self._seen[1] > (lease.spec.lease_duration_seconds or self._duration)

    def _document(self, lease: Lease | None, holder: str | None = None) -> dict[str, object]:
        """The Lease as it is to be: new, or the one that was read with its version, so that a race is refused."""
        now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease.spec if lease else None
        renewed = spec is not None and spec.holder_identity == self._seat.identity
        transitions = 0 if lease is None else _transitions(lease, self._seat.identity)
        metadata: dict[str, object] = {"name": self._seat.name, "namespace": self._seat.namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease.metadata.resource_version
            metadata["labels"] = lease.metadata.labels
            metadata["annotations"] = lease.metadata.annotations
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._seat.identity if holder is None else holder,
                "leaseDurationSeconds": self._duration,
                "acquireTime": spec.acquire_time if spec and renewed else now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


def _transitions(lease: Lease, identity: str) -> int:
    """How often the Lease will have changed hands once this process holds it."""
    return (lease.spec.lease_transitions or 0) + (lease.spec.holder_identity != identity)
