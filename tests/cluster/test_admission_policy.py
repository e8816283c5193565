"""`runway tenants apply --admission-policy` on the real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from runway.tenant_manifests import ADMISSION_POLICY, JOB_CONTROLLERS, render_admission_policy
from testbed.context import Context
from testbed.http_client import Document, shell
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.waiting import wait_for
from tests.cluster.test_tenants import pod

# It binds every tenant of the cluster, those of other processes too.
pytestmark = [pytest.mark.cluster, pytest.mark.alone]

OTHER = ("--as=alice", "--as-group=system:masters")
JOBS = "only Runway creates Jobs"
PODS = "only the Job controller creates pods"


@pytest.fixture
def admission_policy(kubernetes: Kubectl, namespaces: Mapping[str, str]) -> Iterator[None]:
    """Apply the policy for the user that the shared Runway has, until the test ends."""
    user = json.loads(kubernetes.run("auth", "whoami", "--output=json"))["status"]["userInfo"]["username"]
    items = render_admission_policy([user])
    kubernetes.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    try:
        wait_for(lambda: refused(kubernetes, job(namespaces["research"])), "the policy is in force")
        yield
    finally:
        kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy"
        kubernetes.run("delete", kinds, ADMISSION_POLICY, "--ignore-not-found")
        wait_for(lambda: not refused(kubernetes, job(namespaces["research"])) or None, "the policy is lifted")


def job(namespace: str, kind: str = "Job") -> Document:
    template = {"spec": json.loads(pod(namespace, {}, {}))["spec"]}
    spec: Document = {"template": template}
    if kind == "CronJob":
        spec = {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}
    metadata = {"name": "by-hand", "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": spec}


def refused(kubernetes: Kubectl, manifest: Document, *identity: str) -> str | None:
    """Create it as a server-side dry run, by default as another user. Return the refusal, or None."""
    try:
        kubernetes.run(
            "create", "--dry-run=server", "--filename=-", *(identity or OTHER), stdin=json.dumps(manifest), timeout=30
        )
    except KubectlFailed as error:
        return str(error)
    return None


@pytest.mark.usefixtures("admission_policy")
def test_only_runway_and_the_job_controller_create_jobs_and_pods(
    context: Context, namespaces: Mapping[str, str]
) -> None:
    view = context.until_finished(context.submit("research", shell("true"))["id"])
    assert view["state"] == "succeeded"

    kubernetes, namespace = context.kubernetes, namespaces["research"]
    for kind in ("Job", "CronJob"):
        assert JOBS in str(refused(kubernetes, job(namespace, kind)))
    by_hand: Document = json.loads(pod(namespace, {}, {}))
    for user in ("alice", "system:serviceaccount:kube-system:replicaset-controller", *JOB_CONTROLLERS):
        assert PODS in str(refused(kubernetes, by_hand, f"--as={user}", "--as-group=system:masters")), user
    # The Job controller's pods have an owner, and other namespaces are free.
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "b", "controller": True}
    by_hand["metadata"]["ownerReferences"] = [owner]
    assert refused(kubernetes, by_hand, f"--as={JOB_CONTROLLERS[0]}", "--as-group=system:masters") is None
    assert PODS in str(refused(kubernetes, by_hand))
    assert refused(kubernetes, job("default")) is None
