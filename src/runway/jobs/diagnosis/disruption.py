"""Diagnosis of pods that the cluster disrupted, evicted or rejected. Pure.

The messages are those of `pkg/kubelet/eviction/helpers.go`, `pkg/kubelet/nodeshutdown`, `pkg/kubelet/preemption`,
`pkg/kubelet/lifecycle/predicate.go`, `pkg/controller/tainteviction` and `pkg/controller/podgc` of Kubernetes 1.35.
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
"""

from __future__ import annotations

import re
from typing import Final

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import VOLUME_SHARED_MEMORY, Condition, Node, Pod
from runway.text import bounded, one_line

_REJECTED: Final = "Pod was rejected: "
# The kubelet's reasons for a rejection; `OutOf` is followed by the exhausted resource.
_REJECTIONS: Final = re.compile(
    r"OutOf.+|UnexpectedAdmissionError|NodeAffinity|NodeName|NodePorts|TaintToleration|TopologyAffinityError"
    r"|InvalidNodeInfo|UnknownReason|UnexpectedPredicateFailureType|PodOS\w+|PodFeatureUnsupported|AppArmor"
)
_NODE_SHUTDOWN: Final = frozenset({"NodeShutdown", "Terminated"})
_UNREACHABLE: Final = frozenset({"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"})
_OVER_DISK_LIMIT: Final = re.compile(
    r"Pod ephemeral local storage usage exceeds the total limit of containers (?P<total>\S+)\. "
    r"|exceeded its local ephemeral storage limit \"(?P<own>[^\"]+)\""
    r"|Usage of EmptyDir volume \"(?P<volume>[^\"]+)\" exceeds the limit \"(?P<of_volume>[^\"]+)\""
)
_PRESSURE: Final = (
    (re.compile(r"low on resource: memory|MemoryPressure"), FailureCode.EVICTED_MEMORY, "memory"),
    (re.compile(r"low on resource: (?:ephemeral-storage|inodes)|DiskPressure"), FailureCode.EVICTED_DISK, "disk"),
    (re.compile(r"low on resource: pids|PIDPressure"), FailureCode.EVICTED_PIDS, "process ids"),
)


_DISRUPTIONS: Final = {
    "PreemptionByScheduler": (FailureCode.PREEMPTED, "the scheduler preempted the pod for a pod of higher priority"),
    "EvictionByEvictionAPI": (
        FailureCode.DRAINED, "the pod was evicted from node {node} through the eviction API, for example by a drain",
    ),
    "DeletionByPodGC": (FailureCode.NODE_LOST, "the pod's node {node} no longer exists"),
}  # fmt: skip


def disruption(pod: Pod) -> Condition | None:
    """Return the condition of a disrupted pod, which does not count against the retries; None for any other pod."""
    found = pod.condition("DisruptionTarget")
    return found if found is not None and found.status == "True" else None


def disruption_of(pod: Pod, node: Node | None) -> Diagnosis | None:
    """Diagnose a disruption; None without one. `node` is the pod's, if known."""
    target = disruption(pod)
    if target is None:
        return None
    reason, message = one_line(target.reason), one_line(target.message)
    evidence = {"disruption_reason": reason, "disruption_message": message, **status_evidence(pod)}
    if target.reason in _DISRUPTIONS:
        code, text = _DISRUPTIONS[target.reason]
        return Diagnosis(code, text.format(node=pod.spec.node_name), evidence)
    if target.reason in ("DeletionByTaintManager", "DeletionByDeviceTaintManager"):
        return _diagnose_taint(pod, node, target, evidence)
    if target.reason == "TerminationByKubelet":
        return _diagnose_kubelet(pod, evidence)
    words = message or reason or "no reason given"
    return Diagnosis(FailureCode.EVICTED, f"the cluster disrupted the pod: {words}", evidence)


def eviction_of(pod: Pod) -> Diagnosis | None:
    """Diagnose an eviction without a disruption, which counts against the retries; None without one."""
    reason = pod.status.reason
    if reason == "NodeLost":
        message = f"the pod's node {pod.spec.node_name} stopped responding"
        return Diagnosis(FailureCode.NODE_LOST, message, status_evidence(pod))
    if reason not in ("Evicted", "Preempting", *_NODE_SHUTDOWN) or (pod.status.message or "").startswith(_REJECTED):
        return None
    return _diagnose_kubelet(pod, status_evidence(pod))


