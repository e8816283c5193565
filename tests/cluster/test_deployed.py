"""Runway as a Deployment in the cluster: the same main paths, under its own RBAC, and what it may not do."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy import deployment, manifests
from deploy.deployment import LEASE, DeployedRunway, find_pod
from deploy.manifests import NAMESPACE
from runway.policy import load_policy
from runway.tenant_manifests import render as render_tenants
from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, shell
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl, KubectlFailed, find_kubectl
from testbed.server import CHECKOUT, Server
from testbed.waiting import TimedOut, wait_for
from tests.cluster.conftest import POLICY
from tests.support.documented import Block, blocks, environment, play, played
from tests.support.locks import one_at_a_time
from tests.support.operator_kinds import operator_kinds
from tests.support.views import but_for_free_capacity

pytestmark = pytest.mark.cluster

STAY = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
ACCOUNT = "system:serviceaccount:runway:runway"
LEASE_NAME, LEASE_NAMESPACE = LEASE
DRY = {"kubectl apply": "kubectl apply --dry-run=server"}


@pytest.fixture(scope="module")
def deployed(server: Server, kubernetes: Kubectl) -> Iterator[DeployedRunway]:
    """The deployed Runway, under the names of the documents; for that time no other process of these tests writes."""
    with one_at_a_time("names-of-the-documents"):
        yield from _deployed(server, kubernetes)


def _deployed(server: Server, kubernetes: Kubectl) -> Iterator[DeployedRunway]:
    server.stop()
    try:
        deployment.up(kubernetes, POLICY)
        with DeployedRunway(kubernetes) as running:
            running.start()
            yield running
    finally:
        deployment.down(kubernetes)
        server.start()


@pytest.fixture(scope="module")
def tools(deployed: DeployedRunway, kubernetes: Kubectl) -> Iterator[Tools]:
    with RunwayClient(deployed.url) as api, Kernel() as kernel:
        yield Tools(api, kubernetes, kernel, deployed)


def test_a_job_runs_and_its_log_and_price_are_told(context: Context) -> None:
    spec = shell("echo hello; exit 0")
    tried = context.runway.submit("vision", spec, dry_run=True)
    assert (tried.status_code, tried.json()["decision"]) == (200, "admitted")
    first = context.accepted(context.runway.submit("vision", spec))
    context.until_log(first["id"], "hello")
    assert list(context.runway.follow(first["id"])) == ["hello"]
    view = context.until_finished(first["id"])
    assert (view["state"], view["attempts"][0]["exit_code"]) == ("succeeded", 0)
    assert float(view["cost"]["ceiling"]) > 0
    failed = context.until_finished(context.submit("vision", shell("exit 3"))["id"])
    assert (failed["state"], failed["attempts"][0]["exit_code"]) == ("failed", 3)


def test_quota_refuses_and_cancelling_gives_back(context: Context) -> None:
    four = shell(STAY, resources={"cpu": "100m", "memory": "32Mi", "gpu": 4})
    running = context.submit("vision", four)
    context.until_log(running["id"], "started")
    refused = context.runway.submit("vision", four)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert refused.json()["held_by"] == [running["id"]]
    assert context.runway.cancel(running["id"]).status_code == 202
    assert context.until_finished(running["id"])["state"] == "cancelled"
    assert context.runway.quota("vision")["used"]["gpu"] == 0


def test_a_killed_process_comes_back_in_its_pod_and_has_lost_nothing(
    context: Context, deployed: DeployedRunway
) -> None:
    jobs, pod = populate(context), find_pod(context.kubernetes)
    before = told(context, jobs)
    deployed.kill()
    deployed.start()

    assert_told_again(context, jobs, before)
    again = find_pod(context.kubernetes)
    assert pod is not None
    assert again is not None
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    assert again["status"]["containerStatuses"][0]["restartCount"] == 1
    assert holder(context.kubernetes) == pod["metadata"]["name"]


def test_a_deleted_pod_is_replaced_by_one_that_has_lost_nothing(context: Context, deployed: DeployedRunway) -> None:
    jobs, pod = populate(context), find_pod(context.kubernetes)
    before = told(context, jobs)
    assert pod is not None
    context.kubernetes.run(
        "delete", "pod", pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--wait=false", timeout=30
    )
    deployed.start()

    assert_told_again(context, jobs, before)
    again = find_pod(context.kubernetes)
    assert again is not None
    assert again["metadata"]["name"] != pod["metadata"]["name"]
    assert holder(context.kubernetes) == again["metadata"]["name"]
    ended = context.until_finished(context.submit("vision", shell("true"))["id"])
    assert ended["state"] == "succeeded"


def test_its_process_is_nobody_and_can_write_nothing(deployed: DeployedRunway, kubernetes: Kubectl) -> None:
    assert deployed.pid is not None
    status = dict(line.split(":\t", 1) for line in Path("/proc", str(deployed.pid), "status").read_text().splitlines())
    assert status["Uid"].split() == ["65532"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for place in ("/", "/app", "/var/tmp", "/opt/runway"):  # noqa: S108
        with pytest.raises(KubectlFailed, match="Read-only file system"):
            inside(kubernetes, "touch", f"{place}/file")
    # A Service named runway would otherwise appear as RUNWAY_PORT, which looks like a setting.
    names = {line.split("=")[0] for line in inside(kubernetes, "env").splitlines()}
    settings = {"RUNWAY_INSTANCE", "RUNWAY_LEASE_NAMESPACE", "RUNWAY_POLICY", "RUNWAY_DRAIN_SECONDS"}
    assert {name for name in names if name.startswith("RUNWAY_")} == settings


@pytest.mark.usefixtures("deployed")
def test_the_service_leads_to_it(kubernetes: Kubectl) -> None:
    def ready() -> list[Document] | None:
        slices = kubernetes.select(
            "endpointslices", f"--namespace={NAMESPACE}", "--selector=kubernetes.io/service-name=runway"
        )
        found = [(item, one) for item in slices for one in item["endpoints"] or [] if one["conditions"]["ready"]]
        return [{"address": one["addresses"], "port": item["ports"][0]["port"]} for item, one in found] or None

    pod = find_pod(kubernetes)
    assert pod is not None
    assert wait_for(ready, "a ready endpoint", 20) == [{"address": [pod["status"]["podIP"]], "port": 8000}]


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(("overlay", "policy"), [("local", "policy.local.yaml"), ("eks", "policy.eks.example.yaml")])
def test_the_api_server_takes_every_manifest(kubernetes: Kubectl, overlay: str, policy: str) -> None:
    rendered = manifests.render(overlay)
    tenants = render_tenants(load_policy(CHECKOUT / "config" / policy))
    for manifest in (rendered, json.dumps({"apiVersion": "v1", "kind": "List", "items": tenants})):
        told = kubernetes.run("apply", "--dry-run=server", "--filename=-", stdin=manifest, timeout=60)
        assert told.count("server dry run") == len(told.splitlines()) > 0


# A kind, `kind/name` or `kind:subresource`.
TENANT, ITS_LEASE = "--namespace=runway-vision", f"--namespace={LEASE_NAMESPACE}"
EVERYWHERE = "--all-namespaces"

MAY = [
    *((verb, kind, EVERYWHERE) for verb in ("list", "watch") for kind in ("jobs", "pods", "events", "nodes")),
    *(
        (verb, "jobs", f"--namespace=runway-{tenant}")
        for verb in ("create", "get", "patch")
        for tenant in ("vision", "speech", "research")
    ),
    ("get", "pods:log", TENANT),
    ("create", "leases", ITS_LEASE),
    ("get", f"leases/{LEASE_NAME}", ITS_LEASE),
    ("update", f"leases/{LEASE_NAME}", ITS_LEASE),
]
MAY_NOT = [
    *((verb, "secrets", where) for verb in ("get", "list", "watch", "create") for where in (EVERYWHERE, TENANT)),
    *(("get", kind, EVERYWHERE) for kind in ("configmaps", "nodes:proxy", "nodes:metrics", "nodes:log", "pods:log")),
    *(("create", kind, EVERYWHERE) for kind in ("nodes:proxy", "namespaces", "jobs", "pods", "leases")),
    # What it does not do to jobs, and how it could pass its own checks.
    *((verb, "jobs", TENANT) for verb in ("delete", "deletecollection", "update")),
    *(("create", kind, TENANT) for kind in ("pods", "pods:exec", "pods:attach", "pods:portforward", "pods:eviction")),
    *((verb, "pods", TENANT) for verb in ("delete", "patch", "update")),
    *((verb, "resourcequotas", TENANT) for verb in ("patch", "update", "delete")),
    *((verb, "networkpolicies", TENANT) for verb in ("patch", "delete")),
    *(("create", "jobs", f"--namespace={namespace}") for namespace in ("default", "kube-system", NAMESPACE)),
    *(("get", "pods:log", f"--namespace={namespace}") for namespace in ("kube-system", NAMESPACE)),
    # How it could become more than it is.
    *((verb, "clusterroles", EVERYWHERE) for verb in ("bind", "escalate", "create", "patch")),
    *(("create", kind, EVERYWHERE) for kind in ("rolebindings", "clusterrolebindings", "serviceaccounts:token")),
    *(("impersonate", kind, EVERYWHERE) for kind in ("users", "groups", "serviceaccounts")),
    ("patch", "nodes", EVERYWHERE),
    ("patch", "deployments", f"--namespace={NAMESPACE}"),
    ("create", "mutatingwebhookconfigurations", EVERYWHERE),
    # Another's lease, or its own taken away.
    *((verb, "leases/kube-scheduler", "--namespace=kube-system") for verb in ("get", "update")),
    ("update", "leases/another", ITS_LEASE),
    ("delete", f"leases/{LEASE_NAME}", ITS_LEASE),
    ("list", "leases", ITS_LEASE),
]


@pytest.mark.usefixtures("deployed")
def test_the_api_server_says_what_it_may_and_what_it_may_not(kubeconfig: Path) -> None:
    said = {row: can_i(kubeconfig, *row) for row in [*MAY, *MAY_NOT]}
    assert [row for row in MAY if said[row] != "yes"] == []
    assert [row for row in MAY_NOT if said[row] != "no"] == []


@pytest.mark.usefixtures("deployed")
def test_it_may_do_nothing_but_what_is_listed(kubernetes: Kubectl) -> None:
    look = {("batch", "jobs"), ("", "pods"), ("", "events"), ("", "nodes")}
    everywhere = {(group, kind, verb, "") for group, kind in look for verb in ("list", "watch")}
    jobs = {("batch", "jobs", verb, "") for verb in ("create", "get", "patch")} | {("", "pods/log", "get", "")}
    lease = {("coordination.k8s.io", "leases", "create", "")} | {
        ("coordination.k8s.io", "leases", verb, LEASE_NAME) for verb in ("get", "update")
    }
    assert rules(kubernetes, "runway-vision") == everywhere | jobs
    assert rules(kubernetes, LEASE_NAMESPACE) == everywhere | lease
    for namespace in ("kube-system", NAMESPACE):
        assert rules(kubernetes, namespace) == everywhere


def test_what_the_runbooks_look_at_can_be_looked_at(
    context: Context, deployed: DeployedRunway, kubeconfig: Path
) -> None:
    """Their blocks as they stand, but for words in capitals. What is found, or not, is the operator's to judge."""
    job = context.until_finished(context.submit("vision", shell("echo hello; exit 3"))["id"])
    pod, node = job["attempts"][0]["pod"], job["attempts"][0]["node"]
    words = {"TENANT": "vision", "NAMESPACE": "runway-vision", "NODE": node, "POD": pod, "ID": job["id"]}
    replaced = {rf"(?<![A-Z:_$]){word}(?![A-Z:_])": value for word, value in words.items()} | {
        "http://127.0.0.1:8000": deployed.url,
        # Here the Lease is kept where every Runway of this cluster looks for it.
        "-n runway get lease": f"-n {LEASE_NAMESPACE} get lease",
    }
    shell_environment, faults = environment(KUBECONFIG=str(kubeconfig), RUNWAY_URL=deployed.url), []
    skip = (
        "kubectl -n runway port-forward",  # It does not end; the test has its own way to the pod.
        "kubectl -n runway top pod",  # It needs a metrics server.
        "kubectl -n kube-system logs deployment/cluster-autoscaler",  # Only EKS has it.
    )
    for block in blocks("docs/runbooks.md", skip=skip):
        faults += [
            f"{block.heading}: {said}"
            for said in play(block, shell_environment, replaced).stderr.splitlines()
            if not said.startswith(("Warning:", "No resources found", "No jobs", "There are more"))
        ]
    assert faults == []


