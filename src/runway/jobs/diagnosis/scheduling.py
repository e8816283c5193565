"""The scheduler's "0/3 nodes are available: ..." in plain words. Pure.

The text is `FitError.Error` of `pkg/scheduler/framework/types.go`: a count and a reason for each kind of refusal, then
what preemption could do. Older versions name the taint; a node can be counted under several reasons.
https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/#my-pod-stays-pending
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.manifest import GPU_RESOURCE
from runway.jobs.snapshot import FreeCapacity, JobSnapshot
from runway.kube.objects import Job, Pod
from runway.quantity import ceil_units
from runway.text import amounts_in_words, bounded, one_line

_MAX_REASONS: Final = 8

_NODES: Final = re.compile(r"0/(?P<nodes>\d{1,6}) nodes are available: ?")
_END: Final = re.compile(r"\. (?=preemption: |no new claims|[A-Z0-9])|\.$")
_REASON: Final = re.compile(r"(?P<count>\d{1,6}) (?P<reason>.+)", re.DOTALL)
_BETWEEN: Final = re.compile(r", (?=\d{1,6} )")

_SHORT_OF: Final = {
    f"Insufficient {GPU_RESOURCE}": ("GPU", "too few free GPUs"),
    "Insufficient cpu": ("CPU", "too little free CPU"),
    "Insufficient memory": ("memory", "too little free memory"),
    "Insufficient ephemeral-storage": ("disk", "too little free disk"),
    "Too many pods": ("pods", "as many pods as fit"),
}


@dataclass(frozen=True, slots=True)
class UnschedulableReason:
    """How many nodes refused the pod, for want of what, in the scheduler's words and in plain ones."""

    nodes: int
    what: str
    words: str


def parse_fit_error(message: str) -> tuple[int | None, tuple[UnschedulableReason, ...]]:
    """The number of nodes that were looked at and what each kind of refusal was; nothing where it cannot be read."""
    text = bounded(message)
    head = _NODES.match(text)
    if head is None:
        return None, ()
    sentence = _END.split(text[head.end() :], maxsplit=1)[0]
    parts = [_REASON.fullmatch(part) for part in _BETWEEN.split(sentence)[:_MAX_REASONS]]
    wants = tuple(_parse_reason(int(part["count"]), part["reason"]) for part in parts if part is not None)
    return int(head["nodes"]), wants


def unschedulable(case: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Why no node takes the pod, what it asks for and what is free; None where the scheduler does not say so."""
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "False":
        return None
    said = scheduled.message or scheduled.reason or ""
    nodes, wants = parse_fit_error(said)
    evidence = {"scheduler_reason": one_line(scheduled.reason), "scheduler_message": one_line(said)}
    message = f"no node can take the pod: {_summary(nodes, wants) or one_line(said) or 'no reason given'}"
    asked = _requested(case.job, pod)
    if asked is not None:
        message += f"; it asks for {amounts_in_words(asked[0] or None, *asked[1:])}"
    if case.room is not None:
        evidence["room"] = _free(case.room, gpus=asked is None or asked[0] > 0)
        message += f"; {evidence['room']}"
    return Diagnosis(FailureCode.UNSCHEDULABLE, message, evidence, _hint(wants))


def _parse_reason(count: int, reason: str) -> UnschedulableReason:
    has = "has" if count == 1 else "have"
    if known := _SHORT_OF.get(reason):
        return UnschedulableReason(count, known[0], f"{count} {has} {known[1]}")
    if reason.startswith("Insufficient "):
        resource = one_line(reason.removeprefix("Insufficient "), 80)
        return UnschedulableReason(count, resource, f"{count} {has} too little free {resource}")
    if "affinity/selector" in reason:
        return UnschedulableReason(
            count, "node selector", f"{count} {'does' if count == 1 else 'do'} not match the node selector"
        )
    if "taint" in reason:
        taint = re.search(r"\{[^}]{1,120}\}", reason)
        named = f" {one_line(taint.group(), 120)}" if taint else ""
        return UnschedulableReason(count, "taint", f"{count} {has} a taint{named} that the pod does not tolerate")
    if reason == "node(s) were unschedulable":
        return UnschedulableReason(count, "cordon", f"{count} {'is' if count == 1 else 'are'} cordoned")
    return UnschedulableReason(count, "other", f"{count}: {one_line(reason, 120)}")


def _summary(nodes: int | None, wants: Sequence[UnschedulableReason]) -> str:
    if nodes is None or not wants:
        return ""
    return f"of {nodes} {'node' if nodes == 1 else 'nodes'}, {', '.join(want.words for want in wants)}"


def _requested(job: Job, pod: Pod) -> tuple[int, int, int] | None:
    """GPUs, milli-CPU and bytes that the pod asks for."""
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


def _free(room: FreeCapacity, *, gpus: bool) -> str:
    if room.nodes == 0:
        return "no node of the pool is ready and takes new pods"
    free = amounts_in_words(room.gpu if gpus else None, room.cpu, room.memory)
    in_all = f" ({room.gpu_in_all} GPU on {room.nodes} nodes together)" if gpus and room.nodes > 1 else ""
    return f"the most that is free on one node is {free}{in_all}"


def _hint(wants: Sequence[UnschedulableReason]) -> str | None:
    short = [want.what for want in wants if want.what in ("GPU", "CPU", "memory", "disk", "pods")]
    if short:
        named = " and ".join(dict.fromkeys(short))
        return f"submit the job again with a longer timeout_seconds, which counts the wait, or ask for less {named}"
    if wants:
        return "tell the platform's operators: no node of the pool takes the pod, however little it asks for"
    return None
