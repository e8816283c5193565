"""`make demo` on another cluster: the local one without its images, GPUs, Prometheus and administrator's rights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from demo.__main__ import main
from demo.scenarios import SCENARIOS
from demo.scenarios.emergency_stop import EMERGENCY_STOP
from demo.scenarios.evidence import LOST_WORKER
from demo.scenarios.outcomes import FAILURE, OUT_OF_MEMORY, SUCCESS, THROTTLING
from localcluster.images import ctr
from testbed import http_client
from testbed.kubectl import Kubectl
from testbed.server import CHECKOUT, Server
from testbed.tenants import apply_tenants
from tests.support.locks import one_at_a_time

pytestmark = pytest.mark.cluster

PLAIN = CHECKOUT / "config" / "policy.any-cluster.yaml"
PUBLIC_IMAGE = "docker.io/library/busybox:1.36"
LOCAL_IMAGE = "runway.local/busybox:1"
USER = "demo-user"
NOT_SHOWN = {
    "A real training job", "GPU quota", "A typo in an image", "Stranded GPUs", "A budget", "Runway killed",
    "Kubernetes does not answer",
}  # fmt: skip
OTHER_EVIDENCE = (SUCCESS, OUT_OF_MEMORY, LOST_WORKER, THROTTLING)
"""Their evidence differs on a cluster whose kernel the demo cannot read. tests/cluster/test_demo.py runs all others."""
OTHER_RIGHTS = (FAILURE, EMERGENCY_STOP)
"""They read a log and annotate the Lease."""


@pytest.fixture
def foreign(
    server: Server,
    kubernetes: Kubectl,
    kubeconfig: Path,
    settings: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """Return a kubeconfig that is not the local cluster's, and set the environment of `make demo` with it."""
    copy = tmp_path / "kubeconfig"
    shutil.copy(kubeconfig, copy)
    policy = tmp_path / "policy.yaml"
    text = PLAIN.read_text(encoding="utf-8")
    # Of this test alone: the namespaces of another one may still be terminating.
    suffix = uuid4().hex[:5]
    policy.write_text(re.sub(r"namespace: (runway-\w+)", rf"namespace: \1-{suffix}", text), encoding="utf-8")
    for name, value in {**settings, "KUBECONFIG": str(copy), "RUNWAY_POLICY": str(policy)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RUNWAY_PROMETHEUS_URL", raising=False)
    monkeypatch.setattr(http_client, "IMAGE", PUBLIC_IMAGE)
    server.stop()
    try:
        with one_at_a_time("demo"), public_image():
            yield copy
    finally:
        for tenant in ("vision", "speech", "research"):
            kubernetes.run("delete", "namespace", f"runway-{tenant}-{suffix}", "--ignore-not-found", "--wait=false")
        server.start()


@contextmanager
def public_image() -> Iterator[None]:
    """Give the local image the name of a public one. Only one process at a time can: the other would remove it."""
    ctr("images", "tag", "--force", LOCAL_IMAGE, PUBLIC_IMAGE)
    try:
        yield
    finally:
        ctr("images", "remove", PUBLIC_IMAGE)


@pytest.mark.usefixtures("foreign")
def test_demo_shows_what_a_plain_cluster_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    scenarios = [*OTHER_EVIDENCE, *(each for each in SCENARIOS if each.title in NOT_SHOWN)]
    assert main(scenarios) == 0
    shown = capsys.readouterr().out
    assert hidden(shown) == NOT_SHOWN
    assert f"{len(OTHER_EVIDENCE)} of {len(scenarios)} claims seen" in shown
    assert f"{len(NOT_SHOWN)} not shown: this cluster lacks what they need" in shown
    assert "it needs a pool with GPUs in the policy, and a quota of 4 GPUs or more for tenant vision" in shown


def test_demo_without_the_rights_of_an_administrator_uses_the_applied_tenants(
    foreign: Path,
    kubernetes: Kubectl,
    settings: Mapping[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The user has what docs/demo.md lists: reads in all namespaces, and `admin` in the tenants' and the Lease's."""
    policy = tmp_path / "policy.yaml"
    places = [*apply_tenants(kubernetes, policy), settings["RUNWAY_LEASE_NAMESPACE"]]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": USER, "namespace": "default"}}
    kubernetes.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": [account, *bindings(places)]}))
    try:
        limited = json.loads(kubernetes.run("config", "view", "--raw", "--flatten", "--output=json"))
        limited["users"][0]["user"] = {"token": kubernetes.run("create", "token", USER, "--namespace=default").strip()}
        foreign.write_text(json.dumps(limited))
        assert main(OTHER_RIGHTS) == 0
    finally:
        kubernetes.run("delete", "clusterrolebinding,clusterrole", USER, "--ignore-not-found")
        kubernetes.run("delete", "rolebinding,serviceaccount", USER, "--namespace=default", "--ignore-not-found")
    shown = capsys.readouterr().out
    assert "tenants: not applied, because this kubeconfig may not" in shown
    assert f"{len(OTHER_RIGHTS)} of {len(OTHER_RIGHTS)} claims seen" in shown


def hidden(shown: str) -> set[str]:
    """Return the titles of the scenarios that the summary counts as not shown."""
    return set(re.findall(r"^ *[0-9]+  (.+?) +[0-9.]+ s  NOT SHOWN$", shown, re.MULTILINE))


def bindings(namespaces: list[str]) -> list[Mapping[str, object]]:
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "namespace": "default", "name": USER}
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods", "events", "nodes"], "verbs": ["list", "watch"]},
    ]
    leases = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update", "patch"],
    }
    objects: list[Mapping[str, object]] = [
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": USER}, "rules": [*rules, leases]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": USER},
            "subjects": [subject],
        },
    ]
    objects += [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": USER, "namespace": namespace},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "admin"},
            "subjects": [subject],
        }
        for namespace in namespaces
    ]
    return objects
