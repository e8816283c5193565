"""`runway doctor` and `runway tenants apply` against an API server: each test breaks exactly one thing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.testing import Result

from runway.doctor.metrics import GPU_SERIES, POD_SERIES
from runway.doctor.nodes import DAEMON_SETS
from runway.doctor.run import Question, check_all
from runway.errors import AmbiguousOutcome, NotExecuted, TooBusy
from runway.kube.operator_client import PATHS, OperatorClient
from runway.kube.transport import Response, Transport
from runway.policy import parse_policy
from runway.tenant_manifests import RUNWAY_USER, render, render_admission_policy
from tests.support.cli import runway
from tests.support.fake_api_server import FakeApiServer, fake_api_server, kubeconfig
from tests.unit.cli.test_policy import POLICY as BASE

Json = dict[str, Any]

TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
ROLE_KEY = "eks.amazonaws.com/role-arn"
POLICY: Json = BASE | {
    "pools": {
        "cpu": BASE["pools"]["cpu"] | {"node_selector": {"pool": "cpu"}},
        "a10g": BASE["pools"]["a10g"] | {"node_selector": {"pool": "a10g"}, "tolerations": [TAINT]},
    },
    "tenants": BASE["tenants"]
    | {
        "vision": BASE["tenants"]["vision"]
        | {
            "quota": BASE["tenants"]["vision"]["quota"] | {"disk": "2Ti"},
            "volumes": {"datasets": {"claim": "datasets", "path": "/data"}},
            "service_account": {"annotations": {ROLE_KEY: "arn:aws:iam::123456789012:role/vision"}},
            "image_pull_secrets": ["registry-credentials"],
        }
    },
}
LOADED = parse_policy(yaml.safe_dump(POLICY, sort_keys=False))
KINDS = sorted({str(manifest["kind"]) for manifest in render(LOADED)})
CPU_NODE, GPU_NODE = 0, 1
NAMESPACE = "/api/v1/namespaces/runway-vision"
QUOTA = f"{NAMESPACE}/resourcequotas/runway-quota"
LIMITS = f"{NAMESPACE}/limitranges/runway-limits"
ACCOUNT = f"{NAMESPACE}/serviceaccounts/runway-job"
CLAIM = f"{NAMESPACE}/persistentvolumeclaims/datasets"
NOW = "2026-11-24T08:00:00Z"


def node(name: str, pool: str, allocatable: dict[str, str], taints: list[Json]) -> Json:
    return {
        "metadata": {"name": name, "labels": {"pool": pool}, "resourceVersion": "1", "uid": name},
        "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable},
    }


def path_of(manifest: Json) -> str:
    collection = PATHS[manifest["apiVersion"], manifest["kind"]]
    metadata = manifest["metadata"]
    return f"{collection.format(namespace=metadata.get('namespace'))}/{metadata['name']}"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    """A cluster without a fault, and the kubeconfig of an operator."""
    with fake_api_server(tmp_path) as (fake, file):
        for manifest in render(LOADED):
            fake.objects[path_of(manifest)] = json.loads(json.dumps(manifest))
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        fake.objects["/api/v1/namespaces/runway"] = {"metadata": {"name": "runway", "labels": restricted}}
        fake.objects["/api/v1/namespaces/runway/serviceaccounts/runway"] = {"metadata": {"name": "runway"}}
        fake.objects[CLAIM] = {"metadata": {"name": "datasets"}}
        gpu_taint = {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
        nodes = [
            node("cpu-1", "cpu", {"cpu": "16", "memory": "64Gi"}, []),
            node("gpu-1", "a10g", {"cpu": "48", "memory": "192Gi", "nvidia.com/gpu": "4"}, [gpu_taint]),
        ]
        fake.objects["/api/v1/nodes"] = {"metadata": {"resourceVersion": "1"}, "items": nodes}
        fake.objects[DAEMON_SETS] = {"items": [{"metadata": {"name": "calico-node"}}]}
        fake.series = [*POD_SERIES, GPU_SERIES]
        monkeypatch.setenv("KUBECONFIG", str(file))
        monkeypatch.setenv("RUNWAY_PROMETHEUS_URL", fake.url)
        monkeypatch.delenv("RUNWAY_LEASE_NAMESPACE", raising=False)
        yield fake


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(POLICY, sort_keys=False))
    return file


def doctor(policy: Path, *options: str) -> tuple[Result, list[Json]]:
    """Return the result of the command, and the findings that are not ok."""
    result = runway("doctor", "--policy", str(policy), "-o", "json", *options)
    document = json.loads(result.stdout)
    problems = [finding for finding in document["findings"] if finding["status"] != "ok"]
    failed = any(finding["status"] == "failed" for finding in problems)
    assert (document["ok"], result.exit_code) == (not failed, 1 if failed else 0)
    assert all(finding["fix"] for finding in problems)
    return result, problems


def only(policy: Path, *options: str) -> tuple[str, str, str, str]:
    """Return the only finding that is not ok: status, check, subject, observed."""
    _, problems = doctor(policy, *options)
    [problem] = problems
    return problem["status"], problem["check"], problem["subject"], problem["observed"]


@pytest.mark.usefixtures("cluster")
def test_cluster_without_a_fault_passes_every_check(policy: Path) -> None:
    result, problems = doctor(policy)
    assert problems == []
    checks = {finding["check"] for finding in json.loads(result.stdout)["findings"]}
    assert checks == {
        "version", "clock", "permissions", "service account", "tenant objects", "pod security", "quota", "volumes",
        "pools", "gpus", "network policy", "prometheus",
    }  # fmt: skip


def test_table_names_the_fix_and_counts(cluster: FakeApiServer, policy: Path) -> None:
    del cluster.objects[QUOTA]
    result = runway("doctor", "--policy", str(policy))
    assert result.exit_code == 1
    [line] = [line for line in result.stdout.splitlines() if line.startswith("failed")]
    assert line.split("  ")[-1] == "run `runway tenants apply`"
    assert "missing: ResourceQuota runway-quota" in line
    assert result.stdout.splitlines()[-1].endswith("0 warning, 1 failed, 0 unknown")


def test_unreachable_api_server_is_the_only_finding(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:1")))
    status, check, _, observed = only(policy)
    assert (status, check) == ("failed", "version")
    assert observed.startswith("no connection to the Kubernetes API")


def test_missing_kubeconfig_is_a_usage_error(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    result = runway("doctor", "--policy", str(policy))
    assert result.exit_code == 2
    assert "absent" in result.stderr


def test_kubeconfig_of_the_home_directory_is_the_default(
    cluster: FakeApiServer, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube", cluster.url).rename(tmp_path / ".kube" / "config")
    assert doctor(policy)[1] == []


@pytest.mark.usefixtures("cluster")
def test_kubeconfig_variable_needs_no_readable_home_directory(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image can set HOME=/root for another user."""
    monkeypatch.setenv("HOME", "/" + "h" * 300)  # Unreadable for root too.
    assert doctor(policy)[1] == []
    monkeypatch.delenv("KUBECONFIG")
    result = runway("doctor", "--policy", str(policy))
    assert result.exit_code == 2
    assert "set KUBECONFIG" in result.stderr


