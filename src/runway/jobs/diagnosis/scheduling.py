"""Translate the scheduler's "0/3 nodes are available: ..." to plain words. Pure.

`FitError.Error` of `pkg/scheduler/framework/types.go` writes a count and a reason for each kind of rejection, then the
result of preemption. Older versions name the taint. A node can count under several reasons.
https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/#my-pod-stays-pending
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.snapshot import FreeCapacity, JobSnapshot
from runway.kube.objects import GPU_RESOURCE, Job, Pod
from runway.quantity import ceil_units
from runway.text import amounts_in_words, bounded, one_line

_MAX_REASONS: Final = 8

_NODES: Final = re.compile(r"0/(?P<nodes>\d{1,6}) nodes are available: ?")
_END: Final = re.compile(r"\. (?=preemption: |no new claims|[A-Z0-9])|\.$")
_REASON: Final = re.compile(r"(?P<count>\d{1,6}) (?P<reason>.+)", re.DOTALL)
_BETWEEN: Final = re.compile(r", (?=\d{1,6} )")

_EXHAUSTED: Final = {
    f"Insufficient {GPU_RESOURCE}": ("GPU", "too few free GPUs"),
    "Insufficient cpu": ("CPU", "too little free CPU"),
    "Insufficient memory": ("memory", "too little free memory"),
    "Insufficient ephemeral-storage": ("disk", "too little free disk"),
    "Too many pods": ("pods", "the maximum number of pods"),
}


@dataclass(frozen=True, slots=True)
class UnschedulableReason:
    """Why the scheduler rejected some nodes. `kind` is the exhausted resource or the kind of rejection."""

    kind: str
    text: str


def parse_fit_error(message: str) -> tuple[int | None, tuple[UnschedulableReason, ...]]:
    """Return the number of nodes considered and the reasons for rejection; None and () for any other message."""
    text = bounded(message)
    head = _NODES.match(text)
    if head is None:
        return None, ()
    sentence = _END.split(text[head.end() :], maxsplit=1)[0]
    parts = [_REASON.fullmatch(part) for part in _BETWEEN.split(sentence)[:_MAX_REASONS]]
    reasons = tuple(_parse_reason(int(part["count"]), part["reason"]) for part in parts if part is not None)
    return int(head["nodes"]), reasons


def unschedulable(snapshot: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Diagnose a pod without a node, with its requests and the free capacity; None if the scheduler reports nothing."""
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "False":
        return None
    text = scheduled.message or scheduled.reason or ""
    nodes, reasons = parse_fit_error(text)
    evidence = {"scheduler_reason": one_line(scheduled.reason), "scheduler_message": one_line(text)}
    message = f"no node fits the pod: {_summary(nodes, reasons) or one_line(text) or 'no reason given'}"
    requests = _requests(snapshot.job, pod)
    if requests is not None:
        message += f"; the pod requests {amounts_in_words(requests[0] or None, *requests[1:])}"
    if snapshot.free_capacity is not None:
        evidence["room"] = _free(snapshot.free_capacity, gpus=requests is None or requests[0] > 0)
        message += f"; {evidence['room']}"
    return Diagnosis(FailureCode.UNSCHEDULABLE, message, evidence, _hint(reasons))


def _parse_reason(count: int, reason: str) -> UnschedulableReason:
    one = count == 1
    has = f"{count} {'has' if one else 'have'}"
    if known := _EXHAUSTED.get(reason):
        return UnschedulableReason(known[0], f"{has} {known[1]}")
    if reason.startswith("Insufficient "):
        resource = one_line(reason.removeprefix("Insufficient "), 80)
        return UnschedulableReason(resource, f"{has} too little free {resource}")
    if "affinity/selector" in reason:
        return UnschedulableReason("node selector", f"{count} {'does' if one else 'do'} not match the node selector")
    if "taint" in reason:
        taint = re.search(r"\{[^}]{1,120}\}", reason)
        named = f" {one_line(taint.group(), 120)}" if taint else ""
        return UnschedulableReason("taint", f"{has} a taint{named} that the pod does not tolerate")
    if reason == "node(s) were unschedulable":
        return UnschedulableReason("cordon", f"{count} {'is' if one else 'are'} cordoned")
    return UnschedulableReason("other", f"{count}: {one_line(reason, 120)}")


def _summary(nodes: int | None, reasons: Sequence[UnschedulableReason]) -> str:
    if nodes is None or not reasons:
        return ""
    return f"of {nodes} {'node' if nodes == 1 else 'nodes'}, {', '.join(reason.text for reason in reasons)}"


def _requests(job: Job, pod: Pod) -> tuple[int, int, int] | None:
    """Return the pod's requests: GPUs, milli-CPU and bytes of memory."""
    containers = pod.spec.containers or job.spec.template.spec.containers or ()
    requests = containers[0].resources.requests if containers else {}
    try:
        return (
            ceil_units(requests.get(GPU_RESOURCE, "0")),
            ceil_units(requests.get("cpu", "0"), 1000),
            ceil_units(requests.get("memory", "0")),
        )
    except ValueError:
        return None


def _free(capacity: FreeCapacity, *, gpus: bool) -> str:
    if capacity.nodes == 0:
        return "no node of the pool is ready and schedulable"
    free = amounts_in_words(capacity.gpu if gpus else None, capacity.cpu, capacity.memory)
    total = f" ({capacity.gpu_in_all} GPU on {capacity.nodes} nodes in total)" if gpus and capacity.nodes > 1 else ""
    return f"the most free on one node is {free}{total}"


def _hint(reasons: Sequence[UnschedulableReason]) -> str | None:
    kinds = list(dict.fromkeys(reason.kind for reason in reasons))
    if short := [kind for kind in kinds if kind in ("GPU", "CPU", "memory", "disk")]:
        less = " and ".join(short)
        return f"resubmit the job with a longer timeout_seconds, which includes waiting, or request less {less}"
    if kinds and "pods" not in kinds:
        return "contact the platform operators, because no node of the pool accepts the pod whatever it requests"
    return None
