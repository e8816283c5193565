"""Pods that ended through no act of their own: evictions, lost nodes, refusals by the node. Pure.

Where each wording comes from: `pkg/kubelet/eviction/helpers.go`, `pkg/kubelet/nodeshutdown`, `pkg/kubelet/preemption`,
`pkg/kubelet/lifecycle/predicate.go`, `pkg/controller/tainteviction` and `pkg/controller/podgc` of Kubernetes 1.35.
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
"""

from __future__ import annotations

import re
from typing import Final

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import Condition, Node, Pod
from runway.text import bounded, one_line

_REJECTED: Final = "Pod was rejected: "
# What the kubelet's admission names itself; `OutOf` and a resource for what there is no room for.
_REJECTIONS: Final = re.compile(
    r"OutOf.+|UnexpectedAdmissionError|NodeAffinity|NodeName|NodePorts|TaintToleration|TopologyAffinityError"
    r"|InvalidNodeInfo|UnknownReason|UnexpectedPredicateFailureType|PodOS\w+|PodFeatureUnsupported|AppArmor"
)
_NODE_SHUTDOWN: Final = frozenset({"NodeShutdown", "Terminated"})
_UNREACHABLE: Final = frozenset({"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"})
_OVER_DISK_LIMIT: Final = re.compile(
    r"Pod ephemeral local storage usage exceeds the total limit of containers (?P<total>\S+)\. "
    r"|exceeded its local ephemeral storage limit \"(?P<own>[^\"]+)\"|Usage of EmptyDir volume "
)
_PRESSURE: Final = (
    (re.compile(r"low on resource: memory|MemoryPressure"), FailureCode.EVICTED_MEMORY, "memory"),
    (re.compile(r"low on resource: (?:ephemeral-storage|inodes)|DiskPressure"), FailureCode.EVICTED_DISK, "disk"),
    (re.compile(r"low on resource: pids|PIDPressure"), FailureCode.EVICTED_PIDS, "process ids"),
)


def disruption(pod: Pod) -> Condition | None:
    """The condition of a pod that the cluster took away; such a pod does not count against the retries."""
    found = pod.condition("DisruptionTarget")
    return found if found is not None and found.status == "True" else None


def disruption_of(pod: Pod, node: Node | None) -> Diagnosis | None:
    """Why the cluster took the pod away; None where it did not. `node` is the pod's, where it is known."""
    target = disruption(pod)
    if target is None:
        return None
    evidence = {
        "disruption_reason": one_line(target.reason),
        "disruption_message": one_line(target.message),
        **_status(pod),
    }
    if target.reason == "PreemptionByScheduler":
        message = "the scheduler took the pod away to make room for one of higher priority"
        return Diagnosis(FailureCode.PREEMPTED, message, evidence)
    if target.reason == "EvictionByEvictionAPI":
        message = f"the pod was evicted from node {pod.spec.node_name} through the eviction API, as a drain does"
        return Diagnosis(FailureCode.DRAINED, message, evidence)
    if target.reason in ("DeletionByTaintManager", "DeletionByDeviceTaintManager"):
        return _tainted(pod, node, target, evidence)
    if target.reason == "DeletionByPodGC":
        message = f"node {pod.spec.node_name}, on which the pod ran, no longer exists"
        return Diagnosis(FailureCode.NODE_LOST, message, evidence)
    if target.reason == "TerminationByKubelet":
        return _by_kubelet(pod, evidence)
    words = one_line(target.message or target.reason) or "no reason given"
    return Diagnosis(FailureCode.EVICTED, f"the cluster took the pod away: {words}", evidence)


def eviction_of(pod: Pod) -> Diagnosis | None:
    """Why the kubelet ended the pod without calling it a disruption, so that it counts; None where it did not."""
    reason = pod.status.reason
    if reason == "NodeLost":
        message = f"node {pod.spec.node_name}, on which the pod ran, stopped answering"
        return Diagnosis(FailureCode.NODE_LOST, message, _status(pod))
    if reason not in ("Evicted", "Preempting", *_NODE_SHUTDOWN) or (pod.status.message or "").startswith(_REJECTED):
        return None
    return _by_kubelet(pod, _status(pod))


def rejection_of(pod: Pod) -> Diagnosis | None:
    """Why the node that the pod was bound to did not take it; None where it did."""
    reason, message = pod.status.reason or "", pod.status.message or ""
    if pod.status.phase != "Failed" or pod.container.terminated is not None:
        return None
    if not message.startswith(_REJECTED) and not _REJECTIONS.fullmatch(reason):
        return None
    if reason in _NODE_SHUTDOWN:
        return _by_kubelet(pod, _status(pod))
    words = one_line(message.removeprefix(_REJECTED)) or "no reason given"
    said = f"node {pod.spec.node_name} refused the pod ({one_line(reason, 80)}): {words}"
    return Diagnosis(FailureCode.ADMISSION_REJECTED, said, _status(pod))


def _by_kubelet(pod: Pod, evidence: dict[str, str]) -> Diagnosis:
    reason, message = pod.status.reason, pod.status.message or ""
    where = f"node {pod.spec.node_name}"
    if reason == "Preempting":
        return Diagnosis(FailureCode.PREEMPTED, f"{where} ended the pod to make room for a critical one", evidence)
    if reason in _NODE_SHUTDOWN:
        return Diagnosis(FailureCode.NODE_SHUTDOWN, f"{where} was shut down", evidence)
    told = bounded(message) or evidence.get("disruption_message", "")
    if over := _OVER_DISK_LIMIT.search(told):
        limit = over["total"] or over["own"]
        of_what = f"the limit of {one_line(limit, 40)}" if limit else "its limit"
        return Diagnosis(
            FailureCode.EPHEMERAL_STORAGE_EXCEEDED,
            f"the job wrote more to its container's disk than {of_what} allows, logs included",
            evidence | ({"ephemeral_storage_limit": one_line(limit, 40)} if limit else {}),
        )
    for pattern, code, of_what in _PRESSURE:
        if pattern.search(told):
            return Diagnosis(code, f"{where} ran out of {of_what} and evicted the pod: {one_line(told)}", evidence)
    words = one_line(told) or "no reason given"
    return Diagnosis(FailureCode.EVICTED, f"{where} evicted the pod: {words}", evidence)


def _tainted(pod: Pod, node: Node | None, target: Condition, evidence: dict[str, str]) -> Diagnosis:
    """Lost contact shows itself as a taint too; what the node is like tells the two apart, as far as it is known.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions
    """
    name = pod.spec.node_name
    if node is None:
        message = f"node {name} stopped answering or was tainted, and the pod was taken away"
        return Diagnosis(FailureCode.NODE_LOST, message, evidence)
    ready = node.condition("Ready")
    evidence = evidence | {
        "node_ready": one_line(ready.status) if ready else "",
        "node_taints": one_line(", ".join(taint.key for taint in node.spec.taints)),
    }
    back_since = ready.last_transition_time if ready is not None and ready.status == "True" else None
    away_since = target.last_transition_time
    if (
        back_since is None
        or any(taint.key in _UNREACHABLE for taint in node.spec.taints)
        or (away_since is not None and back_since > away_since)
    ):
        return Diagnosis(FailureCode.NODE_LOST, f"node {name} stopped answering and the pod was taken away", evidence)
    return Diagnosis(FailureCode.NODE_TAINTED, f"node {name} was tainted and the pod was taken away", evidence)


def _status(pod: Pod) -> dict[str, str]:
    status = {"pod_reason": one_line(pod.status.reason), "pod_message": one_line(pod.status.message)}
    return {name: text for name, text in status.items() if text}
