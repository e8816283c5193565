"""The rest of Kubernetes, and people with kubectl: every move that the real ones could make, and no other.

The Job controller starts a pod only while the Job is open, nothing of it runs and its one success is not there; an
undisturbed success stays until it was counted (the finalizer `batch.kubernetes.io/job-tracking`). A Job is finished
only when all its pods have ended; until then its failure is announced (`FailureTarget`):
https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from runway.state.job_store import JobKey
from tests.model.oracle import JOB_UID, Json, ended, finished, may_start, pods_of, succeeded, told_to_end, uid
from tests.support.fake_cluster import FakeKubernetes, copy_of


class Move(StrEnum):
    """What can happen to a Job or a pod."""

    START = "the Job controller starts a pod"
    RUN = "the scheduler places the pod and the kubelet runs it"
    SUCCEED = "the process exits with 0"
    FAIL = "the process exits with 1"
    DELETE_POD = "the pod is told to end"
    EVICT = "the pod is evicted"
    REMOVE_POD = "the pod is gone"
    COMPLETE = "the Job controller's verdict: success"
    VERDICT_FAILED = "the Job controller's verdict: failure"
    DEADLINE = "the deadline has passed: failure is announced, and its pod is told to end"
    TTL = "a finished Job and its pods are cleaned up"
    DELETE_JOB = "kubectl delete job: the Job goes, its pods are told to end"
    ORPHAN = "kubectl delete job --cascade=orphan: the Job goes, its pods stay"


class Controllers:
    """Makes moves on what the API server has. `foreign` holds the uid of everything that was made past Runway."""

    def __init__(self, server: FakeKubernetes) -> None:
        self.server = server
        self.foreign: set[str] = set()
        self._made = 0

    def moves(self, move: Move) -> list[tuple[str, str]]:
        """The Jobs or pods that this move can be made on now, in the order they were made."""
        table: dict[Move, tuple[str, Callable[[Json], bool]]] = {
            Move.START: ("jobs", self._can_start),
            Move.RUN: ("pods", lambda pod: pod["status"]["phase"] == "Pending" and not told_to_end(pod)),
            Move.SUCCEED: ("pods", lambda pod: pod["status"]["phase"] == "Running"),
            Move.FAIL: ("pods", lambda pod: not ended(pod)),
            Move.DELETE_POD: ("pods", lambda pod: not ended(pod) and not told_to_end(pod)),
            Move.EVICT: ("pods", lambda pod: not ended(pod) and not told_to_end(pod)),
            Move.REMOVE_POD: ("pods", self._can_go),
            Move.COMPLETE: ("jobs", self._can_complete),
            Move.VERDICT_FAILED: ("jobs", lambda job: self._spent(job) and not self._live(job)),
            Move.DEADLINE: ("jobs", lambda job: not (finished(job) or _has_failed(job))),
            Move.TTL: ("jobs", lambda job: finished(job) and not self._live(job)),
            Move.DELETE_JOB: ("jobs", lambda _: True),
            Move.ORPHAN: ("jobs", lambda _: True),
        }
        kind, fits = table[move]
        return [place for place, item in self.server.objects[kind].items() if fits(item)]

    def make(self, move: Move, place: tuple[str, str]) -> None:  # noqa: C901 (one branch a move)
        """Make a move on one of what `moves` has named."""
        server, name = self.server, place[1]
        match move:
            case Move.START:
                self._note_foreign(server.job(name), server.start_pod(name, running=False, node=None))
            case Move.RUN:
                server.set_status(name, {**server.pod(name)["status"], "phase": "Running"})
            case Move.SUCCEED:
                self._end_pod(name, "Succeeded")
            case Move.FAIL:
                self._end_pod(name, "Failed")
            case Move.DELETE_POD:
                server.tell_pod_to_end(name)
            case Move.EVICT:
                condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
                server.set_status(name, {**server.pod(name)["status"], "conditions": [condition]})
                server.tell_pod_to_end(name)
            case Move.REMOVE_POD:
                server.remove_pod(name)
            case Move.COMPLETE:
                server.complete(name)
            case Move.VERDICT_FAILED:
                server.fail(name)
            case Move.DEADLINE:
                self._end_pods(server.job(name))
                server.announce_failure(name, "DeadlineExceeded")
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

    def catch_up(self) -> None:
        """The Job controller counts each success that stands, as it does within a second."""
        for place in self.moves(Move.COMPLETE):
            if not may_start(self.server, self.server.job(place[1])):
                self.make(Move.COMPLETE, place)

    def add_pod(self, key: JobKey, requests: dict[str, str]) -> None:
        """kubectl run: a pod that no Job made. A name that is taken stays taken."""
        if key not in self.server.objects["pods"]:
            self._add("pods", key, {"containers": [{"name": "main", "resources": {"requests": requests}}]})

    def add_job(self, key: JobKey, requests: dict[str, str], pods: int) -> None:
        """kubectl create job: `pods` at once, as many to succeed."""
        if key not in self.server.objects["jobs"]:
            template = {"metadata": {"labels": {}}, "spec": {"containers": [_container(requests)]}}
            spec = {"parallelism": pods, "completions": pods, "backoffLimit": 0, "template": template}
            self._add("jobs", key, spec)

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
        if finished(job) or _has_failed(job) or self._live(job):
            return False
        return any(pod["status"]["phase"] == "Succeeded" for pod in pods_of(self.server, job))

    def _can_go(self, pod: Json) -> bool:
        owner = pod["metadata"].get("labels", {}).get(JOB_UID)
        job = next((job for job in self.server.objects["jobs"].values() if uid(job) == owner), None)
        return not (succeeded(pod) and job is not None and not finished(job))

    def _spent(self, job: Json) -> bool:
        """Whether no retry is left: what a pod that was disrupted did is not counted."""
        if finished(job):
            return False
        if _has_failed(job):
            return True
        failed = [pod for pod in pods_of(self.server, job) if pod["status"]["phase"] == "Failed"]
        counted = [pod for pod in failed if "conditions" not in pod["status"]]
        return bool(len(counted) > job["spec"]["backoffLimit"])

    def _live(self, job: Json) -> int:
        return sum(not ended(pod) for pod in pods_of(self.server, job))

    def _end_pod(self, name: str, phase: str) -> None:
        self.server.set_status(name, {**self.server.pod(name)["status"], "phase": phase})

    def _end_pods(self, job: Json) -> None:
        for pod in pods_of(self.server, job):
            if not ended(pod) and not told_to_end(pod):
                self.server.tell_pod_to_end(pod["metadata"]["name"])


def _has_failed(job: Json) -> bool:
    """Whether the Job controller has announced that the Job will be failed once its pods have ended."""
    return any(item["type"] == "FailureTarget" for item in job["status"].get("conditions", []))


def _container(requests: dict[str, str]) -> Json:
    return {"name": "main", "resources": {"requests": requests}}