@pytest.mark.usefixtures("deployed")
def test_it_is_installed_as_the_document_says(kubeconfig: Path, tmp_path: Path) -> None:
    """As it stands, in a copy of the checkout, with sed as the editor; the API server checks all and keeps nothing."""
    for folder in ("config", "deploy/kustomize"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder)
    edit = "sed -i s/policy.eks.example.yaml/policy.eks.yaml/"
    # Docker needs a daemon and a registry; the deployment of these tests builds this Dockerfile with buildah.
    [install] = blocks("docs/operations.md", "Deploy", skip=("docker build",))
    said = played(install, environment(KUBECONFIG=str(kubeconfig), EDITOR=edit), DRY, cwd=tmp_path)
    assert "namespace/runway-vision" in said
    assert "deployment.apps/runway" in said
    assert "successfully rolled out" in said
    assert "policy.eks.yaml" in (tmp_path / "deploy/kustomize/overlays/eks/kustomization.yaml").read_text()


@pytest.mark.usefixtures("deployed")
def test_monitoring_is_installed_as_the_document_says(kubernetes: Kubectl, kubeconfig: Path, tmp_path: Path) -> None:
    """The Secrets as it stands; what needs the operator is checked by the API server, which keeps none of it."""
    replaced = dict(DRY)
    for word in ("PAGER_URL_FILE", "TICKETS_URL_FILE"):
        (tmp_path / word).write_text("https://example.org/hook")
        replaced[word] = str(tmp_path / word)
    # Helm needs the repository of the chart; a port-forward needs its Services, and does not end.
    documented = blocks("docs/operations.md", "Monitoring", skip=("helm ", "kubectl -n monitoring port-forward"))
    assert kubernetes.get("namespace", "monitoring") is None
    try:
        with operator_kinds(kubernetes):
            said = [played(block, environment(KUBECONFIG=str(kubeconfig)), replaced) for block in documented]
        alerting = kubernetes.get("secret", "runway-alerting", "monitoring")
    finally:
        kubernetes.run("delete", "namespace", "monitoring", "--ignore-not-found", "--wait=false")
    assert "prometheusrule.monitoring.coreos.com" in said[1]
    assert len(said[2]) == 32, "the password: 24 bytes in base 64"
    assert alerting is not None
    assert alerting["data"].keys() == {"pager-url", "tickets-url"}


