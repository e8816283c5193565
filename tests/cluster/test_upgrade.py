"""The upgrade from version 0.7 on the local cluster: its jobs run on, and keep their views, records and quota."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runway.policy import load_policy
from testbed.context import Context
from testbed.http_client import Document, document, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.waiting import wait_for
from tests.support.stored_0_7 import FINAL, RECORD, STORED, as_0_7_showed, only_fields_of

pytestmark = pytest.mark.cluster

FROM_CLUSTER = ("created_at", "started_at", "finished_at", "kubernetes", "cost")
"""Fields of a view that differ in another cluster, or with another price."""


@pytest.fixture
def upgraded(
    context: Context, server: Server, kubernetes: Kubectl, policy_file: Path
) -> Iterator[Mapping[str, Document]]:
    """Create the Jobs of 0.7 while Runway is stopped, finish those that 0.7 had finished, and start Runway.

    The pods of finished jobs are deleted, as after a node was replaced: only the record of 0.7 is left.
    """
    namespace = load_policy(policy_file).tenants["vision"].namespace
    names = {name: stored.name for name, stored in STORED.items() if name != "retrying"}
    server.stop()
    try:
        manifests = [STORED[name].manifest(namespace) for name in names]
        kubernetes.run(
            "create", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        )
        for job_id in names.values():
            context.track(job_id)
        for name in FINAL:
            finish(kubernetes, namespace, name)
    finally:
        server.start()
    yield {name: context.runway.job(job_id) for name, job_id in names.items()}
    context.cancel_jobs()
    kubernetes.run("delete", "job", *names.values(), f"--namespace={namespace}", "--ignore-not-found")


def finish(kubernetes: Kubectl, namespace: str, name: str) -> None:
    """Wait until Kubernetes has finished the Job, delete its pods, and store the record of 0.7 for this uid."""
    stored = STORED[name]
    known = {condition["type"] for condition in stored.job["status"]["conditions"]}

    def finished() -> Document | None:
        job = kubernetes.get("job", stored.name, namespace)
        assert job is not None
        return job if known <= {condition["type"] for condition in job["status"].get("conditions", [])} else None

    job = wait_for(finished, f"{name} is finished")
    kubernetes.run(
        "delete", "pod", f"--namespace={namespace}", f"--selector=batch.kubernetes.io/job-name={stored.name}"
    )
    record = json.loads(stored.record or "") | {"uid": job["metadata"]["uid"]}
    patch = {"metadata": {"annotations": {RECORD: json.dumps(record)}}}
    kubernetes.run(
        "patch", "job", stored.name, f"--namespace={namespace}", "--type=merge", f"--patch={json.dumps(patch)}"
    )


def test_jobs_of_0_7_keep_views_records_and_quota_and_can_be_cancelled(
    context: Context, upgraded: Mapping[str, Document]
) -> None:
    for name in FINAL:
        expected = {key: value for key, value in as_0_7_showed(STORED[name].view).items() if key not in FROM_CLUSTER}
        assert only_fields_of(expected, as_0_7_showed(upgraded[name])) == expected
        assert upgraded[name]["cost"]["actual"] == STORED[name].view["cost"]["actual"]
        job = context.job(upgraded[name])
        assert (
            json.loads(job["metadata"]["annotations"][RECORD])["kept_at"]
            == json.loads(STORED[name].record or "")["kept_at"]
        )

    running, waiting = upgraded["running"], upgraded["waiting"]
    assert context.until_log(running["id"], "started") == "started\n"
    context.until(
        waiting["id"], lambda seen: [each["code"] for each in seen["conditions"]] == ["unschedulable"], "waits"
    )
    quota = context.runway.quota("vision")
    assert (quota["used"]["gpu"], {holder["id"] for holder in quota["jobs"]}) == (2, {running["id"], waiting["id"]})
    refused = context.runway.submit("vision", shell("true", resources={"cpu": "100m", "memory": "32Mi", "gpu": 3}))
    assert (refused.status_code, refused.json()["held_by"]) == (403, [running["id"]])

    for name in ("running", "failed"):
        again = context.runway.submit("vision", STORED[name].request, key=STORED[name].key)
        assert (again.status_code, again.json()["id"]) == (200, STORED[name].name)
    beside = context.submit("vision", shell("echo beside"))
    assert context.until_finished(beside["id"])["state"] == "succeeded"
    for view in (running, waiting):
        assert document(context.runway.cancel(view["id"]))["state"] == "cancelling"
        assert context.until_finished(view["id"])["state"] == "cancelled"
    assert context.runway.quota("vision")["used"]["jobs"] == 0
