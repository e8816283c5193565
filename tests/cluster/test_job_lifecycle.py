"""The lifecycle of a job for a caller: conditions, log, attempts, quota."""

from __future__ import annotations

import json

import pytest

from testbed.context import Context
from testbed.http_client import FINISHED, Document, shell
from testbed.waiting import wait_for
from tests.support.held_jobs import held

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 143' TERM; echo started; sleep 600 & wait"
GRACE_SECONDS = 60
"""Of jobs that ignore SIGTERM until the test ends them: longer than the test needs."""


def on_gpus(gpus: int, script: str = SLEEP, **fields: object) -> Document:
    return shell(script, resources={"cpu": "100m", "memory": "32Mi", "gpu": gpus}, **fields)


def test_followed_log_streams_lines_until_container_exits(context: Context) -> None:
    job = held(then="sleep 1; echo done; ")
    job_id = context.submit("vision", shell(job.script))["id"]
    context.until_log(job_id, "started")
    lines = context.runway.follow(job_id)

    assert next(lines) == "started"
    assert context.runway.log(job_id).text == "started\n"
    assert context.runway.job(job_id)["state"] == "running"
    job.end()
    assert list(lines) == ["finished", "done"]
    assert context.until_finished(job_id)["state"] == "succeeded"
    assert context.runway.log(job_id, tail=1).text == "done\n"
    assert list(context.runway.follow(job_id)) == ["started", "finished", "done"]


def test_unschedulable_job_names_the_missing_resource(context: Context) -> None:
    view = context.submit("research", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}))
    view = context.until(view["id"], lambda seen: codes(seen) == ["unschedulable"], "unschedulable")

    scheduled = next(item for item in context.pod(view)["status"]["conditions"] if item["type"] == "PodScheduled")
    assert view["state"] == "pending"
    assert "Insufficient cpu" in scheduled["message"]
    assert "of 1 node, 1 has too little free CPU; the pod requests 8 CPU" in view["conditions"][0]["message"]
    answer = context.runway.log(view["id"])
    assert (answer.status_code, answer.json()["code"]) == (404, "logs_not_ready")
    assert view["id"] in holders(context, "research")


def test_pending_job_reports_failing_image_pull(context: Context) -> None:
    view = context.submit("vision", shell("true") | {"image": "runway.local/nosuch:1"})
    view = context.until(view["id"], lambda seen: codes(seen) == ["image_pull_failing"], "image pull failing")

    assert view["state"] == "pending"
    assert "runway.local/nosuch:1" in view["conditions"][0]["message"]
    answer = context.runway.log(view["id"])
    assert (answer.status_code, answer.json()["code"]) == (404, "logs_not_ready")


def test_job_between_attempts_is_pending_and_keeps_its_quota(context: Context) -> None:
    job_id = context.submit("vision", on_gpus(1, "echo trying; exit 4", retries=1))["id"]
    between = context.until(job_id, lambda seen: codes(seen) == ["retrying"], "between two attempts")
    quota = context.runway.quota("vision")
    assert between["state"] == "pending"
    assert len(between["attempts"]) == 1
    assert between["failure"] is None
    assert (quota["used"]["gpu"], [holder["id"] for holder in quota["jobs"]]) == (1, [job_id])

    view = context.until_finished(job_id)
    assert view["state"] == "failed"
    assert view["failure"]["code"] == "exit_nonzero"
    assert [attempt["exit_code"] for attempt in view["attempts"]] == [4, 4]
    assert [attempt["counted"] for attempt in view["attempts"]] == [True, True]
    assert [context.runway.log(job_id, attempt=attempt).text for attempt in (1, 2)] == ["trying\n", "trying\n"]
    assert context.runway.log(job_id, attempt=3).json()["code"] == "invalid_parameter"
    assert holders(context, "vision") == {}


def test_cancelled_job_uses_gpus_until_its_pod_terminates(context: Context) -> None:
    job = held(on_sigterm="")
    view = context.submit("vision", on_gpus(2, job.script, grace_period_seconds=GRACE_SECONDS))
    context.until_log(view["id"], "started")
    context.runway.cancel(view["id"])
    wait_for(lambda: holders(context, "vision").get(view["id"], {}).get("terminating") or None, "terminating")

    quota = context.runway.quota("vision")
    assert (quota["used"]["gpu"], quota["held_by_terminating"]["gpu"]) == (2, 2)
    refused = context.runway.submit("vision", on_gpus(3))
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert refused.json()["held_by"] == [view["id"]]
    assert context.pod(view)["status"]["phase"] == "Running"

    job.end()
    assert context.until_finished(view["id"])["state"] == "cancelled"
    assert holders(context, "vision") == {}
    context.submit("vision", on_gpus(3))


def test_quota_of_deleted_job_is_released_when_its_pod_terminates(context: Context) -> None:
    job = held(on_sigterm="")
    view = context.submit("vision", on_gpus(2, job.script, grace_period_seconds=GRACE_SECONDS))
    namespace = view["kubernetes"]["namespace"]
    context.until_log(view["id"], "started")
    context.kubernetes.run("delete", "job", view["id"], f"--namespace={namespace}", "--wait=false")
    wait_for(lambda: context.runway.get(f"/v1/jobs/{view['id']}").status_code == 404 or None, "job vanished")
    wait_for(lambda: holders(context, "vision")[view["id"]]["terminating"] or None, "terminating")

    entry = holders(context, "vision")[view["id"]]
    assert (entry["state"], entry["gpu"]) == (None, 2)
    assert len(context.kubernetes.pods(namespace, view["id"])) == 1
    job.end()
    wait_for(lambda: view["id"] not in holders(context, "vision") or None, "quota released")
    assert running_pods(context, view) == []


def test_evicted_pod_is_replaced_without_using_a_retry(context: Context) -> None:
    view = context.submit("vision", shell(SLEEP))
    context.until_log(view["id"], "started")
    pod = context.pod(view)["metadata"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["name"]}}
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    context.kubernetes.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))

    view = context.until(view["id"], lambda seen: len(seen["attempts"]) == 2, "a second attempt")
    first = view["attempts"][0]
    assert (first["pod"], first["reason"], first["counted"]) == (pod["name"], "EvictionByEvictionAPI", False)
    assert view["state"] not in FINISHED
    context.until(view["id"], lambda seen: seen["state"] == "running", "running again")


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]


def holders(context: Context, tenant: str) -> dict[str, Document]:
    return {holder["id"]: holder for holder in context.runway.quota(tenant)["jobs"]}


def running_pods(context: Context, view: Document) -> list[str]:
    pods = context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]