def test_it_is_restarted_and_rolled_back_as_the_document_says(
    context: Context, deployed: DeployedRunway, kubernetes: Kubectl, kubeconfig: Path
) -> None:
    """In this order, so that there is a revision to go back to. A job runs through both."""
    running = context.submit("vision", shell(STAY))["id"]
    context.until_log(running, "started")
    text, pods = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8"), set()
    for change in ("restart", "undo"):
        command = f"kubectl -n runway rollout {change} deployment/runway"
        assert f"`{command}`" in text
        wait = "kubectl -n runway rollout status deployment/runway --timeout=60s"
        played(Block("", change, (command, wait)), environment(KUBECONFIG=str(kubeconfig)))
        deployed.start()
        pods.add(holder(kubernetes))
        assert context.runway.job(running)["state"] == "running"
    assert len(pods) == 2


def populate(context: Context) -> list[str]:
    """A running job that holds GPUs, a waiting one and one that has failed."""
    running = context.submit("vision", shell(STAY, resources={"cpu": "100m", "memory": "32Mi", "gpu": 2}))
    waiting = context.submit("research", shell("true", resources={"cpu": "8", "memory": "32Mi"}))
    failed = context.submit("vision", shell("exit 3"))
    context.until_finished(failed["id"])
    context.until_log(running["id"], "started")
    context.until(waiting["id"], lambda view: view["conditions"] != [], "unschedulable")
    return [job["id"] for job in (running, waiting, failed)]


