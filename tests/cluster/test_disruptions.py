"""Disruptions of a running job: drain, preemption, taint, deletion, node loss."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from localcluster import LocalCluster
from localcluster.addresses import NODE_NAME
from testbed.context import Context
from testbed.http_client import FINISHED, Document, shell
from testbed.kubectl import Kubectl
from testbed.waiting import wait_for
from tests.support.held_jobs import held

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 143' TERM; echo started; sleep 600 & wait"


def started(context: Context, tenant: str = "vision", script: str = SLEEP, **fields: object) -> Document:
    view = context.submit(tenant, shell(script, timeout_seconds=300, **fields))
    context.until_log(view["id"], "started")
    return context.runway.job(view["id"])


@pytest.mark.alone
def test_drained_job_runs_again_without_using_a_retry(context: Context, kubernetes: Kubectl) -> None:
    job = held()
    view = started(context, script=job.script)
    try:
        selector = f"--pod-selector=batch.kubernetes.io/job-name={view['id']}"
        # Every job has a scratch disk, which the eviction deletes.
        kubernetes.run("drain", NODE_NAME, "--force", "--delete-emptydir-data", selector)
        view = context.until(view["id"], lambda seen: codes(seen) == ["unschedulable"], "waits for the cordoned node")
        assert "cordoned" in view["conditions"][0]["message"]
    finally:
        kubernetes.run("uncordon", NODE_NAME)
    context.until(view["id"], lambda seen: seen["state"] == "running", "runs again")
    job.end()
    view = context.until_finished(view["id"])
    assert (view["state"], view["failure"]) == ("succeeded", None)
    first, second = view["attempts"]
    assert (first["cause"], first["counted"], first["state"]) == ("drained", False, "failed")
    assert (second["cause"], second["state"], second["exit_code"]) == (None, "succeeded", 0)
    times = [
        [attempt[at] for at in ("created_at", "bound_at", "started_at", "finished_at")] for attempt in (first, second)
    ]
    assert all(all(moments) and moments == sorted(moments) for moments in times), times


@pytest.mark.alone
def test_faulty_gpus_of_a_node_are_a_condition_of_its_gpu_job(context: Context, kubernetes: Kubectl) -> None:
    """The condition is the one that the EKS node monitoring agent sets."""
    fault = {"type": "AcceleratedHardwareReady", "status": "False", "reason": "NvidiaXID79Error", "message": "XID 79"}

    def patch(condition: Document) -> None:
        text = json.dumps({"status": {"conditions": [condition]}})
        kubernetes.run("patch", "node", NODE_NAME, "--subresource=status", f"--patch={text}")

    view = started(context, resources={"cpu": "100m", "memory": "32Mi", "gpu": 1})
    try:
        patch(fault)
        view = context.until(view["id"], lambda seen: codes(seen) == ["gpu_hardware"], "has the condition")
        assert "NvidiaXID79Error: XID 79" in view["conditions"][0]["message"]
        assert view["state"] == "running"
        assert 'runway_pool_faulty_gpu_nodes{pool="a10g"} 1.0' in context.runway.get("/metrics").text
    finally:
        patch({"type": fault["type"], "$patch": "delete"})
    context.until(view["id"], lambda seen: seen["conditions"] == [], "has no condition after the repair")
    assert 'runway_pool_faulty_gpu_nodes{pool="a10g"} 0.0' in context.runway.get("/metrics").text


@pytest.mark.alone
def test_preempted_job_runs_again(context: Context, kubernetes: Kubectl) -> None:
    view = started(context, resources={"cpu": "1", "memory": "32Mi"})
    name = f"urgent-{uuid.uuid4().hex[:8]}"
    priority = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": 1000,
    }
    container = {"name": "urgent", "image": "runway.local/busybox:1", "command": ["sleep", "600"]}
    limits = {"resources": {"limits": {"cpu": "1500m", "memory": "16Mi"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"priorityClassName": name, "terminationGracePeriodSeconds": 0, "containers": [container | limits]},
    }
    kubernetes.apply(json.dumps(priority))
    try:
        kubernetes.apply(json.dumps(pod))
        view = context.until(view["id"], lambda seen: len(seen["attempts"]) == 2, "a second attempt")
        first = view["attempts"][0]
        assert (first["cause"], first["counted"]) == ("preempted", False)
        assert view["state"] == "pending"
    finally:
        kubernetes.run("delete", "pod", name, "--namespace=default", "--ignore-not-found", "--wait=true")
        kubernetes.run("delete", "priorityclass", name)
    context.until(view["id"], lambda seen: seen["state"] == "running", "runs again")


@pytest.mark.alone
def test_node_taint_is_distinguished_from_node_loss(context: Context, kubernetes: Kubectl) -> None:
    view = started(context)
    kubernetes.run("taint", "node", NODE_NAME, "test.runway/maintenance=now:NoExecute")
    try:
        view = context.until(view["id"], lambda seen: len(seen["attempts"]) == 2, "a second attempt")
        assert (view["attempts"][0]["cause"], view["attempts"][0]["counted"]) == ("node_tainted", False)
        view = context.until(view["id"], lambda seen: codes(seen) == ["unschedulable"], "waits for the tainted node")
        assert "taint" in view["conditions"][0]["message"]
    finally:
        kubernetes.run("taint", "node", NODE_NAME, "test.runway/maintenance:NoExecute-")


def test_pod_deleted_by_hand_counts_as_failed_attempt(context: Context, kubernetes: Kubectl) -> None:
    view = started(context)
    kubernetes.run("delete", "pod", view["attempts"][0]["pod"], f"--namespace={view['kubernetes']['namespace']}")
    view = context.until_finished(view["id"])
    assert (view["state"], view["failure"]["code"]) == ("failed", "pod_deleted")
    assert view["attempts"][0]["counted"]


def test_retry_succeeds_on_second_attempt(context: Context) -> None:
    data = "/checkpoints/$RUNWAY_JOB_ID"
    script = f"[ -e {data} ] && echo 'data is here' && exit 0; echo 'no data yet'; touch {data}; exit 9"
    view = context.submit("vision", shell(script, retries=2, volumes=["checkpoints"]))
    view = context.until_finished(view["id"])
    assert (view["state"], view["failure"]) == ("succeeded", None)
    assert [attempt["exit_code"] for attempt in view["attempts"]] == [9, 0]
    first, last = view["attempts"]
    assert (first["cause"], first["counted"]) == ("exit_nonzero", True)
    assert (last["cause"], last["counted"]) == (None, False)


def test_ephemeral_storage_overuse_is_diagnosed_as_eviction(context: Context) -> None:
    script = "echo started; head -c 1200000000 /dev/zero | tr '\\0' x > /tmp/big; sleep 600 & wait"
    view = context.submit("vision", shell(script, timeout_seconds=300, resources={"cpu": "500m", "memory": "64Mi"}))
    view = context.until_finished(view["id"])
    assert view["failure"]["code"] == "ephemeral_storage_exceeded", view["failure"]
    assert "1Gi" in view["failure"]["message"]


@pytest.mark.alone
def test_unreachable_node_is_a_condition_and_not_a_failure(context: Context, kubernetes: Kubectl) -> None:
    """The job keeps running on its unreachable node, and Runway reports the outcome when the node is back.

    A second job is cancelled meanwhile. It uses quota until its pod is terminal.
    """
    job = held()
    healthy, unwanted = started(context, script=job.script), started(context)
    with frozen_kubelet(kubernetes):
        for view in (healthy, unwanted):
            seen = context.until(view["id"], lambda seen: "node_unreachable" in codes(seen), "unreachable")
            assert seen["state"] == "running"
        assert context.runway.cancel(unwanted["id"]).status_code == 202
        seen = context.until(unwanted["id"], lambda seen: "terminating" in codes(seen), "terminating")
        assert (seen["state"], sorted(codes(seen))) == ("cancelling", ["node_unreachable", "terminating"])
        assert unwanted["id"] in holders(context)
        job.end()
    assert context.until_finished(healthy["id"])["state"] == "succeeded"
    assert context.until_finished(unwanted["id"])["state"] == "cancelled"
    assert len(context.runway.job(healthy["id"])["attempts"]) == 1


@pytest.mark.alone
def test_job_on_lost_node_runs_again(context: Context, kubernetes: Kubectl) -> None:
    view = started(context)
    with frozen_kubelet(kubernetes):
        context.until(view["id"], lambda seen: "node_unreachable" in codes(seen), "unreachable")
        # An operator marks the machine as shut down, and Kubernetes deletes its pods.
        # https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown
        kubernetes.run("taint", "node", NODE_NAME, "node.kubernetes.io/out-of-service=off:NoExecute")
        try:
            view = context.until(view["id"], lambda seen: len(seen["attempts"]) == 2, "a second attempt")
        finally:
            kubernetes.run("taint", "node", NODE_NAME, "node.kubernetes.io/out-of-service:NoExecute-")
    assert (view["attempts"][0]["cause"], view["attempts"][0]["counted"]) == ("node_lost", False)
    assert view["state"] not in FINISHED


@contextmanager
def frozen_kubelet(kubernetes: Kubectl) -> Iterator[None]:
    """Freeze the kubelet, as on a hanging machine; afterwards wait until the node is ready."""
    kubelet = LocalCluster.default().component("kubelet")
    kubelet.freeze()
    try:
        yield
    finally:
        kubelet.thaw()
        wait_for(lambda: ready(kubernetes) or None, "the node is ready again")


def ready(kubernetes: Kubectl) -> bool:
    node = kubernetes.get("node", NODE_NAME)
    assert node is not None
    conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
    return conditions["Ready"] == "True" and not node["spec"].get("taints")


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]


def holders(context: Context) -> list[str]:
    return [holder["id"] for holder in context.runway.quota("vision")["jobs"]]