@pytest.mark.parametrize(("minor", "status"), [("29", "failed"), ("29+", "failed"), ("", "unknown")])
def test_old_api_server_fails_and_unreadable_version_is_unknown(
    cluster: FakeApiServer, policy: Path, minor: str, status: str
) -> None:
    cluster.version = {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}
    assert only(policy)[:2] == (status, "version")


def test_oldest_supported_api_server_passes(cluster: FakeApiServer, policy: Path) -> None:
    cluster.version = {"major": "1", "minor": "30+", "gitVersion": "v1.30.14-eks-1"}
    assert doctor(policy)[1] == []


@pytest.mark.parametrize(("ahead", "word"), [(90, "behind"), (-90, "ahead")])
def test_clock_difference_is_a_warning(cluster: FakeApiServer, policy: Path, ahead: int, word: str) -> None:
    cluster.clock_ahead = timedelta(seconds=ahead)
    status, check, _, observed = only(policy)
    assert (status, check) == ("warning", "clock")
    assert word in observed


@pytest.mark.parametrize(
    ("verb", "resource", "place"),
    [
        ("watch", "nodes", "all namespaces"),
        ("update", "leases", "runway"),
        ("get", "pods/log", "runway-vision"),
    ],
)
def test_missing_permission_fails(cluster: FakeApiServer, policy: Path, verb: str, resource: str, place: str) -> None:
    cluster.denied.add((verb, resource))
    findings = {finding["subject"]: finding for finding in doctor(policy)[1]}
    assert findings[place]["status"] == "failed"
    assert f"not allowed: {verb} {resource}" in findings[place]["observed"]
    assert {finding["check"] for finding in findings.values()} == {"permissions"}


