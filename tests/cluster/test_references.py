"""Volumes, Secrets and the service account that a job refers to, and those that do not exist.

A Runway of its own has a tenant whose policy names them, and links to stored logs. All jobs run in an image that root
built. The jobs of `views` run concurrently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from demo.scenarios.training import TRAIN_IMAGE
from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.storage import SECRET_VALUE, bound_claim, wait_until_bound
from testbed.tenants import apply_tenants
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster

TENANT = "refs"
SECRET_MD5 = hashlib.md5(SECRET_VALUE.encode(), usedforsecurity=False).hexdigest()
"""What a job prints instead of the value, since the log belongs to the view."""
WAIT_SECONDS = 40
"""The timeout of jobs that cannot start: enough for the kubelet to report the reason."""
DISK = "40Gi"
ROLE = {"example.com/role": "refs"}
STORED_LOGS = "https://logs.example.com/"
OTHER_ZONE = {
    "required": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["elsewhere"]}]}
        ]
    }
}

CONFIG_ERROR = "CreateContainerConfigError"


@dataclass(frozen=True, slots=True)
class Case:
    """What a job refers to, the code and words of its condition and of its failure, and the reason of Kubernetes."""

    references: Document
    condition: str
    code: str
    words: tuple[str, ...]
    reason: str = "Unschedulable"


CASES = {
    "no such claim": Case({"volumes": ["absent"]}, "volume_not_ready", "volume_missing", ("absent-claim",)),
    "unbound claim": Case({"volumes": ["unbound"]}, "volume_not_ready", "volume_not_bound", ("unbound-claim",)),
    "other zone": Case({"volumes": ["elsewhere"]}, "volume_not_ready", "volume_zone_conflict", ("elsewhere-claim",)),
    "no such Secret": Case(
        {"secrets": {"VALUE": "absent/token"}}, "secret_missing", "secret_missing", ("absent",), CONFIG_ERROR
    ),
    "no such key": Case(
        {"secrets": {"VALUE": "present/nokey"}}, "secret_missing", "secret_missing", ("nokey",), CONFIG_ERROR
    ),
}
CLAIMS = {"absent": "absent-claim", "unbound": "unbound-claim", "elsewhere": "elsewhere-claim", "bound": "bound-claim"}


@pytest.fixture(scope="module")
def context(
    kubernetes: Kubectl, settings: Mapping[str, str], suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    """Run a Runway with one tenant: a missing claim and Secret, an unbound claim, and a volume of another zone."""
    folder = tmp_path_factory.mktemp("references")
    namespace, lease = f"runway-refs{suffix}", f"runway-refs-lease{suffix}"
    policy = yaml.safe_load(Path(settings["RUNWAY_POLICY"]).read_text(encoding="utf-8"))
    policy["logs"] = {"url_template": STORED_LOGS + "{namespace}/{job}/{pod}"}
    policy["tenants"] = {
        TENANT: {
            "namespace": namespace,
            "quota": {"gpu": 0, "cpu": "8", "memory": "32Gi", "disk": DISK, "jobs": 20},
            "rate": {"per_minute": 600, "burst": 100},
            "volumes": {name: {"claim": claim, "path": f"/{name}"} for name, claim in CLAIMS.items()},
            "secrets": ["absent", "present"],
            "service_account": {"annotations": ROLE, "pod_identity": True},
            "image_pull_secrets": ["registry-credentials"],
        }
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(policy), encoding="utf-8")
    apply_tenants(kubernetes, file)
    kubernetes.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lease}}))
    (unbound,) = (item for item in bound_claim(namespace, "unbound-claim") if item["kind"] == "PersistentVolumeClaim")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "present", "namespace": namespace}}
    objects = [
        unbound,
        secret | {"stringData": {"token": SECRET_VALUE}},
        *bound_claim(namespace, "elsewhere-claim", node_affinity=OTHER_ZONE),
        *bound_claim(namespace, "bound-claim"),
    ]
    kubernetes.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    for claim in ("elsewhere-claim", "bound-claim"):
        wait_until_bound(kubernetes, namespace, claim)
    environment = {**settings, "RUNWAY_POLICY": str(file), "RUNWAY_LEASE_NAMESPACE": lease}
    with Server(folder / "runway.log", environment) as server, RunwayClient(server.url) as runway:
        server.start()
        used = Context(Tools(runway, kubernetes, None, server), show=lambda *_: None)
        yield used
        used.cancel_jobs()


@pytest.fixture(scope="module")
def views(context: Context) -> dict[str, tuple[Document, Document]]:
    """Run all cases, and return the view of each pending job with its condition, and of the finished job."""

    def run(case: Case) -> tuple[Document, Document]:
        job_id = context.submit(
            TENANT, shell("true", image=TRAIN_IMAGE, timeout_seconds=WAIT_SECONDS) | case.references
        )["id"]
        pending = context.until(job_id, lambda view: case.condition in codes(view), case.condition)
        return dict(pending), context.until_finished(job_id)

    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(run, CASES.values()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_missing_reference_is_a_condition_and_a_failure(
    name: str, views: Mapping[str, tuple[Document, Document]]
) -> None:
    case, (pending, finished) = CASES[name], views[name]
    text = json.dumps(next(item for item in pending["conditions"] if item["code"] == case.condition))
    assert [word for word in case.words if word not in text] == []
    assert (finished["state"], finished["failure"]["code"]) == ("failed", case.code)
    text = json.dumps([finished["failure"][part] for part in ("message", "hint", "evidence")])
    assert [word for word in case.words if word not in text] == []
    # Once it deletes the pod, the kubelet reports a container that it never created as ContainerStatusUnknown.
    assert pending["attempts"][-1]["reason"] == case.reason
    assert [word for word in case.words if word not in finished["attempts"][-1]["message"]] == []


def test_job_gets_volume_secret_and_service_account_of_its_tenant(context: Context) -> None:
    script = "echo x > /bound/file && cat /bound/file; printf %s $VALUE | md5sum; ls -d /unbound /run/secrets || :"
    spec = shell(script, image=TRAIN_IMAGE, volumes=["bound"], secrets={"VALUE": "present/token"})
    view = context.until_finished(context.submit(TENANT, spec)["id"])
    assert view["state"] == "succeeded"
    lines = context.runway.log(view["id"]).text.splitlines()
    assert [line for line in lines if "No such file" not in line] == ["x", f"{SECRET_MD5}  -"]
    pod = context.pod(view)["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("runway-job", False)
    assert pod["imagePullSecrets"] == [{"name": "registry-credentials"}]
    assert SECRET_VALUE not in json.dumps([context.job(view), context.runway.job(view["id"])])


def test_tenant_has_the_disk_quota_and_the_annotations_of_its_policy(context: Context, suffix: str) -> None:
    quota = context.kubernetes.get("resourcequota", "runway-quota", f"runway-refs{suffix}")
    account = context.kubernetes.get("serviceaccount", "runway-job", f"runway-refs{suffix}")
    assert quota is not None
    hard = quota["status"]["hard"]
    assert (hard["requests.ephemeral-storage"], hard["limits.ephemeral-storage"]) == (DISK, DISK)
    assert account is not None
    assert account["metadata"]["annotations"].items() >= ROLE.items()


def test_log_of_a_deleted_pod_links_to_the_stored_logs(context: Context) -> None:
    view = context.until_finished(context.submit(TENANT, shell("echo done", image=TRAIN_IMAGE))["id"])
    namespace, pod = view["kubernetes"]["namespace"], view["attempts"][0]["pod"]
    link = f"{STORED_LOGS}{namespace}/{view['id']}/{pod}"
    assert view["logs_url"] == link
    context.kubernetes.run("delete", "pod", pod, f"--namespace={namespace}")

    def gone() -> Document | None:
        answer = context.runway.log(view["id"])
        return answer.json() if answer.status_code == 410 else None

    assert wait_for(gone, "the log is gone")["logs_url"] == link


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]
