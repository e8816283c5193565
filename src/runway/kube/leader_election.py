"""Elect one leader by a Kubernetes Lease.

docs/decisions/009-leader-lease.md proves that two processes never write at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from runway.backoff import Timing
from runway.errors import AlreadyExists, ClusterError, Conflict, NotFound, PublicError
from runway.kube.client import KubeClient
from runway.kube.objects import Lease

log = structlog.get_logger()

DURATION_SECONDS: Final = 15
RENEW_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class LeaseLock:
    """A Lease, and the identity of this process in it."""

    namespace: str
    name: str
    identity: str


class LeaderElector:
    """Holds, or waits for, one Lease. `run` is the only task that renews it. Times are monotonic seconds."""

    def __init__(self, kubernetes: KubeClient, lock: LeaseLock, timing: Timing) -> None:
        self._kubernetes = kubernetes
        self._lock = lock
        self._timing = timing
        self.valid_until = float("-inf")
        """This process certainly holds the Lease until then."""
        self._seen: tuple[str, float] | None = None
        self.holder: str | None = None
        self.annotations: Mapping[str, str] = {}
        self.problem: str | None = None
        """Why the last attempt failed; None if it did not."""
        self._transitions: int | None = None
        self.term = 0
        """The number of times that this process became the leader. Each term starts with a relist."""
        self.acquired_at = float("inf")
        self.acquired = asyncio.Event()
        """Set at the start of each term; the waiting task clears it."""

    async def run(self) -> None:
        """Renew, or try to acquire, the Lease until cancelled."""
        while True:
            await self.try_acquire_or_renew()
            await self._timing.sleep(RENEW_SECONDS * (0.75 + 0.25 * self._timing.jitter()))

    async def try_acquire_or_renew(self) -> None:
        """Acquire or renew the Lease if possible. Raises nothing: time ends a term, or another holder."""
        requested_at = self._timing.clock()
        try:
            lease = await self._kubernetes.get_lease(self._lock.namespace, self._lock.name)
            self.annotations = lease.metadata.annotations if lease else {}
            if lease is None:
                await self._kubernetes.create_lease(self._lock.namespace, self._document(None))
            elif self._can_acquire(lease):
                await self._kubernetes.update_lease(self._lock.namespace, self._lock.name, self._document(lease))
            else:
                self.holder, self.problem = lease.spec.holder_identity, None
                self.valid_until = float("-inf")  # Only an edit by hand gives away a Lease that has not expired.
                return
        except (AlreadyExists, Conflict):
            self.problem = None
            return  # Another process was faster; the next attempt reads which one.
        except (ClusterError, PublicError) as error:
            reason = "its namespace does not exist" if isinstance(error, NotFound) else str(error)
            log.warning("lease not renewed", reason=reason, holder=self.holder)
            self.problem = reason
            return
        if lease is None or not self._is_same_term(lease):
            self.term += 1
            self._transitions = 0 if lease is None else _transitions(lease, self._lock.identity)
            self.acquired_at = self._timing.clock()
            self.acquired.set()
            log.info("lease acquired", identity=self._lock.identity, term=self.term, before=self.holder)
        self.holder, self.problem = self._lock.identity, None
        self.valid_until = requested_at + DURATION_SECONDS

    async def release(self) -> None:
        """Release the Lease, so that a successor does not wait until it expires."""
        if self._timing.clock() >= self.valid_until:
            return
        self.valid_until = float("-inf")
        try:
            lease = await self._kubernetes.get_lease(self._lock.namespace, self._lock.name)
            if lease is not None and lease.spec.holder_identity == self._lock.identity:
                document = self._document(lease, holder="")
                await self._kubernetes.update_lease(self._lock.namespace, self._lock.name, document)
        except (ClusterError, PublicError) as error:
            log.warning("lease not released", reason=str(error))

    def _is_same_term(self, lease: Lease) -> bool:
        """Return whether no other process held the Lease since the term began, even if it expired in between.

        The number of transitions also reveals a term that began with a request whose response was lost.
        """
        ours = lease.spec.holder_identity == self._lock.identity
        return self.term > 0 and ours and lease.spec.lease_transitions == self._transitions

    def _can_acquire(self, lease: Lease) -> bool:
        holder = lease.spec.holder_identity
        if not holder or holder == self._lock.identity:
            return True
        now = self._timing.clock()
        if self._seen is None or self._seen[0] != lease.metadata.resource_version:
            self._seen = (lease.metadata.resource_version, now)
        return now - self._seen[1] > (lease.spec.lease_duration_seconds or DURATION_SECONDS)

    def _document(self, lease: Lease | None, holder: str | None = None) -> dict[str, object]:
        """Return the new Lease, or the one that was read with its version, so that a race is a conflict."""
        now = self._timing.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease.spec if lease else None
        renewed = spec is not None and spec.holder_identity == self._lock.identity
        transitions = 0 if lease is None else _transitions(lease, self._lock.identity)
        metadata: dict[str, object] = {"name": self._lock.name, "namespace": self._lock.namespace}
        if lease is not None:
            read = lease.metadata
            metadata |= {
                "resourceVersion": read.resource_version, "labels": read.labels, "annotations": read.annotations
            }  # fmt: skip
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._lock.identity if holder is None else holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": spec.acquire_time if spec and renewed else now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


def _transitions(lease: Lease, identity: str) -> int:
    """Count the changes of the holder, including this one."""
    return (lease.spec.lease_transitions or 0) + (lease.spec.holder_identity != identity)
