"""Builders of documents, specs, policies, Jobs and pods.

Jobs and pods have Kubernetes' format and are decoded like Runway's. Times are seconds after `START`. A test sets only
the fields under test; all others have defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from runway.jobs.annotations import (
    ANNOTATION_CANCELLED_AT,
    ANNOTATION_COST,
    ANNOTATION_SPEC,
    ANNOTATION_START_TIMEOUT,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    MANAGED_BY,
)
from runway.jobs.manifest import canonical_json
from runway.jobs.models import CostLineView, CostView
from runway.jobs.spec import AdmittedSpec, Resources
from runway.kube.objects import Event, Job, Node, Pod
from runway.policy import Policy, parse_policy

Json = dict[str, Any]

START: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
NAMESPACE: Final = "runway-vision"
JOB: Final = "rw-aaaaaaaaaaaaaaaaaaaa"
JOB_UID: Final = "uid-of-the-job"
LABEL_CONTROLLER: Final = "batch.kubernetes.io/controller-uid"
LABEL_JOB_NAME: Final = "batch.kubernetes.io/job-name"

POLICY: Final = """\
version: 1
limits:
  cpu: {min: 100m, max: "16"}
  memory: {min: 32Mi, max: 128Gi}
  gpu: {max: 4}
  timeout_seconds: {min: 10, max: 86400, default: 3600}
  grace_period_seconds: {max: 120, default: 30}
  retries: {max: 3}
images:
  allow: ["runway.local/*", "docker.io/library/*", "ghcr.io/acme/train"]
pools:
  cpu: {instance_type: m6i.4xlarge, hourly_usd: "0.768", cpu: "16", memory: 64Gi}
  a10g: {instance_type: g5.12xlarge, hourly_usd: "5.672", cpu: "48", memory: 192Gi, gpu: 4, gpu_type: a10g}
  h100: {instance_type: p5.48xlarge, hourly_usd: "55.04", cpu: "192", memory: 2Ti, gpu: 8, gpu_type: h100}
tenants:
  vision:
    namespace: runway-vision
    quota: {gpu: 4, cpu: "32", memory: 128Gi, jobs: 100}
    rate: {per_minute: 600, burst: 100}
  speech:
    namespace: runway-speech
    quota: {gpu: 2, cpu: "16", memory: 64Gi, jobs: 50}
    rate: {per_minute: 6, burst: 5}
