"""Undecodable objects in a real API server: isolation, reporting, the runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from testbed.context import Context
from testbed.http_client import Document, shell
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import Server
from testbed.waiting import wait_for
from tests.support.documented import blocks, environment, play, strict

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

YEAR_10000 = "9999-12-31T23:59:59-23:59"
"""The API server stores it as a time in the year 10000, which few clients can decode."""
SLEEP = "trap 'exit 0' TERM; sleep 600 & wait"
BROKEN = {"type": "Custom", "status": "True", "lastTransitionTime": YEAR_10000, "lastProbeTime": YEAR_10000}


def gpu_job() -> Document:
    return shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": 1}, timeout_seconds=300)


@pytest.fixture
def broken(context: Context) -> Iterator[Document]:
    """Run a job, and put a date in the year 10000 into its Job's and pod's status and into an event."""
    view = context.submit("vision", gpu_job())
    context.until(view["id"], lambda seen: seen["state"] == "running", "running")
    namespace, name = view["kubernetes"]["namespace"], view["id"]
    pod = context.pod(view)["metadata"]["name"]
    places = {
        "jobs": f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}",
        "pods": f"/api/v1/namespaces/{namespace}/pods/{pod}",
    }
    for path in places.values():
        write_condition(context.kubernetes, path, [BROKEN])
    event = {
        "metadata": {"name": "year-10000", "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": pod},
        "type": "Warning",
        "reason": "Failed",
        "message": "a date that cannot be",
        "lastTimestamp": YEAR_10000,
    }
    events = f"/api/v1/namespaces/{namespace}/events"
    context.kubernetes.run("create", "--raw", events, "-f", "-", stdin=json.dumps(event))
    yield {**view, "places": places, "event": f"{events}/year-10000"}
    remove(context.kubernetes, places, f"{events}/year-10000", namespace, name)


def write_condition(kubernetes: Kubectl, path: str, conditions: list[Document]) -> None:
    """Set the custom conditions of an object's status; an empty list removes them."""
    for _ in range(5):  # The object's controller writes the status too.
        item = json.loads(kubernetes.run("get", "--raw", path))
        known = [one for one in item["status"].get("conditions", []) if one["type"] != "Custom"]
        item["status"]["conditions"] = [*known, *conditions]
        try:
            kubernetes.run("replace", "--raw", f"{path}/status", "-f", "-", stdin=json.dumps(item))
        except KubectlFailed:
            continue
        return
    raise KubectlFailed(f"the status of {path} could not be written")


def remove(kubernetes: Kubectl, places: dict[str, str], event: str, namespace: str, name: str) -> None:
    """Remove the broken conditions and the event, and delete the Job with its pod."""
    for path in places.values():
        with suppress(KubectlFailed):  # Kubernetes may have deleted the pod with its Job.
            write_condition(kubernetes, path, [])
    kubernetes.run("delete", "--raw", event)
    kubernetes.run("delete", "job", name, f"--namespace={namespace}", "--ignore-not-found")


def undecodable(server: Server, kind: str) -> list[str]:
    """Return the names of the undecodable objects of a kind in `/readyz`."""
    answer = httpx2.get(f"{server.url}/readyz", timeout=5, trust_env=False)
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["undecodable"] if item["kind"] == kind]


def test_undecodable_dates_affect_no_other_job_and_are_reported(
    context: Context, server: Server, broken: Document
) -> None:
    for kind in ("jobs", "pods", "events"):
        wait_for(lambda kind=kind: undecodable(server, kind) or None, f"{kind} named in /readyz")  # type: ignore[misc]
    assert undecodable(server, "jobs") == [broken["id"]]
    assert context.runway.quota("vision")["used"]["gpu"] == 1
    assert context.runway.job(broken["id"])["state"] == "running"
    done = context.until_finished(context.submit("speech", shell("echo fine"))["id"])
    assert done["state"] == "succeeded"
    answer = context.try_to_submit("vision", gpu_job())
    assert answer.status_code == 201


def test_restart_with_undecodable_objects_gets_ready_and_keeps_quota(
    context: Context, server: Server, broken: Document
) -> None:
    server.kill()
    server.start()
    assert undecodable(server, "jobs") == [broken["id"]]
    assert context.runway.quota("vision")["used"]["gpu"] == 1
    assert context.until_finished(context.submit("speech", shell("echo fine"))["id"])["state"] == "succeeded"


def test_runbook_repairs_undecodable_objects(
    context: Context, server: Server, broken: Document, kubeconfig: Path, namespaces: Mapping[str, str]
) -> None:
    """Run the commands of RunwayUndecodableObjects for the Job, and then for the pod."""
    wait_for(lambda: undecodable(server, "jobs") or None, "named in /readyz")
    wait_for(lambda: undecodable(server, "pods") or None, "named in /readyz")
    repair = next(block for block in blocks("docs/runbooks.md") if "kubectl replace --raw" in block.script)
    job_path, pod_path = broken["places"]["jobs"], broken["places"]["pods"]
    words = {r"\bNAMESPACE\b": namespaces["vision"], r"\bID\b": broken["id"]}
    for replaced in (words, words | {re.escape(job_path): pod_path}):

        def repaired(replaced: Mapping[str, str] = replaced) -> bool | None:
            """Return None on a conflict: a controller has changed the object since it was read."""
            done = play(strict(repair), environment(KUBECONFIG=str(kubeconfig)), replaced)
            if "(Conflict)" in done.stderr:
                return None
            assert done.returncode == 0, done.stderr
            return True

        wait_for(repaired, "repaired")
    wait_for(lambda: not (undecodable(server, "jobs") or undecodable(server, "pods")) or None, "none is named")
    assert context.runway.job(broken["id"])["state"] == "running"
