"""Runway as a Deployment: main paths, restarts, RBAC, documented procedures."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.deployment import LEASE, DeployedRunway, find_pod
from deploy.helm import NAMESPACE, VALUES, Helm, policy_option
from runway.policy import load_policy
from runway.tenant_manifests import render as render_tenants
from runway.tenant_manifests import render_admission_policy
from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, shell
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl, KubectlFailed, find_kubectl
from testbed.server import CHECKOUT
from testbed.waiting import GUARD_SECONDS, TimedOut, wait_for
from tests.support.documented import Block, blocks, environment, play, played
from tests.support.operator_kinds import operator_kinds
from tests.support.views import but_for_free_capacity

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
ACCOUNT = "system:serviceaccount:runway:runway"
LEASE_NAME, LEASE_NAMESPACE = LEASE
DRY_RUN = {"kubectl apply": "kubectl apply --dry-run=server"}


@pytest.fixture(scope="module")
def tools(deployed: DeployedRunway, kubernetes: Kubectl) -> Iterator[Tools]:
    with RunwayClient(deployed.url) as api, Kernel() as kernel:
        yield Tools(api, kubernetes, kernel, deployed)


def test_job_runs_with_log_and_cost(context: Context) -> None:
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


def test_quota_rejects_and_cancel_releases_it(context: Context) -> None:
    four = shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": 4})
    running = context.submit("vision", four)
    context.until_log(running["id"], "started")
    refused = context.runway.submit("vision", four)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert refused.json()["held_by"] == [running["id"]]
    assert context.runway.cancel(running["id"]).status_code == 202
    assert context.until_finished(running["id"])["state"] == "cancelled"
    assert context.runway.quota("vision")["used"]["gpu"] == 0


def test_killed_container_restarts_in_its_pod_without_data_loss(context: Context, deployed: DeployedRunway) -> None:
    jobs, pod = populate(context), find_pod(context.kubernetes)
    before = observed(context, jobs)
    deployed.kill()
    deployed.start()

    assert_unchanged(context, jobs, before)
    again = find_pod(context.kubernetes)
    assert pod is not None
    assert again is not None
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]
    assert again["status"]["containerStatuses"][0]["restartCount"] == 1
    assert holder(context.kubernetes) == pod["metadata"]["name"]


def test_deleted_pod_is_replaced_without_data_loss(context: Context, deployed: DeployedRunway) -> None:
    jobs, pod = populate(context), find_pod(context.kubernetes)
    before = observed(context, jobs)
    assert pod is not None
    context.kubernetes.run(
        "delete", "pod", pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--wait=false", timeout=GUARD_SECONDS
    )
    deployed.start()

    assert_unchanged(context, jobs, before)
    again = find_pod(context.kubernetes)
    assert again is not None
    assert again["metadata"]["name"] != pod["metadata"]["name"]
    assert holder(context.kubernetes) == again["metadata"]["name"]
    ended = context.until_finished(context.submit("vision", shell("true"))["id"])
    assert ended["state"] == "succeeded"


def test_container_runs_unprivileged_on_read_only_file_system(deployed: DeployedRunway, kubernetes: Kubectl) -> None:
    assert deployed.pid is not None
    status = dict(line.split(":\t", 1) for line in Path("/proc", str(deployed.pid), "status").read_text().splitlines())
    assert status["Uid"].split() == ["65532"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for place in ("/", "/app", "/var/tmp", "/opt/runway"):  # noqa: S108
        with pytest.raises(KubectlFailed, match="Read-only file system"):
            run_in_pod(kubernetes, "touch", f"{place}/file")
    # A Service named runway would otherwise appear as RUNWAY_PORT, which looks like a setting.
    names = {line.split("=")[0] for line in run_in_pod(kubernetes, "env").splitlines()}
    settings = {"RUNWAY_INSTANCE", "RUNWAY_LEASE_NAMESPACE", "RUNWAY_POLICY"}
    assert {name for name in names if name.startswith("RUNWAY_")} == settings


@pytest.mark.usefixtures("deployed")
def test_service_endpoint_is_the_runway_pod(kubernetes: Kubectl) -> None:
    def ready() -> list[Document] | None:
        slices = kubernetes.select(
            "endpointslices", f"--namespace={NAMESPACE}", "--selector=kubernetes.io/service-name=runway"
        )
        found = [(item, one) for item in slices for one in item["endpoints"] or [] if one["conditions"]["ready"]]
        return [{"address": one["addresses"], "port": item["ports"][0]["port"]} for item, one in found] or None

    pod = find_pod(kubernetes)
    assert pod is not None
    assert wait_for(ready, "a ready endpoint") == [{"address": [pod["status"]["podIP"]], "port": 8000}]


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("values", "policy"), [("local.yaml", "policy.local.yaml"), ("eks.example.yaml", "policy.eks.example.yaml")]
)
def test_api_server_accepts_every_manifest(kubernetes: Kubectl, values: str, policy: str) -> None:
    file = CHECKOUT / "config" / policy
    rendered = Helm().template(f"--values={VALUES / values}", policy_option(file))
    tenants = [*render_tenants(load_policy(file)), *render_admission_policy()]
    for manifest in (rendered, json.dumps({"apiVersion": "v1", "kind": "List", "items": tenants})):
        output = kubernetes.run("apply", "--dry-run=server", "--filename=-", stdin=manifest)
        assert output.count("server dry run") == len(output.splitlines()) > 0


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
    # Writes that Runway never needs, and ways around its own checks.
    *((verb, "jobs", TENANT) for verb in ("delete", "deletecollection", "update")),
    *(("create", kind, TENANT) for kind in ("pods", "pods:exec", "pods:attach", "pods:portforward", "pods:eviction")),
    *((verb, "pods", TENANT) for verb in ("delete", "patch", "update")),
    *((verb, "resourcequotas", TENANT) for verb in ("patch", "update", "delete")),
    *((verb, "networkpolicies", TENANT) for verb in ("patch", "delete")),
    ("create", "serviceaccounts:token", TENANT),
    *(("get", kind, TENANT) for kind in ("serviceaccounts", "persistentvolumeclaims")),
    *(("create", "jobs", f"--namespace={namespace}") for namespace in ("default", "kube-system", NAMESPACE)),
    *(("get", "pods:log", f"--namespace={namespace}") for namespace in ("kube-system", NAMESPACE)),
    # Privilege escalation.
    *((verb, "clusterroles", EVERYWHERE) for verb in ("bind", "escalate", "create", "patch")),
    *(("create", kind, EVERYWHERE) for kind in ("rolebindings", "clusterrolebindings", "serviceaccounts:token")),
    *(("impersonate", kind, EVERYWHERE) for kind in ("users", "groups", "serviceaccounts")),
    ("patch", "nodes", EVERYWHERE),
    ("patch", "deployments", f"--namespace={NAMESPACE}"),
    ("create", "mutatingwebhookconfigurations", EVERYWHERE),
    # Other leases, and deletion of its own.
    *((verb, "leases/kube-scheduler", "--namespace=kube-system") for verb in ("get", "update")),
    ("update", "leases/another", ITS_LEASE),
    ("delete", f"leases/{LEASE_NAME}", ITS_LEASE),
    ("list", "leases", ITS_LEASE),
]


@pytest.mark.usefixtures("deployed")
def test_rbac_allows_and_denies_listed_requests(kubeconfig: Path) -> None:
    said = {row: can_i(kubeconfig, *row) for row in [*MAY, *MAY_NOT]}
    assert [row for row in MAY if said[row] != "yes"] == []
    assert [row for row in MAY_NOT if said[row] != "no"] == []


@pytest.mark.usefixtures("deployed")
def test_rbac_grants_nothing_else(kubernetes: Kubectl) -> None:
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


def test_runbook_commands_run_without_errors(context: Context, deployed: DeployedRunway, kubeconfig: Path) -> None:
    """Run the blocks as written, with values for the words in capitals. No result, or a part of it, is no error."""
    job = context.until_finished(context.submit("vision", shell("echo hello; exit 3"))["id"])
    pod, node = job["attempts"][0]["pod"], job["attempts"][0]["node"]
    words = {"TENANT": "vision", "NAMESPACE": "runway-vision", "NODE": node, "POD": pod, "ID": job["id"]}
    replaced = {rf"(?<![A-Z:_$]){word}(?![A-Z:_])": value for word, value in words.items()} | {
        "http://127.0.0.1:8000": deployed.url,
        # On this cluster the Lease is in another namespace.
        "-n runway get lease": f"-n {LEASE_NAMESPACE} get lease",
    }
    variables = {"RUNWAY_URL": deployed.url, "RUNWAY_LEASE_NAMESPACE": LEASE_NAMESPACE}
    shell_environment, errors = environment(KUBECONFIG=str(kubeconfig), **variables), []
    skip = (
        "kubectl -n runway port-forward",  # It does not exit; the test has another connection to the pod.
        "kubectl -n runway top pod",  # It needs a metrics server.
        "kubectl -n kube-system logs deployment/cluster-autoscaler",  # Only EKS has it.
    )
    for block in blocks("docs/runbooks.md", skip=skip):
        errors += [
            f"{block.heading}: {line}"
            for line in play(block, shell_environment, replaced).stderr.splitlines()
            if not line.startswith(("Warning:", "No resources found", "No jobs", "Showing the first"))
        ]
    assert errors == []


@pytest.mark.usefixtures("deployed")
def test_documented_installation_works(kubeconfig: Path, tmp_path: Path) -> None:
    """Run the block in a copy of the checkout, with dry runs in place of changes."""
    for folder in ("config", "deploy/chart", "deploy/values"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder)
    # Docker needs a daemon and a registry; tests/packaging installs the command line, and test_chart.py runs doctor.
    [install] = blocks("docs/operations.md", "Deploy", skip=("docker ", "pip install", "runway doctor"))
    dry_runs = {
        "kubectl create namespace runway": "kubectl create namespace runway --dry-run=server -o name || true",
        "runway tenants apply": "runway tenants apply --dry-run",
        "helm -n runway upgrade": "helm -n runway upgrade --dry-run=server",
    }
    said = played(install, environment(KUBECONFIG=str(kubeconfig)), dry_runs, cwd=tmp_path)
    assert "Namespace runway-vision accepted (dry run)" in said
    assert "kind: Deployment" in said
    assert "123456789012.dkr.ecr.us-east-1.amazonaws.com/runway" in said


@pytest.mark.usefixtures("deployed")
def test_documented_monitoring_installation_works(kubernetes: Kubectl, kubeconfig: Path, tmp_path: Path) -> None:
    """Create the Secrets as documented; apply the operator's objects as server-side dry runs."""
    replaced = dict(DRY_RUN)
    for word in ("PAGER_URL_FILE", "TICKETS_URL_FILE", "HEARTBEAT_URL_FILE"):
        (tmp_path / word).write_text("https://example.org/hook")
        replaced[word] = str(tmp_path / word)
    # Helm needs the chart repository; a port-forward and the test page need what it installs.
    skip = ("helm ", "kubectl -n monitoring port-forward", "kubectl -n monitoring exec")
    documented = blocks("docs/operations.md", "Monitoring", skip=skip)
    assert kubernetes.get("namespace", "monitoring") is None
    try:
        with operator_kinds(kubernetes):
            said = [played(block, environment(KUBECONFIG=str(kubeconfig)), replaced) for block in documented]
        alerting = kubernetes.get("secret", "runway-alerting", "monitoring")
    finally:
        kubernetes.run("delete", "namespace", "monitoring", "--ignore-not-found", "--wait=false")
    assert "servicemonitor.monitoring.coreos.com" in said[1]
    assert len(said[2]) == 32, "the password: 24 bytes in base 64"
    assert alerting is not None
    assert alerting["data"].keys() == {"pager-url", "tickets-url", "heartbeat-url"}