def test_permissions_are_those_of_the_caller_or_of_runway(cluster: FakeApiServer, policy: Path) -> None:
    doctor(policy)
    assert {review["kind"] for review in cluster.reviews} == {"SelfSubjectAccessReview"}
    cluster.reviews.clear()
    doctor(policy, "--as-runway", "--lease-namespace", "default")
    assert {(review["kind"], review["spec"]["user"]) for review in cluster.reviews} == {
        ("SubjectAccessReview", RUNWAY_USER)
    }
    leases = [review for review in cluster.reviews if review["spec"]["resourceAttributes"]["resource"] == "leases"]
    assert {review["spec"]["resourceAttributes"]["namespace"] for review in leases} == {"default"}


def test_caller_without_rights_gets_unknown_findings(cluster: FakeApiServer, policy: Path) -> None:
    cluster.forbidden = ("/api", "/apis")
    _, problems = doctor(policy)
    assert {finding["status"] for finding in problems} == {"unknown"}
    assert {finding["check"] for finding in problems} == {
        "permissions", "service account", "tenant objects", "volumes", "pools", "network policy",
    }  # fmt: skip


@pytest.mark.parametrize("labels", [{}, {"pod-security.kubernetes.io/enforce": "baseline"}])
def test_tenant_namespace_without_restricted_pods_fails(
    cluster: FakeApiServer, policy: Path, labels: dict[str, str]
) -> None:
    cluster.objects[NAMESPACE]["metadata"]["labels"] = {"runway.internal/tenant": "vision"} | labels
    assert only(policy)[:3] == ("failed", "pod security", "runway-vision")


@pytest.mark.parametrize("tenant", ["research", None])
def test_namespace_that_is_not_known_as_the_tenants_fails(
    cluster: FakeApiServer, policy: Path, tenant: str | None
) -> None:
    """Others may use it; or its jobs could be clients of Runway, and the admission policy does not bind there."""
    cluster.objects[NAMESPACE]["metadata"]["labels"]["runway.internal/tenant"] = tenant
    status, check, subject, observed = only(policy)
    assert (status, check, subject) == ("failed", "tenant objects", "runway-vision")
    assert observed == f"label runway.internal/tenant: {tenant or 'not set'}, not vision"
    assert runway("tenants", "apply", "--policy", str(policy)).exit_code == 0
    assert doctor(policy)[1] == []


def test_runway_namespace_without_restricted_pods_is_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects["/api/v1/namespaces/runway"]["metadata"]["labels"] = None
    assert only(policy)[:3] == ("warning", "pod security", "runway")


def test_cluster_before_the_installation_has_warnings_and_missing_tenants(cluster: FakeApiServer, policy: Path) -> None:
    for path in [
        path for path in cluster.objects if path.startswith(("/api/v1/namespaces", "/apis/rbac", "/apis/net"))
    ]:
        del cluster.objects[path]
    _, problems = doctor(policy)
    assert [(finding["status"], finding["check"], finding["observed"]) for finding in problems] == [
        ("warning", "service account", "there is no such namespace"),
        ("failed", "tenant objects", "there is no such namespace"),
        ("failed", "tenant objects", "there is no such namespace"),
        ("warning", "volumes", "there is no claim datasets"),
    ]