def told(context: Context, jobs: list[str]) -> dict[str, object]:
    """What Runway says of these jobs, field by field, and of what their tenants use."""
    views = {job: but_for_free_capacity(context.runway.job(job)) for job in jobs}
    fields = {f"{job} {field}": value for job, view in views.items() for field, value in view.items()}
    used = {f"{tenant} uses": context.runway.quota(tenant)["used"] for tenant in ("vision", "research")}
    return fields | used | {"log": context.runway.log(jobs[0]).text}


def assert_told_again(context: Context, jobs: list[str], before: dict[str, object]) -> None:
    """States and quota at once; an explanation that rests on events may come a moment later, since they do."""
    now, firm = told(context, jobs), [key for key in before if key.endswith((" state", " uses"))]
    assert {key: now[key] for key in firm} == {key: before[key] for key in firm}
    with suppress(TimedOut):
        wait_for(lambda: told(context, jobs) == before or None, "everything is told again", 10)
    assert told(context, jobs) == before


def holder(kubernetes: Kubectl) -> str:
    lease = kubernetes.get("lease", *LEASE)
    assert lease is not None
    return str(lease["spec"]["holderIdentity"])


def inside(kubernetes: Kubectl, *command: str) -> str:
    return kubernetes.run("exec", "deployment/runway", f"--namespace={NAMESPACE}", "--", *command)


def can_i(kubeconfig: Path, verb: str, resource: str, where: str) -> str:
    """`yes` or `no`: the exit code says the same, so it is not looked at."""
    kind, _, subresource = resource.partition(":")
    command = [str(find_kubectl()), f"--kubeconfig={kubeconfig}", "auth", "can-i", verb, kind, where]
    done = subprocess.run(
        [*command, f"--subresource={subresource}", f"--as={ACCOUNT}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def rules(kubernetes: Kubectl, namespace: str) -> set[tuple[str, str, str, str]]:
    """What it may do in a namespace as (group, resource, verb, name), without what every account may: ask about itself.

    https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-rules-review-v1/
    """
    review = {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"namespace": namespace},
    }
    text = kubernetes.run(
        "create", "--filename=-", "--validate=false", "--output=json", f"--as={ACCOUNT}", stdin=json.dumps(review)
    )
    return {
        (group, resource, verb, name)
        for rule in json.loads(text)["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
        if group not in ("authorization.k8s.io", "authentication.k8s.io")
    }
