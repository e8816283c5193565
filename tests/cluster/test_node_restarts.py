"""Restarts of the kubelet, its device plugin, the node and the Job controller, under jobs that run or just ended.

Reports of other systems: duplicate ends, lost logs, GPUs that are free on paper, pods that nobody ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from localcluster import LocalCluster
from localcluster.addresses import NODE_NAME
from localcluster.component import Component
from testbed.context import Context
from testbed.http_client import Document, shell
from testbed.kubectl import Kubectl
from testbed.waiting import wait_for
from tests.support.held_jobs import held

pytestmark = pytest.mark.cluster

GPU = {"cpu": "100m", "memory": "32Mi", "gpu": 1}
SHOW_GPU = "echo $NVIDIA_VISIBLE_DEVICES; "
TRACKING = "batch.kubernetes.io/job-tracking"


def component(name: str) -> Component:
    return LocalCluster.default().component(name)


@contextmanager
def stopped(*names: str) -> Iterator[None]:
    """Stop components; afterwards start them, and wait until the node is ready with its GPUs."""
    components = [component(name) for name in names]
    for each in components:
        each.stop()
    try:
        yield
    finally:
        for each in components:
            each.start()
        LocalCluster.default().wait_ready()


def restart(name: str) -> None:
    component(name).stop()
    component(name).start()


def started(context: Context, script: str, **fields: object) -> Document:
    view = context.submit("vision", shell(script, **{"timeout_seconds": 300, "resources": GPU, **fields}))
    context.until_log(view["id"], "started\n")
    return context.until(view["id"], lambda seen: seen["state"] == "running", "runs")


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]


def used(context: Context) -> int:
    """Return the GPUs that tenant vision uses."""
    return int(context.runway.quota("vision")["used"]["gpu"])


def total(context: Context, metric: str) -> float:
    """Return the sum of a metric of tenant vision over its other labels."""
    lines = context.runway.get("/metrics").text.splitlines()
    found = [line for line in lines if re.match(rf'{metric}{{[^}}]*tenant="vision"', line)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def counted(context: Context) -> float:
    """Return the number of finished jobs that are counted, once no finished job is left to record."""

    def probe() -> float | None:
        is_recorded = "runway_record_lag_seconds 0.0" in context.runway.get("/metrics").text.splitlines()
        return total(context, "runway_jobs_finished_total") if is_recorded else None

    return wait_for(probe, "the jobs of earlier tests are recorded")


def gpu_of(context: Context, view: Document) -> str:
    return context.runway.log(view["id"]).text.splitlines()[0]


@pytest.mark.alone
def test_kubelet_restart_keeps_a_gpu_job_and_reports_one_that_ended_meanwhile(context: Context) -> None:
    finished = counted(context)
    lasts, ends = held(SHOW_GPU), held()
    running, ending = started(context, lasts.script), started(context, ends.script)
    with stopped("kubelet"):
        ends.end()
        assert context.runway.job(ending["id"])["state"] == "running"
        assert used(context) == 2
    ending = context.until_finished(ending["id"])
    assert (ending["state"], ending["failure"]) == ("succeeded", None)
    assert context.runway.log(ending["id"]).text.endswith("\nfinished\n")
    assert used(context) == 1

    new = held(SHOW_GPU)
    newcomer = started(context, new.script)
    assert gpu_of(context, newcomer) != gpu_of(context, running), "the kubelet knows which GPU the first job has"
    assert lasts.runs()
    assert context.runway.job(running["id"])["attempts"] == running["attempts"]
    lasts.end()
    new.end()
    running, newcomer = context.until_finished(running["id"]), context.until_finished(newcomer["id"])
    for view in (running, ending, newcomer):
        (attempt,) = view["attempts"]
        assert (view["state"], attempt["exit_code"], attempt["cause"]) == ("succeeded", 0, None)
        assert view["cost"]["actual"] is not None
    assert context.runway.log(running["id"]).text.endswith("\nfinished\n")
    assert used(context) == 0
    wait_for(lambda: total(context, "runway_jobs_finished_total") >= finished + 3 or None, "all are recorded")
    assert total(context, "runway_jobs_finished_total") == finished + 3


@pytest.mark.alone
def test_gpu_jobs_wait_for_the_device_plugin_after_a_kubelet_restart(context: Context, kubernetes: Kubectl) -> None:
    """The scheduler binds a pod before the restarted kubelet reports that it has no GPUs. The kubelet rejects it."""
    running = started(context, "trap 'exit 0' TERM; echo started; sleep 600 & wait")
    job = shell("echo started", resources=GPU, timeout_seconds=300)
    with stopped("kubelet", "gpu-device-plugin"):
        rejected = context.submit("vision", job)
        context.until(rejected["id"], lambda seen: bool(bound(seen)), "is bound to the node")
        component("kubelet").start()
        rejected = context.until(rejected["id"], lambda seen: bool(seen["attempts"][0]["cause"]), "is rejected")
        (first,) = rejected["attempts"]
        assert (first["cause"], first["reason"]) == ("admission_rejected", "UnexpectedAdmissionError")
        assert (rejected["state"], rejected["failure"]) == ("pending", None)

        wait_for(lambda: gpus(kubernetes) == 0 or None, "the node reports no GPUs")
        waiting = context.submit("vision", job)
        for view in (waiting, rejected):
            seen = context.until(view["id"], lambda seen: codes(seen) == ["unschedulable"], "waits")
            assert "1 of 1 nodes has no GPUs registered" in seen["conditions"][0]["message"]
        assert context.runway.job(running["id"])["attempts"] == running["attempts"]
        assert used(context) == 3
    for view, attempts in ((waiting, 1), (rejected, 2)):
        view = context.until_finished(view["id"])
        assert (view["state"], len(view["attempts"])) == ("succeeded", attempts)
    assert context.runway.job(running["id"])["state"] == "running"
    assert used(context) == 1


def bound(view: Document) -> str | None:
    return view["attempts"][0]["node"] if view["attempts"] else None


def gpus(kubernetes: Kubectl) -> int:
    node = kubernetes.get("node", NODE_NAME)
    assert node is not None
    return int(node["status"]["allocatable"].get("nvidia.com/gpu", "0"))


@pytest.mark.alone
def test_job_of_a_deleted_node_runs_again_and_its_lost_attempt_is_charged(
    context: Context, kubernetes: Kubectl
) -> None:
    lost_job = held()
    view = started(context, lost_job.script)
    with stopped("kubelet"):
        lost_job.end()  # Without a kubelet nobody sees it.
        kubernetes.run("delete", "node", NODE_NAME)
        # Its collector of pods looks at its start, and then every 20 s.
        restart("kube-controller-manager")
        assert context.runway.job(view["id"])["state"] == "running"
        view = context.until(view["id"], lambda seen: seen["attempts"][0]["cause"], "its pod is collected")
        (lost,) = view["attempts"]
        assert (lost["cause"], lost["counted"], lost["state"]) == ("node_lost", False, "failed")
        assert (view["state"], view["failure"], used(context)) == ("pending", None, 1)
    context.until(view["id"], lambda seen: seen["state"] == "running", "runs again")
    lost_job.end()
    view = context.until_finished(view["id"])
    lost, second = view["attempts"]
    assert (view["state"], view["disruptions"], second["exit_code"]) == ("succeeded", 1, 0)
    assert lost["bound_at"] < lost["finished_at"] <= second["created_at"]
    assert view["cost"]["actual"] is not None
    assert used(context) == 0


@pytest.mark.alone
def test_jobs_that_end_without_a_job_controller_say_so_and_count_once(context: Context, kubernetes: Kubectl) -> None:
    """Kubernetes keeps each pod with its finalizer until the controller has counted it."""
    finished = counted(context)
    well, badly = held(), held(code=3)
    succeeds, fails = started(context, well.script), started(context, badly.script)
    with stopped("kube-controller-manager"):
        well.end()
        badly.end()
        late = context.submit("vision", shell("true"))
        for view in (succeeds, fails):
            seen = context.until(view["id"], lambda seen: codes(seen) == ["outcome_pending"], "waits for its outcome")
            assert seen["state"] == "running"
        # Only a success is certain to be the last pod of its Job.
        assert used(context) == 1
        for view in (succeeds, fails):
            pod = context.pod(view)["metadata"]
            kubernetes.run("delete", "pod", pod["name"], f"--namespace={pod['namespace']}", "--wait=false")
            assert TRACKING in context.pod(view)["metadata"]["finalizers"]
            assert codes(context.runway.job(view["id"])) == ["outcome_pending"]
        assert codes(context.runway.job(late["id"])) == ["pod_not_created"]
    views = [context.until_finished(view["id"]) for view in (succeeds, fails, late)]
    assert [view["state"] for view in views] == ["succeeded", "failed", "succeeded"]
    assert views[1]["failure"]["code"] == "exit_nonzero"
    assert [len(view["attempts"]) for view in views] == [1, 1, 1]
    assert used(context) == 0
    wait_for(lambda: total(context, "runway_jobs_finished_total") >= finished + 3 or None, "all are recorded")
    assert total(context, "runway_jobs_finished_total") == finished + 3


def test_pod_of_a_job_deleted_with_cascade_orphan_keeps_its_quota_and_is_reported(
    context: Context, kubernetes: Kubectl
) -> None:
    view = started(context, "trap 'exit 0' TERM; echo started; sleep 600 & wait")
    namespace, pod = view["kubernetes"]["namespace"], view["attempts"][0]["pod"]
    kubernetes.run("delete", "job", view["id"], f"--namespace={namespace}", "--cascade=orphan")
    holder = wait_for(lambda: orphan(context), "the quota names the orphan")
    assert (holder["id"], holder["state"], holder["gpu"]) == (view["id"], None, 1)
    assert total(context, "runway_orphaned_pods") == 1
    answer = context.runway.get(f"/v1/jobs/{view['id']}")
    assert (answer.status_code, answer.json()["code"], pod in answer.json()["detail"]) == (404, "job_not_found", True)
    assert context.runway.get("/readyz").status_code == 200

    kubernetes.run("delete", "pod", pod, f"--namespace={namespace}", "--wait=false")
    wait_for(lambda: used(context) == 0 or None, "the pod has ended")
    assert total(context, "runway_orphaned_pods") == 0


def test_orphaned_pod_ends_at_its_own_deadline(context: Context, kubernetes: Kubectl) -> None:
    """The Job's timeout ended with the Job; the kubelet enforces the pod's."""
    view = started(context, "trap 'exit 0' TERM; echo started; sleep 600 & wait")
    name, namespace, pod = view["id"], view["kubernetes"]["namespace"], view["attempts"][0]["pod"]
    kubernetes.run("delete", "job", name, f"--namespace={namespace}", "--cascade=orphan")
    wait_for(lambda: orphan(context), "the quota names the orphan")
    sooner = '{"spec": {"activeDeadlineSeconds": 1}}'
    kubernetes.run("patch", "pod", pod, f"--namespace={namespace}", f"--patch={sooner}")
    wait_for(lambda: used(context) == 0 or None, "the pod has ended")
    status = context.pod(view)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    kubernetes.run("delete", "pod", pod, f"--namespace={namespace}", "--wait=false")


def orphan(context: Context) -> Document | None:
    return next((holder for holder in context.runway.quota("vision")["jobs"] if holder["orphaned"]), None)