def test_missing_service_account_of_runway_is_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    del cluster.objects["/api/v1/namespaces/runway/serviceaccounts/runway"]
    assert only(policy)[:2] == ("warning", "service account")


@pytest.mark.parametrize("kind", KINDS)
def test_each_missing_tenant_object_fails(cluster: FakeApiServer, policy: Path, kind: str) -> None:
    manifest: Json = next(item for item in render(LOADED) if item["kind"] == kind)
    del cluster.objects[path_of(manifest)]
    assert only(policy)[:3] == ("failed", "tenant objects", "runway-vision")


def test_lower_resource_quota_fails(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects[QUOTA]["spec"]["hard"]["requests.cpu"] = "31900m"
    status, check, subject, observed = only(policy)
    assert (status, check, subject) == ("failed", "quota", "runway-vision")
    assert "requests.cpu 31900m (policy: 32)" in observed


@pytest.mark.parametrize("change", [{"pods": "1k"}, {"pods": None}])
def test_higher_or_missing_limit_of_resource_quota_is_a_warning(
    cluster: FakeApiServer, policy: Path, change: Json
) -> None:
    hard = cluster.objects[QUOTA]["spec"]["hard"] | change
    cluster.objects[QUOTA]["spec"]["hard"] = {name: value for name, value in hard.items() if value is not None}
    assert only(policy)[:3] == ("warning", "quota", "runway-vision")


@pytest.mark.parametrize(("disk", "status"), [("1Ti", "failed"), ("3Ti", "warning")])
def test_another_quota_of_disk_is_found(cluster: FakeApiServer, policy: Path, disk: str, status: str) -> None:
    cluster.objects[QUOTA]["spec"]["hard"]["requests.ephemeral-storage"] = disk
    found = only(policy)
    assert found[:3] == (status, "quota", "runway-vision")
    assert f"requests.ephemeral-storage {disk} (policy: 2Ti)" in found[3]


def test_limit_that_the_policy_does_not_have_is_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects[QUOTA]["spec"]["hard"]["count/jobs.batch"] = "5"
    assert only(policy) == ("warning", "quota", "runway-vision", "not in the policy: count/jobs.batch")


@pytest.mark.parametrize(
    ("bound", "cpu", "status"),
    [
        ("max", "1", "failed"), ("min", "15", "failed"), ("max", "64", "warning"), ("min", "1m", "warning"),
        ("max", None, "warning"),
    ],
)  # fmt: skip
def test_limit_range_of_another_policy_is_found(
    cluster: FakeApiServer, policy: Path, bound: str, cpu: str | None, status: str
) -> None:
    """The policy was changed, and `runway tenants apply` was not run."""
    container = cluster.objects[LIMITS]["spec"]["limits"][0]
    container[bound] = {name: amount for name, amount in (container[bound] | {"cpu": cpu}).items() if amount}
    found = only(policy)
    assert found[:3] == (status, "limits", "runway-vision")
    assert f"{bound} cpu {cpu or 'not set'} (policy: " in found[3]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"metadata": {"name": "runway-job"}}, f"annotation {ROLE_KEY}"),
        ({"metadata": {"annotations": {ROLE_KEY: "arn:aws:iam::123456789012:role/web"}}}, f"annotation {ROLE_KEY}"),
        ({"imagePullSecrets": None}, "pull secret registry-credentials"),
    ],
)
def test_account_of_the_jobs_with_another_identity_fails(
    cluster: FakeApiServer, policy: Path, change: Json, fault: str
) -> None:
    cluster.objects[ACCOUNT] |= change
    observed = f"missing or different: {fault}"
    assert only(policy) == ("failed", "service account", "runway-vision/runway-job", observed)


def test_account_of_the_jobs_can_have_more_than_the_policy(cluster: FakeApiServer, policy: Path) -> None:
    account = cluster.objects[ACCOUNT]
    account["metadata"]["annotations"]["team"] = "vision"
    account["imagePullSecrets"].append({"name": "another"})
    assert doctor(policy)[1] == []


