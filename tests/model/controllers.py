"""Kubernetes' controllers and kubectl users, with exactly the real ones' moves.

The Job controller starts a pod only while the Job is unfinished, has no running pod and no success. A successful pod
stays until it is counted (finalizer `batch.kubernetes.io/job-tracking`). A Job is finished only when all its pods are
terminal; until then `FailureTarget` announces its failure:
https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from runway.state.job_store import JobKey
from tests.model.oracle import (
    JOB_UID,
    NO_IMAGE,
    NO_REGISTRY,
    NODE,
    Json,
    cause_of,
    has_succeeded,
    is_disrupted,
    is_finished,
    is_terminal,
    is_terminating,
    may_start,
    pods_of,
    uid,
)
from tests.support.fake_cluster import FakeKubernetes, copy_of

GRACE_SECONDS: Final = 30
"""The grace period of every pod: the default of the policy and of Kubernetes."""
_COST: Final = "runway.internal/cost"
_RECORD: Final = "runway.internal/record"


class Move(StrEnum):
    """An event in the life of a Job or a pod."""

    START = "the Job controller starts a pod"
    RUN = "the scheduler places the pod and the kubelet runs it"
    NO_IMAGE = "the scheduler places the pod and the registry does not know its image"
    NO_REGISTRY = "the scheduler places the pod and the registry does not respond"
    PULL = "the kubelet pulls the image of a pod that could not start"
    REJECT = "the node rejects the pod"
    SUCCEED = "the process exits with 0"
    FAIL = "the process exits with 1"
    DELETE_POD = "the pod is deleted with its grace period"
    EVICT = "the pod is evicted"
    REMOVE_POD = "the pod is gone"
    COMPLETE = "the Job controller sets the condition Complete"
    SET_FAILED = "the Job controller sets the condition Failed"
    DEADLINE = "the deadline has passed: failure is announced, and the pod is terminating"
    LOSE_NODE = "the node is gone: the pod garbage collector fails and deletes the pod"
    RECORD = "version 0.7 records the cost of a finished Job, which may exceed its ceiling"
    TTL = "Kubernetes deletes a finished Job and its pods"
    DELETE_JOB = "kubectl delete job: the Job is deleted, its pods are terminating"
    ORPHAN = "kubectl delete job --cascade=orphan: the Job is deleted, its pods stay"


class Controllers:
    """Apply moves to the API server's objects. `foreign` has the uids of objects created outside Runway."""

    def __init__(self, server: FakeKubernetes) -> None:
        self.server = server
        self.foreign: set[str] = set()
        self._made = 0

    def moves(self, move: Move) -> list[tuple[str, str]]:
        """Return the Jobs or pods that allow this move now, in creation order."""
        table: dict[Move, tuple[str, Callable[[Json], bool]]] = {
            Move.START: ("jobs", self._can_start),
            Move.RUN: ("pods", _is_waiting),
            Move.NO_IMAGE: ("pods", _is_waiting),
            Move.NO_REGISTRY: ("pods", _is_waiting),
            Move.PULL: ("pods", lambda pod: _is_waiting(pod) and cause_of(pod) is not None),
            Move.REJECT: ("pods", lambda pod: _is_waiting(pod) and cause_of(pod) is None),
            Move.SUCCEED: ("pods", lambda pod: pod["status"]["phase"] == "Running"),
            Move.FAIL: ("pods", lambda pod: not is_terminal(pod)),
            Move.DELETE_POD: ("pods", lambda pod: not is_terminal(pod) and not is_terminating(pod)),
            Move.EVICT: ("pods", lambda pod: not is_terminal(pod) and not is_terminating(pod)),
            Move.LOSE_NODE: ("pods", lambda pod: not is_terminal(pod) and "nodeName" in pod["spec"]),
            Move.REMOVE_POD: ("pods", self._can_go),
            Move.COMPLETE: ("jobs", self._can_complete),
            Move.SET_FAILED: ("jobs", lambda job: self._spent(job) and not self._live(job)),
            Move.DEADLINE: ("jobs", lambda job: not (is_finished(job) or _has_failed(job))),
            Move.RECORD: ("jobs", _can_record),
            Move.TTL: ("jobs", lambda job: is_finished(job) and not self._live(job)),
            Move.DELETE_JOB: ("jobs", lambda _: True),
            Move.ORPHAN: ("jobs", lambda _: True),
        }
        kind, fits = table[move]
        return [place for place, item in self.server.objects[kind].items() if fits(item)]

    def make(self, move: Move, place: tuple[str, str]) -> None:  # noqa: C901 (one branch a move)
        """Apply a move to a Job or pod that `moves` has returned."""
        server, name = self.server, place[1]
        match move:
            case Move.START:
                self._note_foreign(server.job(name), server.start_pod(name, running=False, node=None))
            case Move.RUN:
                self._bind(name, "Running", {"running": {"startedAt": server.now()}})
            case Move.NO_IMAGE:
                self._bind(name, "Pending", _waiting("ErrImagePull", NO_IMAGE))
            case Move.NO_REGISTRY:
                self._bind(name, "Pending", _waiting("ErrImagePull", NO_REGISTRY))
            case Move.PULL:
                self._bind(name, "Pending", _waiting("ContainerCreating", ""))
            case Move.REJECT:
                rejection = {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: no CPU"}
                server.set_status(name, {**server.pod(name)["status"], **rejection})
            case Move.SUCCEED:
                self._end_pod(name, "Succeeded", 0)
            case Move.FAIL:
                self._end_pod(name, "Failed", 1)
            case Move.DELETE_POD:
                self._terminate(name, GRACE_SECONDS)
            case Move.EVICT:
                self._disrupt(name, "EvictionByEvictionAPI")
                self._terminate(name, GRACE_SECONDS)
            case Move.LOSE_NODE:
                self._disrupt(name, "DeletionByPodGC", phase="Failed")
                self._terminate(name, 0)
            case Move.REMOVE_POD:
                server.remove_pod(name)
            case Move.COMPLETE:
                server.complete(name)
            case Move.SET_FAILED:
                server.fail(name)
            case Move.DEADLINE:
                self._end_pods(server.job(name))
                server.announce_failure(name, "DeadlineExceeded")
            case Move.RECORD:
                self._record(copy_of(server.job(name)))
            case Move.TTL:
                pods = pods_of(server, server.job(name))
                server.delete_job(name)
                for pod in pods:
                    server.remove_pod(pod["metadata"]["name"])
            case Move.DELETE_JOB:
                job = copy_of(server.job(name))
                server.delete_job(name)
                self._end_pods(job)
            case Move.ORPHAN:
                server.delete_job(name)

    def _record(self, job: Json) -> None:
        """Write a final record with half of the ceiling as actual cost, with three halves, or without a cost."""
        notes = job["metadata"]["annotations"]
        state = "succeeded" if job["status"]["conditions"][0]["type"] == "Complete" else "failed"
        if state == "failed" and "runway.internal/cancelled-at" in notes:
            state = "cancelled"
        record = {"version": 1, "uid": uid(job), "kept_at": self.server.now(), "state": state}
        self._made += 1
        if halves := (0, 1, 3)[self._made % 3]:
            record["actual"] = f"{Decimal(json.loads(notes[_COST])['ceiling']) * halves / 2:.6f}"
        notes[_RECORD] = json.dumps(record)
        self.server.put("jobs", job, "MODIFIED")

    def catch_up(self) -> None:
        """Count each success, as the Job controller does within a second."""
        for place in self.moves(Move.COMPLETE):
            if not may_start(self.server, self.server.job(place[1])):
                self.make(Move.COMPLETE, place)

    def add_pod(self, key: JobKey, requests: dict[str, str]) -> None:
        """Create a pod without a Job, as kubectl run does, unless its name exists."""
        if key not in self.server.objects["pods"]:
            self._add("pods", key, {"containers": [{"name": "main", "resources": {"requests": requests}}]})

    def add_job(self, key: JobKey, requests: dict[str, str], pods: int) -> None:
        """Create a Job with `pods` parallel completions, as kubectl create job does, unless its name exists."""
        if key not in self.server.objects["jobs"]:
            template = {"metadata": {"labels": {}}, "spec": {"containers": [_container(requests)]}}
            spec = {"parallelism": pods, "completions": pods, "backoffLimit": 0, "template": template}
            self._add("jobs", key, spec)

    def set_node(self, *, ready: bool) -> None:
        """Set the node's condition Ready."""
        kind = "MODIFIED" if ("", NODE) in self.server.objects["nodes"] else "ADDED"
        conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
        node = {"metadata": {"name": NODE, "uid": f"uid-{NODE}"}, "status": {"conditions": conditions}}
        self.server.put("nodes", node, kind)

    def _add(self, kind: str, key: JobKey, spec: Json) -> None:
        self._made += 1
        name = f"uid-foreign-{self._made}"
        self.foreign.add(name)
        status = {"phase": "Running"} if kind == "pods" else {}
        metadata = {"name": key.name, "namespace": key.namespace, "uid": name}
        self.server.add(kind, {"metadata": metadata, "spec": spec, "status": status})

    def _note_foreign(self, job: Json, pod: str) -> None:
        if uid(job) in self.foreign:
            self.foreign.add(uid(self.server.pod(pod)))

    def _can_start(self, job: Json) -> bool:
        if "template" not in job["spec"] or not may_start(self.server, job) or self._spent(job):
            return False
        return bool(self._live(job) < job["spec"].get("parallelism", 1))

    def _can_complete(self, job: Json) -> bool:
        if is_finished(job) or _has_failed(job) or self._live(job):
            return False
        return any(pod["status"]["phase"] == "Succeeded" for pod in pods_of(self.server, job))

    def _can_go(self, pod: Json) -> bool:
        owner = pod["metadata"].get("labels", {}).get(JOB_UID)
        job = next((job for job in self.server.objects["jobs"].values() if uid(job) == owner), None)
        return not (has_succeeded(pod) and job is not None and not is_finished(job))

    def _spent(self, job: Json) -> bool:
        """Whether no retry is left; disrupted pods do not count, and one exit code fails a Job with a FailJob rule."""
        if is_finished(job):
            return False
        if _has_failed(job):
            return True
        failed = [pod for pod in pods_of(self.server, job) if pod["status"]["phase"] == "Failed"]
        counted = [pod for pod in failed if not is_disrupted(pod)]
        rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
        if any(rule["action"] == "FailJob" for rule in rules) and any(map(_has_exit_code, counted)):
            return True
        return bool(len(counted) > job["spec"]["backoffLimit"])

    def _live(self, job: Json) -> int:
        return sum(not is_terminal(pod) for pod in pods_of(self.server, job))

    def _end_pod(self, name: str, phase: str, exit_code: int) -> None:
        now = self.server.now()
        self._bind(name, phase, {"terminated": {"exitCode": exit_code, "startedAt": now, "finishedAt": now}})

    def _bind(self, name: str, phase: str, state: Json) -> None:
        """Set the pod's container, on the node."""
        pod = copy_of(self.server.pod(name))
        statuses, conditions = [{"name": "job", "state": state}], pod["status"].get("conditions", [])
        if "nodeName" not in pod["spec"]:
            pod["spec"]["nodeName"] = NODE
            conditions = [*conditions, self._condition("PodScheduled")]
        pod["status"] = {**pod["status"], "phase": phase, "containerStatuses": statuses, "conditions": conditions}
        self.server.put("pods", pod, "MODIFIED")

    def _disrupt(self, name: str, reason: str, **status: str) -> None:
        known = self.server.pod(name)["status"]
        conditions = [item for item in known.get("conditions", []) if item["type"] != "DisruptionTarget"]
        target = self._condition("DisruptionTarget") | {"reason": reason}
        self.server.set_status(name, {**known, **status, "conditions": [*conditions, target]})

    def _condition(self, type_: str) -> Json:
        return {"type": type_, "status": "True", "lastTransitionTime": self.server.now()}

    def _terminate(self, name: str, grace: int) -> None:
        """Delete the pod: the deletion timestamp is the end of its grace period, which another deletion can shorten."""
        pod = copy_of(self.server.pod(name))
        meta = pod["metadata"]
        requested = datetime.fromisoformat(self.server.now())
        if is_terminating(pod):
            before = timedelta(seconds=meta["deletionGracePeriodSeconds"])
            requested = datetime.fromisoformat(meta["deletionTimestamp"]) - before
        until = requested + timedelta(seconds=grace)
        meta |= {"deletionTimestamp": until.isoformat(), "deletionGracePeriodSeconds": grace}
        self.server.put("pods", pod, "MODIFIED")

    def _end_pods(self, job: Json) -> None:
        for pod in pods_of(self.server, job):
            if not is_terminal(pod) and not is_terminating(pod):
                self._terminate(pod["metadata"]["name"], GRACE_SECONDS)


def _can_record(job: Json) -> bool:
    notes = job["metadata"].get("annotations", {})
    return is_finished(job) and _COST in notes and _RECORD not in notes


def _is_waiting(pod: Json) -> bool:
    return pod["status"]["phase"] == "Pending" and not is_terminating(pod)


def _waiting(reason: str, message: str) -> Json:
    return {"waiting": {"reason": reason, "message": message}}


def _has_exit_code(pod: Json) -> bool:
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return any(state.get("terminated", {}).get("exitCode", 0) != 0 for state in states)


def _has_failed(job: Json) -> bool:
    """Whether the Job has the condition FailureTarget."""
    return any(item["type"] == "FailureTarget" for item in job["status"].get("conditions", []))


def _container(requests: dict[str, str]) -> Json:
    return {"name": "main", "resources": {"requests": requests}}