def rejection_of(pod: Pod) -> Diagnosis | None:
    """Diagnose a rejection by the node that the pod was bound to; None without one."""
    reason, message = pod.status.reason or "", pod.status.message or ""
    if pod.status.phase != "Failed" or pod.container.terminated is not None:
        return None
    if not message.startswith(_REJECTED) and not _REJECTIONS.fullmatch(reason):
        return None
    if reason in _NODE_SHUTDOWN:
        return _diagnose_kubelet(pod, status_evidence(pod))
    words = one_line(message.removeprefix(_REJECTED)) or "no reason given"
    text = f"node {pod.spec.node_name} rejected the pod ({one_line(reason, 80)}): {words}"
    return Diagnosis(FailureCode.ADMISSION_REJECTED, text, status_evidence(pod))


def _diagnose_kubelet(pod: Pod, evidence: dict[str, str]) -> Diagnosis:
    reason, node = pod.status.reason, f"node {pod.spec.node_name}"
    if reason == "Preempting":
        return Diagnosis(FailureCode.PREEMPTED, f"{node} preempted the pod for a critical pod", evidence)
    if reason in _NODE_SHUTDOWN:
        return Diagnosis(FailureCode.NODE_SHUTDOWN, f"{node} was shut down", evidence)
    message = bounded(pod.status.message or "") or evidence.get("disruption_message", "")
    if exceeded := _OVER_DISK_LIMIT.search(message):
        limit = one_line(exceeded["total"] or exceeded["own"] or exceeded["of_volume"], 40)
        if exceeded["volume"] == VOLUME_SHARED_MEMORY:
            text = f"the job's files in /dev/shm exceeded their limit of {limit}"
            return Diagnosis(FailureCode.SHARED_MEMORY_EXCEEDED, text, evidence | {"shared_memory_limit": limit})
        text = f"the job exceeded its local disk limit of {limit}, which includes its log"
        return Diagnosis(FailureCode.EPHEMERAL_STORAGE_EXCEEDED, text, evidence | {"ephemeral_storage_limit": limit})
    words = one_line(message) or "no reason given"
    for pattern, code, resource in _PRESSURE:
        if pattern.search(message):
            return Diagnosis(code, f"{node} ran out of {resource} and evicted the pod: {words}", evidence)
    return Diagnosis(FailureCode.EVICTED, f"{node} evicted the pod: {words}", evidence)


def _diagnose_taint(pod: Pod, node: Node | None, target: Condition, evidence: dict[str, str]) -> Diagnosis:
    """Distinguish a lost node from an operator's taint, because Kubernetes also taints lost nodes.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
    """
    name = pod.spec.node_name
    if node is None:
        message = f"node {name} stopped responding or was tainted, and Kubernetes deleted the pod"
        return Diagnosis(FailureCode.NODE_LOST, message, evidence)
    ready = node.condition("Ready")
    evidence = evidence | {
        "node_ready": one_line(ready.status) if ready else "",
        "node_taints": one_line(", ".join(taint.key for taint in node.spec.taints)),
    }
    ready_since = ready.last_transition_time if ready is not None and ready.status == "True" else None
    disrupted_at = target.last_transition_time
    if (
        ready_since is None
        or any(taint.key in _UNREACHABLE for taint in node.spec.taints)
        or (disrupted_at is not None and ready_since > disrupted_at)
    ):
        message = f"node {name} stopped responding, and Kubernetes deleted the pod"
        return Diagnosis(FailureCode.NODE_LOST, message, evidence)
    return Diagnosis(FailureCode.NODE_TAINTED, f"node {name} was tainted, and Kubernetes deleted the pod", evidence)


def status_evidence(pod: Pod) -> dict[str, str]:
    """Return the reason and the message that the node or a controller wrote into the status of the pod."""
    status = {"pod_reason": one_line(pod.status.reason), "pod_message": one_line(pod.status.message)}
    return {name: text for name, text in status.items() if text}