def test_missing_claim_of_a_volume_is_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    del cluster.objects[CLAIM]
    assert only(policy) == ("warning", "volumes", "runway-vision", "there is no claim datasets")


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        ({"status": {"phase": "Lost"}}, "claim datasets has lost its volume"),
        ({"metadata": {"name": "datasets", "deletionTimestamp": NOW}}, "claim datasets is being deleted"),
    ],
)
def test_unusable_claim_of_a_volume_is_a_warning(
    cluster: FakeApiServer, policy: Path, change: Json, observed: str
) -> None:
    cluster.objects[CLAIM] |= change
    assert only(policy) == ("warning", "volumes", "runway-vision", observed)


def test_terminating_namespace_of_a_tenant_fails(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects[NAMESPACE]["metadata"]["deletionTimestamp"] = NOW
    observed = "Namespace runway-vision is being deleted"
    assert only(policy) == ("failed", "tenant objects", "runway-vision", observed)


def test_network_policy_of_another_policy_is_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    for manifest in render(LOADED):
        if manifest["kind"] == "NetworkPolicy" and "runway-vision" in path_of(manifest):
            cluster.objects[path_of(manifest)]["spec"]["egress"] = [{}]
    observed = "allow-egress-but-metadata differs from the policy"
    assert only(policy) == ("warning", "network policy", "runway-vision", observed)


def test_lease_namespace_that_does_not_exist_fails(cluster: FakeApiServer, policy: Path) -> None:
    assert only(policy, "--lease-namespace", "typo")[:3] == ("failed", "lease", "typo")
    cluster.objects["/api/v1/namespaces/default"] = {"metadata": {"name": "default"}}
    assert doctor(policy, "--lease-namespace", "default")[1] == []


def test_quota_in_another_notation_is_equal(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects[QUOTA]["spec"]["hard"] |= {"requests.cpu": "32000m", "requests.memory": str(128 << 30)}
    assert doctor(policy)[1] == []


def test_pool_without_nodes_is_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    del cluster.objects["/api/v1/nodes"]["items"][GPU_NODE]
    assert only(policy) == ("warning", "pools", "a10g", "no node matches: pool=a10g")


@pytest.mark.parametrize(
    ("index", "change", "expected"),
    [
        (CPU_NODE, {"cpu": "15"}, ("failed", "pools", "cpu/cpu-1", "cpu 15 (policy: 16)")),
        (CPU_NODE, {"memory": "60Gi"}, ("failed", "pools", "cpu/cpu-1", "memory 60Gi (policy: 64Gi)")),
        (CPU_NODE, {"memory": "much"}, ("failed", "pools", "cpu/cpu-1", "memory 0 (policy: 64Gi)")),
        (GPU_NODE, {"nvidia.com/gpu": "3"}, ("failed", "gpus", "a10g/gpu-1", "3 of 4 nvidia.com/gpu")),
    ],
)
def test_node_smaller_than_its_pool_fails(
    cluster: FakeApiServer, policy: Path, index: int, change: Json, expected: tuple[str, ...]
) -> None:
    cluster.objects["/api/v1/nodes"]["items"][index]["status"]["allocatable"] |= change
    found = only(policy)
    assert found[:3] == expected[:3]
    assert expected[3] in found[3]


def test_taint_that_the_pool_does_not_tolerate_fails(cluster: FakeApiServer, policy: Path) -> None:
    taint = {"key": "team", "value": "web", "effect": "NoSchedule"}
    cluster.objects["/api/v1/nodes"]["items"][CPU_NODE]["spec"]["taints"] = [taint]
    assert only(policy) == ("failed", "pools", "cpu/cpu-1", "not tolerated: team=web:NoSchedule")


def with_pools(policy: Path, **pools: Json) -> None:
    """Rewrite the policy with other pools, as JSON: the same value twice would be an alias in YAML."""
    policy.write_text(json.dumps(POLICY | {"pools": pools}))


@pytest.mark.usefixtures("cluster")
def test_node_counts_for_one_pool_and_only_its_size(policy: Path) -> None:
    """Both selectors match the node, and the second pool is larger than it."""
    large = POLICY["pools"]["cpu"] | {"cpu": "64", "memory": "256Gi"}
    with_pools(policy, **POLICY["pools"], large=large)
    observed = "no node of its own: nodes that match (pool=cpu) count for cpu"
    assert only(policy) == ("warning", "pools", "large", observed)


def test_tainted_nodes_do_not_fail_a_pool_without_a_selector(cluster: FakeApiServer, policy: Path) -> None:
    with_pools(policy, cpu=BASE["pools"]["cpu"], a10g=POLICY["pools"]["a10g"])
    control_plane = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    cluster.objects["/api/v1/nodes"]["items"].append(node("master-1", "none", {"cpu": "2"}, [control_plane]))
    assert doctor(policy)[1] == []


def test_pool_without_a_selector_gets_a_fix_that_can_help(cluster: FakeApiServer, policy: Path) -> None:
    """No node can match such a selector better: it names no label."""
    plain = BASE["pools"]["cpu"]
    with_pools(policy, cpu=plain, large=plain, a10g=POLICY["pools"]["a10g"])
    [second] = doctor(policy)[1]
    assert (second["subject"], second["observed"]) == (
        "large", "no node of its own: nodes that match (no selector) count for cpu",
    )  # fmt: skip
    assert "give pools.large.node_selector a label that only its nodes have" in second["fix"]
    cluster.objects["/api/v1/nodes"]["items"][CPU_NODE]["spec"]["taints"] = [TAINT | {"key": "team"}]
    for finding in doctor(policy)[1]:
        assert finding["observed"] == "no node without a taint that the pool does not tolerate"
        assert f"add the tolerations of the nodes to pools.{finding['subject']}.tolerations" in finding["fix"]


def test_more_nodes_than_the_maximum_of_the_pool_are_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    items = cluster.objects["/api/v1/nodes"]["items"]
    items.append(items[GPU_NODE] | {"metadata": items[GPU_NODE]["metadata"] | {"name": "gpu-2", "uid": "gpu-2"}})
    assert only(policy) == ("warning", "pools", "a10g", "2 nodes (max_nodes: 1)")


def test_gpu_nodes_without_a_taint_are_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects["/api/v1/nodes"]["items"][GPU_NODE]["spec"]["taints"] = []
    assert only(policy)[:3] == ("warning", "pools", "a10g")


@pytest.mark.parametrize("state", ["cordoned", "not ready"])
def test_unusable_node_is_a_warning(cluster: FakeApiServer, policy: Path, state: str) -> None:
    item = cluster.objects["/api/v1/nodes"]["items"][CPU_NODE]
    if state == "cordoned":
        item["spec"] |= {
            "unschedulable": True,
            "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
        }
    else:
        item["status"]["conditions"][0]["status"] = "Unknown"
    assert only(policy) == ("warning", "pools", "cpu/cpu-1", f"the node is {state}")


def test_gpus_in_no_pool_are_a_warning(cluster: FakeApiServer, policy: Path) -> None:
    stray = node("gpu-9", "h100", {"cpu": "48", "memory": "192Gi", "nvidia.com/gpu": "8"}, [])
    cluster.objects["/api/v1/nodes"]["items"].append(stray)
    status, check, _, observed = only(policy)
    assert (status, check) == ("warning", "gpus")
    assert "gpu-9" in observed


AWS_NODE = {"metadata": {"name": "aws-node"}}


def aws_node(argument: str) -> Json:
    container = {"name": "aws-eks-nodeagent", "args": [argument]}
    return AWS_NODE | {"spec": {"template": {"spec": {"containers": [{"name": "aws-node"}, container]}}}}


@pytest.mark.parametrize(
    ("daemon_sets", "status"),
    [
        ([], ["warning"]),
        ([{"metadata": {"name": "kube-flannel-ds"}}], ["warning"]),
        ([AWS_NODE], ["warning"]),
        ([aws_node("--enable-network-policy=false")], ["warning"]),
        ([aws_node("--enable-network-policy=true")], []),
        ([{"metadata": {"name": "cilium"}}], []),
    ],
)
def test_network_plugin_decides_whether_network_policies_are_enforced(
    cluster: FakeApiServer, policy: Path, daemon_sets: list[Json], status: list[str]
) -> None:
    cluster.objects[DAEMON_SETS] = {"items": daemon_sets}
    assert [finding["status"] for finding in doctor(policy)[1]] == status


def test_k3s_enforces_network_policies(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects[DAEMON_SETS] = {"items": []}
    cluster.version["gitVersion"] = "v1.35.4+k3s1"
    assert doctor(policy)[1] == []


@pytest.mark.usefixtures("cluster")
def test_missing_prometheus_url_is_a_warning(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNWAY_PROMETHEUS_URL")
    status, check, subject, observed = only(policy)
    assert (status, check, subject) == ("warning", "prometheus", "URL")
    assert observed.startswith("not checked"), "the chart may have one, which only the cluster resolves"


@pytest.mark.usefixtures("cluster")
def test_unreachable_prometheus_is_a_warning(policy: Path) -> None:
    status, check, _, observed = only(policy, "--prometheus-url", "http://127.0.0.1:1")
    assert (status, check) == ("warning", "prometheus")
    assert "no connection to Prometheus" in observed


@pytest.mark.parametrize(("series", "subject"), [(POD_SERIES[1], "cAdvisor"), (GPU_SERIES, "DCGM")])
def test_missing_series_is_a_warning(cluster: FakeApiServer, policy: Path, series: str, subject: str) -> None:
    cluster.series.remove(series)
    assert only(policy) == ("warning", "prometheus", subject, f"no series {series}")


def test_malformed_objects_do_not_stop_the_command(cluster: FakeApiServer, policy: Path) -> None:
    cluster.objects[NAMESPACE] = {"metadata": None}
    cluster.objects[QUOTA] = {"spec": {"hard": None}}
    cluster.objects[DAEMON_SETS] = {"items": None}
    assert {finding["check"] for finding in doctor(policy)[1]} == {
        "tenant objects", "pod security", "quota", "network policy",
    }  # fmt: skip


def test_apply_creates_namespaces_first_and_bindings_last(cluster: FakeApiServer, policy: Path) -> None:
    result = runway("tenants", "apply", "--policy", str(policy))
    assert result.exit_code == 0, result.stderr
    expected = render(LOADED)
    assert sorted(path for path, _ in cluster.applied) == sorted(path_of(manifest) for manifest in expected)
    kinds = [manifest["kind"] for _, manifest in cluster.applied]
    tenants = len(LOADED.tenants)
    assert set(kinds[:tenants]) == {"Namespace"}
    assert set(kinds[-tenants:]) == {"RoleBinding"}, "an operator without the verb bind can only bind existing roles"
    assert len(result.stdout.splitlines()) == len(expected)


def test_apply_as_a_dry_run_changes_nothing(cluster: FakeApiServer, policy: Path) -> None:
    before = dict(cluster.objects)
    result = runway("tenants", "apply", "--policy", str(policy), "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert all(line.endswith("accepted (dry run)") for line in result.stdout.splitlines())
    assert (cluster.applied, cluster.objects) == ([], before)


def test_dry_run_accepts_the_objects_of_a_namespace_that_does_not_exist_yet(
    cluster: FakeApiServer, policy: Path
) -> None:
    cluster.objects = {path: item for path, item in cluster.objects.items() if NAMESPACE not in path}
    cluster.missing = (f"{NAMESPACE}/",)
    options = ("tenants", "apply", "--policy", str(policy))
    assert runway(*options, "--dry-run").exit_code == 0
    assert "not found" in runway(*options).stderr


def test_apply_repairs_what_doctor_finds(cluster: FakeApiServer, policy: Path) -> None:
    del cluster.objects[QUOTA]
    cluster.objects[NAMESPACE]["metadata"]["labels"] = {"runway.internal/tenant": "other"}
    assert len(doctor(policy)[1]) == 3
    assert runway("tenants", "apply", "--policy", str(policy), "--tenant", "vision").exit_code == 0
    assert doctor(policy)[1] == []


def test_apply_names_each_object_that_failed_and_applies_the_others(cluster: FakeApiServer, policy: Path) -> None:
    cluster.forbidden = (QUOTA,)
    result = runway("tenants", "apply", "--policy", str(policy), "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    [failed] = [item for item in document["objects"] if not item["accepted"]]
    assert failed["object"] == "ResourceQuota runway-vision/runway-quota"
    assert "forbidden" in failed["reason"]
    assert len(cluster.applied) == len(document["objects"]) - 1


def test_apply_leaves_a_namespace_of_others_alone(cluster: FakeApiServer, policy: Path) -> None:
    taken = "/api/v1/namespaces/runway-vision"
    cluster.objects[taken] = {"metadata": {"name": "runway-vision", "labels": {"team": "web"}}}
    result = runway("tenants", "apply", "--policy", str(policy))
    assert result.exit_code == 1
    assert "exists without the label runway.internal/tenant" in " ".join(result.output.split())
    assert not any(path.startswith(taken) or "/runway-vision/" in path for path, _ in cluster.applied)
    assert any("/runway-speech/" in path for path, _ in cluster.applied)
    cluster.objects[taken]["metadata"]["labels"]["runway.internal/tenant"] = "vision"
    assert runway("tenants", "apply", "--policy", str(policy)).exit_code == 0


def test_apply_with_an_admission_policy_names_the_users_of_runway(cluster: FakeApiServer, policy: Path) -> None:
    options = ("--admission-policy", "--runway-user", "alice", "--runway-user", 'b"o')
    assert runway("tenants", "apply", "--policy", str(policy), *options).exit_code == 0
    kinds = [manifest["kind"] for _, manifest in cluster.applied]
    assert kinds.count("ValidatingAdmissionPolicy") == kinds.count("ValidatingAdmissionPolicyBinding") == 1
    [rule] = [manifest for _, manifest in cluster.applied if manifest["kind"] == "ValidatingAdmissionPolicy"]
    assert 'request.userInfo.username in ["alice", "b\\"o"]' in rule["spec"]["validations"][0]["expression"]


def test_runway_user_without_an_admission_policy_is_a_usage_error(policy: Path) -> None:
    assert runway("tenants", "render", "--policy", str(policy), "--runway-user", "alice").exit_code == 2


def test_every_rendered_kind_has_a_path() -> None:
    manifests = [*render(LOADED), *render_admission_policy()]
    assert {(manifest["apiVersion"], manifest["kind"]) for manifest in manifests} <= PATHS.keys()


class Failing:
    """A transport to an empty cluster, on which the calls of one path fail."""

    def __init__(self, path: str, error: Exception) -> None:
        self._path = path
        self._error = error

    async def request(self, _method: str, path: str, **_options: object) -> Response:
        if path.endswith(self._path):
            raise self._error
        if path.endswith("accessreviews"):
            return Response(201, b'{"status": {"allowed": true}}')
        return Response(200, b'{"major": "1", "minor": "35", "metadata": {}, "items": []}')


@pytest.mark.parametrize("error", [TooBusy("calls wait"), NotExecuted("no connection"), AmbiguousOutcome("timeout")])
@pytest.mark.parametrize(
    "path", ["/selfsubjectaccessreviews", "/runway", "/runway-quota", "/datasets", "/nodes", "/daemonsets"]
)
def test_outage_during_the_checks_is_reported_as_one(path: str, error: Exception) -> None:
    client = OperatorClient(cast("Transport", Failing(path, error)))
    question = Question(LOADED, None, "runway", as_runway=False)
    findings = asyncio.run(check_all(client, question, datetime.now(UTC)))
    [outage] = [each for each in findings if each.check == "version" and each.status == "failed"]
    assert (outage.observed, outage.fix) == (str(error), "repair the API server, and run the command again")
    assert not [each for each in findings if "credentials" in each.fix]