"""


def moment(seconds: float) -> datetime:
    """Return the time `seconds` after `START`."""
    return START + timedelta(seconds=seconds)


def policy_text(*edits: tuple[str, str]) -> str:
    """Return `POLICY` with each first text replaced by the second. A missing text fails the test."""
    text = POLICY
    for old, new in edits:
        assert text.count(old) >= 1, f"{old!r} is not in the policy"
        text = text.replace(old, new, 1)
    return text


def policy(*edits: tuple[str, str]) -> Policy:
    """Parse `policy_text`."""
    return parse_policy(policy_text(*edits))


def document(**changes: Any) -> Json:
    """Return a small valid job document; `resources` is merged, other fields are set."""
    resources = {"cpu": "1", "memory": "1Gi"}
    changed = changes.pop("resources", {})
    merged = {**resources, **changed} if isinstance(changed, dict) else changed
    return {"image": "runway.local/train:1", "resources": merged, **changes}


def spec(**changes: Any) -> AdmittedSpec:
    """Return a small validated spec; `cpu` (milli-CPU), `memory` (bytes), `gpu` and others set its resources."""
    resources = {"cpu": 1000, "memory": 1 << 30, "gpu": 0, "gpu_type": None, "disk": 10 << 30, "shared_memory": 1 << 29}
    requested = {name: changes.pop(name, value) for name, value in resources.items()}
    plain: Json = {
        "image": "runway.local/train:1",
        "pool": requested["gpu_type"] or "cpu",
        "resources": Resources(**requested),
        "timeout_seconds": 3600,
        "retries": 0,
        "grace_period_seconds": 30,
        "user": 1000,
    }
    return AdmittedSpec(**{**plain, **changes})


def job(
    name: str = JOB,
    *,
    uid: str = JOB_UID,
    version: int = 1,
    namespace: str = NAMESPACE,
    created: float = 0,
    outcome: str | None = None,
    reason: str | None = None,
    message: str | None = None,
    finished: float = 100,
    conditions: Sequence[Json] = (),
    cancelled: bool = False,
    admitted: AdmittedSpec | None = None,
    annotations: Json | None = None,
    requests: Json | None = None,
    parallelism: int = 1,
    completions: int | None = 1,
    suspend: bool = False,
    started: float | None = None,
    deadline: int | None = None,
    backoff_limit: int | None = None,
    failed: int = 0,
    claims: Mapping[str, str] | None = None,
    managed: bool = False,
) -> Job:
    """Return a Job of Kubernetes. `outcome` is Complete or Failed; `admitted` is the spec in its annotation.

    `deadline` is activeDeadlineSeconds, counted from `started`. `claims` are the claims of the job's volumes by name.
    `managed` gives it the label of Jobs that Runway created.
    """
    admitted = admitted or spec()
    notes = {ANNOTATION_SPEC: canonical_json(admitted.to_json()), ANNOTATION_COST: canonical_json(COST)}
    if cancelled:
        notes[ANNOTATION_CANCELLED_AT] = _time(finished)
    if outcome is not None:
        conditions = [*conditions, condition(outcome, reason=reason, message=message, since=finished)]
    labels = {LABEL_MANAGED_BY: MANAGED_BY} if managed else {}
    if admitted.name is not None:
        labels[LABEL_NAME] = admitted.name
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid,
                "resourceVersion": str(version),
                "creationTimestamp": _time(created),
                "labels": labels,
                "annotations": {**notes, **(annotations or {})},
            },
            "spec": {
                "parallelism": parallelism,
                "completions": completions,
                "suspend": suspend,
                **_given(activeDeadlineSeconds=deadline, backoffLimit=backoff_limit),
                "template": {"spec": {"containers": [_container(requests)], "volumes": _volumes(claims or {})}},
            },
            "status": {
                "conditions": list(conditions),
                "failed": failed,
                **_given(startTime=None if started is None else _time(started)),
            },
        },
        Job,
    )


def pod(
    name: str = f"{JOB}-first",
    *,
    of: str = JOB,
    controller: str | None = JOB_UID,
    version: int = 1,
    namespace: str = NAMESPACE,
    created: float = 1,
    phase: str | None = None,
    state: Json | None = None,
    conditions: Sequence[Json] = (),
    deleted: float | None = None,
    grace: int | None = None,
    node: str | None = "node-1",
    reason: str | None = None,
    message: str | None = None,
    requests: Json | None = None,
    image_id: str | None = None,
    others: Json | None = None,
    init: Json | None = None,
) -> Pod:
    """Return a pod of the Job `of`. `state` is `running`, `waiting` or `ended`, and determines the phase.

    `deleted` is the deletion timestamp, the end of the grace period. `others` and `init` are the states of injected
    containers and init containers by name.
    """
    labels = {LABEL_JOB_NAME: of} if controller is None else {LABEL_JOB_NAME: of, LABEL_CONTROLLER: controller}
    metadata: Json = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-of-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": _time(created),
        "labels": labels,
    }
    if deleted is not None:
        metadata |= {"deletionTimestamp": _time(deleted), **_given(deletionGracePeriodSeconds=grace)}
    status: Json = {"phase": phase or _phase(state), "startTime": _time(created), "conditions": list(conditions)}
    if state is not None:
        own = {"name": "job", "state": state, **_given(imageID=image_id)}
        status["containerStatuses"] = sorted([own, *_statuses(others)], key=lambda one: str(one["name"]))
        status["initContainerStatuses"] = _statuses(init)
    status |= _given(reason=reason, message=message)
    placed = {} if node is None else {"nodeName": node}
    injected = [{"name": name} for name in others or {}]
    spec = {**placed, "containers": [*injected, _container(requests)]}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, Pod)


def _statuses(states: Json | None) -> list[Json]:
    return [{"name": name, "state": state} for name, state in (states or {}).items()]


def running(since: float = 10) -> Json:
    """Return the state of a running container."""
    return {"running": {"startedAt": _time(since)}}


def waiting(reason: str, message: str | None = None) -> Json:
    """Return the state of a waiting container."""
    return {"waiting": _given(reason=reason, message=message)}


def ended(code: int = 0, reason: str | None = None, message: str | None = None, **more: Any) -> Json:
    """Return the state of a terminated container; the default reason is `Completed` or `Error`, as of the kubelet."""
    started, finished = more.pop("started", 10), more.pop("finished", 90)
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "startedAt": _time(started),
            "finishedAt": _time(finished),
            **_given(message=message, **more),
        }
    }


def condition(
    type_: str, status: str = "True", *, reason: str | None = None, message: str | None = None, since: float = 0
) -> Json:
    """Return a condition of a Job or a pod."""
    return {
        "type": type_,
        "status": status,
        "lastTransitionTime": _time(since),
        **_given(reason=reason, message=message),
    }


def disrupted(reason: str = "EvictionByEvictionAPI", message: str | None = None) -> Json:
    """Return the condition DisruptionTarget of a pod.

    https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    """
    return condition("DisruptionTarget", reason=reason, message=message, since=80)


def unschedulable(message: str = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.") -> Json:
    """Return the condition of an unschedulable pod."""
    return condition("PodScheduled", "False", reason="Unschedulable", message=message, since=2)


def start_timeout(limit: str = "image", seconds: int = 300, cause: str = "image_not_found", **changes: Any) -> Json:
    """Return the annotation of a start deadline."""
    message = "the registry has no such image: ErrImagePull: not found"
    fields = {"limit": limit, "limit_seconds": seconds, "cause": cause, "since": _time(5), "message": message}
    return {ANNOTATION_START_TIMEOUT: canonical_json({**fields, **changes})}


def event(on: Job | Pod, reason: str, message: str, *, at: float = 5, type_: str = "Normal", first: float = 0) -> Event:
    """Return an event on a Job or a pod, last seen `at` and first seen at `first`, if given."""
    kind = "Job" if isinstance(on, Job) else "Pod"
    about = {"kind": kind, "namespace": NAMESPACE, "name": on.metadata.name, "uid": on.metadata.uid}
    fields = {
        "metadata": {
            "name": f"{on.metadata.name}.{at}",
            "namespace": NAMESPACE,
            "creationTimestamp": _time(first or at),
        },
        "involvedObject": about,
        "type": type_,
    }
    return msgspec.convert(fields | {"reason": reason, "message": message, "lastTimestamp": _time(at)}, Event)


def warning(on: Job | Pod, reason: str, message: str, *, at: float = 5) -> Event:
    """Return a warning event on a Job or a pod."""
    return event(on, reason, message, at=at, type_="Warning")


def node(
    name: str = "node-1",
    ready: str = "True",
    *,
    since: float = 0,
    message: str | None = None,
    taints: Sequence[str] = (),
    conditions: Sequence[Json] = (),
) -> Node:
    """Return a node; `ready` is the status of its Ready condition since `since`, before other conditions."""
    reason = {"True": "KubeletReady", "False": "KubeletNotReady", "Unknown": "NodeStatusUnknown"}[ready]
    return msgspec.convert(
        {
            "metadata": {"name": name},
            "spec": {"taints": [{"key": key, "effect": "NoExecute"} for key in taints]},
            "status": {
                "conditions": [condition("Ready", ready, reason=reason, message=message, since=since), *conditions]
            },
        },
        Node,
    )


COST: Final = CostView(
    currency="USD",
    rate_card="cpu/m6i.4xlarge@0.768",
    hourly="0.036706",
    ceiling="0.036706",
    actual=None,
    lines=[CostLineView("cpu", "1", "0.033035"), CostLineView("memory", "1Gi", "0.003671")],
)


def _container(requests: Json | None) -> Json:
    return {"name": "job", "resources": {"requests": {"cpu": "1", "memory": "1Gi"} if requests is None else requests}}


def _volumes(claims: Mapping[str, str]) -> list[Json]:
    own = [{"name": f"claim-{name}", "persistentVolumeClaim": {"claimName": claim}} for name, claim in claims.items()]
    return [{"name": "scratch", "emptyDir": {}}, *own]


def _phase(state: Json | None) -> str:
    if state is None or "waiting" in state:
        return "Pending"
    if "running" in state:
        return "Running"
    return "Failed" if state["terminated"]["exitCode"] else "Succeeded"


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _time(seconds: float) -> str:
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