def test_documented_restart_works(
    context: Context, deployed: DeployedRunway, kubernetes: Kubectl, kubeconfig: Path
) -> None:
    """A job keeps running meanwhile."""
    running, before = context.submit("vision", shell(SLEEP))["id"], holder(kubernetes)
    context.until_log(running, "started")
    command = "kubectl -n runway rollout restart deployment/runway"
    assert f"`{command}`" in (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    wait = f"kubectl -n runway rollout status deployment/runway --timeout={GUARD_SECONDS:.0f}s"
    played(Block("", "restart", (command, wait)), environment(KUBECONFIG=str(kubeconfig)))
    deployed.start()
    assert context.runway.job(running)["state"] == "running"
    assert holder(kubernetes) != before


def populate(context: Context) -> list[str]:
    """Submit a running job on GPUs, a pending one and a failed one."""
    running = context.submit("vision", shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": 2}))
    waiting = context.submit("research", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}))
    failed = context.submit("vision", shell("exit 3"))
    context.until_finished(failed["id"])
    context.until_log(running["id"], "started")
    context.until(waiting["id"], lambda view: view["conditions"] != [], "unschedulable")
    return [job["id"] for job in (running, waiting, failed)]


def observed(context: Context, jobs: list[str]) -> dict[str, object]:
    """Return the fields of these jobs' views, the usage of their tenants, and a log."""
    views = {job: but_for_free_capacity(context.runway.job(job)) for job in jobs}
    fields = {f"{job} {field}": value for job, view in views.items() for field, value in view.items()}
    used = {f"{tenant} uses": context.runway.quota(tenant)["used"] for tenant in ("vision", "research")}
    return fields | used | {"log": context.runway.log(jobs[0]).text}


def assert_unchanged(context: Context, jobs: list[str], before: dict[str, object]) -> None:
    """Compare states and quota at once, and the rest within 10 s: diagnosis waits for events."""
    now, firm = observed(context, jobs), [key for key in before if key.endswith((" state", " uses"))]
    assert {key: now[key] for key in firm} == {key: before[key] for key in firm}
    with suppress(TimedOut):
        wait_for(lambda: observed(context, jobs) == before or None, "the same views")
    assert observed(context, jobs) == before


def holder(kubernetes: Kubectl) -> str:
    lease = kubernetes.get("lease", *LEASE)
    assert lease is not None
    return str(lease["spec"]["holderIdentity"])


def run_in_pod(kubernetes: Kubectl, *command: str) -> str:
    return kubernetes.run("exec", "deployment/runway", f"--namespace={NAMESPACE}", "--", *command)


def can_i(kubeconfig: Path, verb: str, resource: str, where: str) -> str:
    """Return `yes` or `no`, which is equivalent to the exit code."""
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
    """Return its rules in a namespace as (group, resource, verb, name), without the self-reviews of every account.

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
