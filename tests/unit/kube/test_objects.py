"""Decode the Kubernetes objects that Runway reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from runway.kube.objects import Job, Pod, WatchEvent, merge_pod_status, resource_version_number
from tests.support.builders import Json, condition, ended, job, pod, running, waiting

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "rw-a-x2x7p",
        "namespace": "runway-vision",
        "uid": "0d6c",
        "resourceVersion": "4711",
        "creationTimestamp": "2026-11-24T08:00:00Z",
        "deletionTimestamp": "2026-11-24T08:01:00Z",
        "deletionGracePeriodSeconds": 30,
        "labels": {"runway.internal/job": "rw-a"},
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
    },
    "spec": {
        "nodeName": "node-1",
        "volumes": None,
        "containers": [
            {"name": "job", "image": "x", "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1"}}, "env": [{}]}
        ],
    },
    "status": {
        "phase": "Running",
        "qosClass": "Guaranteed",
        "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}],
        "containerStatuses": [
            {
                "name": "job",
                "ready": True,
                "restartCount": 0,
                "lastState": {},
                "state": {"running": {"startedAt": "2026-11-24T08:00:02Z"}},
            }
        ],
    },
}  # fmt: skip


def test_pod_is_decoded_without_unread_fields() -> None:
    found = msgspec.json.decode(json.dumps(POD), type=Pod)
    assert found.metadata.deletion_timestamp == datetime(2026, 11, 24, 8, 1, tzinfo=UTC)
    assert found.spec.node_name == "node-1"
    assert found.spec.containers is not None
    assert found.spec.containers[0].resources.requests == {"cpu": "1", "nvidia.com/gpu": "1"}
    assert found.container.running is not None
    assert found.container.running.started_at == datetime(2026, 11, 24, 8, 0, 2, tzinfo=UTC)
    assert resource_version_number(found) == 4711
    assert found.terminating


@pytest.mark.parametrize("kind", [Job, Pod])
def test_bookmark_with_empty_object_is_decoded(kind: type[Job] | type[Pod]) -> None:
    body: Json = {
        "type": "BOOKMARK",
        "object": {
            "metadata": {"resourceVersion": "12746", "creationTimestamp": None},
            "spec": {"template": {"metadata": {}, "spec": {"containers": None}}, "containers": None},
            "status": {},
        },
    }  # fmt: skip
    change = msgspec.json.decode(json.dumps(body), type=WatchEvent[kind])  # type: ignore[valid-type]
    assert change.object.metadata.resource_version == "12746"


@pytest.mark.parametrize(
    ("type_", "status", "finished"),
    [("Complete", "True", True), ("Failed", "True", True), ("Failed", "False", False), ("FailureTarget", "True", False),
     ("SuccessCriteriaMet", "True", False), ("Suspended", "True", False)],
)  # fmt: skip
def test_job_is_finished_by_true_terminal_condition_only(type_: str, status: str, finished: bool) -> None:
    assert job(conditions=[condition(type_, status)]).finished is finished


@pytest.mark.parametrize(
    ("found", "has_ended", "terminating"),
    [
        (pod(), False, False),
        (pod(state=waiting("ContainerCreating")), False, False),
        (pod(state=running()), False, False),
        (pod(state=running(), deleted=50), False, True),
        (pod(phase="Unknown", state=running()), False, False),
        (pod(state=ended()), True, False),
        (pod(state=ended(1)), True, False),
        (pod(state=ended(143), deleted=50), True, False),
        (pod(phase="Failed"), True, False),
    ],
)
def test_pod_is_terminal_by_phase_and_terminating_before(found: Pod, has_ended: bool, terminating: bool) -> None:
    assert (found.is_terminal, found.terminating) == (has_ended, terminating)


def with_proxy(own: Json) -> Pod:
    """Return a pod with an injected container, which the kubelet sorts before `job`."""
    statuses = [{"name": "istio-proxy", "state": running()}, {"name": "job", "state": own}]
    return msgspec.convert(
        {"metadata": {"name": "p"}, "status": {"phase": "Running", "containerStatuses": statuses}}, Pod
    )


def test_injected_container_does_not_replace_job_container() -> None:
    found = with_proxy(ended(137, "OOMKilled")).container
    assert found.terminated is not None
    assert found.terminated.reason == "OOMKilled"


def test_termination_message_beside_injected_container_is_kept() -> None:
    kept = merge_pod_status(with_proxy(ended(1)), with_proxy(ended(1, message="last words")))
    assert kept.container.terminated is not None
    assert kept.container.terminated.message == "last words"
    assert kept.status.container_statuses[0].state.terminated is None
