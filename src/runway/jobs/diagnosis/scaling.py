"""Diagnosis of the autoscaler behind a pod that no node fits. Pure.

Precedence, first match wins:

1. The newest event of an autoscaler starts a node for the pod: `node_starting`.
2. The pool has the maximum number of nodes that the policy gives: `pool_at_maximum`.
3. The newest event of an autoscaler names a limit: `pool_at_maximum`, unless the pool is known to be below its maximum.
   The cluster autoscaler counts the node groups of all pools.
4. The newest event of an autoscaler names a failed start or missing capacity: `no_capacity`.

The events are those of `cluster-autoscaler/processors/status/eventing_scale_up_processor.go` and
`cluster-autoscaler/core/scaleup/orchestrator/skippedreasons.go` of the cluster autoscaler, and of
`pkg/controllers/provisioning/scheduling` of Karpenter, which EKS Auto Mode uses.
https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md#what-events-are-emitted-by-ca
https://karpenter.sh/docs/troubleshooting/

Anyone who may create events in the namespace can forge them, so they explain a wait and decide nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from runway.jobs.diagnosis.codes import ConditionCode
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Event, Pod
from runway.text import bounded, one_line

AUTOSCALER_REASONS: Final = frozenset({"TriggeredScaleUp", "NotTriggerScaleUp", "Nominated"})
"""Reasons of the normal events that explain a wait."""
_STARTING: Final = frozenset({"TriggeredScaleUp", "Nominated"})
_KARPENTER_FAILED: Final = "Failed to schedule pod"
"""The start of Karpenter's warning FailedScheduling. The scheduler's own one starts with the number of nodes."""
_AT_MAXIMUM: Final = re.compile(r"max node group size reached|max cluster \S{1,80} limit reached|exceeds? limits? for")
_NO_CAPACITY: Final = re.compile(
    r"in backoff after failed scale-up|[Ii]nsufficient ?[Cc]apacity|no capacity|capacity (?:is )?not available"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the autoscaler does for a pod without a node, since when, and what its owner can do."""

    code: ConditionCode
    message: str
    hint: str
    since: datetime | None = None


def scaling_of(snapshot: JobSnapshot, pod: Pod) -> Scaling | None:
    """Diagnose the autoscaler's part in the wait of an unschedulable pod; None if nothing is known."""
    events = [event for event in snapshot.events_on(pod) if _is_of_autoscaler(event)]
    newest = events[-1] if events else None
    if newest is not None and newest.reason in _STARTING:
        return _starting(events)
    pool, text = snapshot.pool, bounded(newest.message or "") if newest else ""
    quoted = f": {one_line(text)}" if text else ""
    since = newest.first_seen if newest else None
    names_limit = _AT_MAXIMUM.search(text) is not None and (pool is None or pool.max_nodes is None)
    if names_limit or (pool is not None and pool.is_at_maximum):
        size = f"pool {pool.name} has its maximum of {pool.max_nodes} nodes" if pool and pool.is_at_maximum else ""
        message = (size or "a pool has its maximum number of nodes, so the autoscaler starts none") + quoted
        hint = (
            "resubmit the job with a longer timeout_seconds, which includes waiting, request less, or name another pool"
        )
        return Scaling(ConditionCode.POOL_AT_MAXIMUM, message, hint, since)
    if _NO_CAPACITY.search(text):
        message = f"the autoscaler got no node from the cloud{quoted}"
        hint = "resubmit the job later with a longer timeout_seconds, or name another pool"
        return Scaling(ConditionCode.NO_CAPACITY, message, hint, since)
    return None


def _starting(events: list[Event]) -> Scaling:
    """Return the start of a node since the first of the newest events that start one."""
    first = len(events) - 1
    while first and events[first - 1].reason in _STARTING:
        first -= 1
    since = min((event.first_seen or _EPOCH for event in events[first:]), default=_EPOCH)
    message = f"the autoscaler starts a node for the pod: {one_line(events[-1].message) or 'no details given'}"
    hint = "resubmit the job with a longer timeout_seconds, which includes the start of a node"
    return Scaling(ConditionCode.NODE_STARTING, message, hint, None if since == _EPOCH else since)


def _is_of_autoscaler(event: Event) -> bool:
    if event.reason in AUTOSCALER_REASONS:
        return True
    return event.reason == "FailedScheduling" and (event.message or "").startswith(_KARPENTER_FAILED)
