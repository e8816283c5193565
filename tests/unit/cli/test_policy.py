"""`runway policy check`, `runway tenants render`, and required packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runway.policy import parse_policy
from tests.support.cli import runway

POLICY: dict[str, Any] = {
    "version": 1,
    "limits": {
        "cpu": {"min": "100m", "max": "16"},
        "memory": {"min": "32Mi", "max": "128Gi"},
        "gpu": {"max": 4},
        "timeout_seconds": {"min": 1, "max": 86400, "default": 3600},
        "grace_period_seconds": {"max": 120, "default": 30},
        "retries": {"max": 3},
    },
    "images": {"allow": ["runway.local/*"]},
    "pools": {
        "cpu": {"instance_type": "m6i.4xlarge", "hourly_usd": "0.768", "cpu": "16", "memory": "64Gi"},
        "a10g": {
            "instance_type": "g5.12xlarge",
            "hourly_usd": "5.672",
            "cpu": "48",
            "memory": "192Gi",
            "gpu": 4,
            "gpu_type": "a10g",
            "max_nodes": 1,
            "per_gpu": {"cpu": "12", "memory": "48Gi"},
        },
    },
    "tenants": {
        "vision": {
            "namespace": "runway-vision",
            "quota": {"gpu": 4, "cpu": "32", "memory": "128Gi", "jobs": 100},
            "rate": {"per_minute": 600, "burst": 100},
        },
        "speech": {
            "namespace": "runway-speech",
            "quota": {"gpu": 2, "cpu": "500m", "memory": "64Gi", "jobs": 50},
            "rate": {"per_minute": 6, "burst": 5},
        },
    },
}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(POLICY, sort_keys=False))
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(POLICY | {"images": {"allow": []}, "surprise": 1}, sort_keys=False))
    return path


def test_check_shows_limits_pools_and_tenants(policy: Path) -> None:
    result = runway("policy", "check", str(policy))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Limits of a job",
        "  FIELD         MIN   MAX    DEFAULT",
        "  cpu           100m  16",
        "  memory        32Mi  128Gi",
        "  gpu           0     4      0",
        "  timeout       1s    1d     1h",
        "  grace period        2m     30s",
        "  retries       0     3      0",
        "  disk          1Gi   10Gi   10Gi",
        "  user          1     65535  1000",
        "  retention                  1d",
        "Allowed images",
        "  runway.local/*",
        "Pools",
        "  POOL  INSTANCE     USD AN HOUR  CPU  MEMORY  GPU  GPU TYPE  MAX NODES  SPOT  FOR EACH GPU",
        "  cpu   m6i.4xlarge  0.768        16   64Gi    0                         no",
        "  a10g  g5.12xlarge  5.672        48   192Gi   4    a10g      1          no    12 CPU, 48Gi",
        "Tenants",
        "  TENANT  NAMESPACE      GPU  CPU   MEMORY  JOBS  SUBMITS A MINUTE  BURST",
        "  vision  runway-vision  4    32    128Gi   100   600               100",
        "  speech  runway-speech  2    500m  64Gi    50    6                 5",
        "Quotas against pools",
        "  RESOURCE  QUOTAS  POOLS",
        "  gpu a10g  6       4",
        "  cpu       32500m  unknown",
        "  memory    192Gi   unknown",
    ]
    assert result.stderr == "warning: the quotas promise 6 gpu a10g, and the pools hold 4\n"


def test_check_shows_the_link_to_stored_logs(tmp_path: Path) -> None:
    file, template = tmp_path / "policy.yaml", "https://logs.example.com/?job={job}"
    file.write_text(json.dumps(POLICY | {"logs": {"url_template": template}}))
    result = runway("policy", "check", str(file))
    assert result.exit_code == 0
    assert f"  {template}" in result.stdout.splitlines()


def test_check_shows_start_deadlines_by_cause(policy: Path) -> None:
    text = policy.read_text()
    assert "limits:\n" in text
    policy.write_text(text.replace("limits:\n", "limits:\n  start_timeout_seconds: {image: 300, registry: 1800}\n"))
    shown = runway("policy", "check", str(policy)).stdout
    rows = [line.split() for line in shown.splitlines() if "start timeout" in line]
    assert rows == [["start", "timeout:", "image", "5m"], ["start", "timeout:", "registry", "30m"]]


def test_check_shows_volumes_with_their_claims(policy: Path) -> None:
    own = "  vision:\n    volumes: {datasets: {claim: datasets-v2, path: /data, read_only: true}}\n"
    policy.write_text(policy.read_text().replace("  vision:\n", own))
    shown = runway("policy", "check", str(policy)).stdout
    assert "vision  datasets  datasets-v2  /data  yes" in shown
    document = json.loads(runway("policy", "check", str(policy), "-o", "json").stdout)
    assert parse_policy(yaml.safe_dump(document["policy"])) == parse_policy(policy.read_text())


def test_check_shows_optional_limits_of_tenants(policy: Path) -> None:
    document = yaml.safe_load(policy.read_text())
    document["tenants"]["speech"]["quota"] |= {"disk": "2Ti", "gpu_types": {"a10g": 1}, "usd_per_hour": "2.50"}
    document["tenants"]["vision"]["budget"] = {"usd": "300", "hours": 24}
    policy.write_text(yaml.safe_dump(document, sort_keys=False))
    lines = runway("policy", "check", str(policy)).stdout.splitlines()
    head, *rows = lines[lines.index("Tenants") + 1 :][:3]
    start = head.index("GPU TYPES")
    assert [line[start:] for line in (head, *rows)] == [
        "GPU TYPES  DISK  USD AN HOUR  BUDGET",
        "                              300 USD in 24 h",
        "1 a10g     2Ti   2.5",
    ]


def test_check_as_data_round_trips(policy: Path) -> None:
    document = json.loads(runway("policy", "check", str(policy), "-o", "json").stdout)
    assert document["valid"] is True
    assert parse_policy(yaml.safe_dump(document["policy"])) == parse_policy(policy.read_text())


def test_check_shows_the_disk_limit_of_a_policy_of_version_0_7_as_disk(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(POLICY | {"limits": POLICY["limits"] | {"ephemeral_storage": {"per_job": "2Gi"}}}))
    document = json.loads(runway("policy", "check", str(path), "-o", "json").stdout)
    assert document["policy"]["limits"]["disk"] == {"min": "1Gi", "max": "2Gi", "default": "2Gi"}
    assert parse_policy(yaml.safe_dump(document["policy"])) == parse_policy(path.read_text())


def test_check_shows_each_fault_on_a_line(faulty: Path) -> None:
    result = runway("policy", "check", str(faulty))
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["images.allow", "surprise"]


def test_check_gives_faults_as_data(faulty: Path) -> None:
    result = runway("policy", "check", str(faulty), "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["valid"] is False
    assert [fault["field"] for fault in document["faults"]] == ["images.allow", "surprise"]


def test_check_names_a_missing_file(tmp_path: Path) -> None:
    result = runway("policy", "check", str(tmp_path / "absent.yaml"))
    assert result.exit_code == 1
    assert "absent.yaml: cannot be read: No such file" in result.stderr


def test_render_prints_a_yaml_stream_for_kubectl(policy: Path) -> None:
    result = runway("tenants", "render", "--policy", str(policy))
    assert result.exit_code == 0
    objects = list(yaml.safe_load_all(result.stdout))
    assert all({"apiVersion", "kind", "metadata"} <= item.keys() for item in objects)
    namespaces = [item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"]
    assert namespaces == ["runway-vision", "runway-speech"]
    assert "&" not in result.stdout, "no anchors"
    assert "*" not in result.stdout, "no aliases"


def test_render_as_json_is_one_list_of_the_same_objects(policy: Path) -> None:
    stream = list(yaml.safe_load_all(runway("tenants", "render", "--policy", str(policy)).stdout))
    document = json.loads(runway("tenants", "render", "--policy", str(policy), "-o", "json").stdout)
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    assert document["items"] == stream


def test_render_of_one_tenant_leaves_out_the_others(policy: Path) -> None:
    result = runway("tenants", "render", "--policy", str(policy), "--tenant", "speech")
    objects = list(yaml.safe_load_all(result.stdout))
    assert objects
    assert "vision" not in result.stdout


def test_render_ignores_tenant_variable(policy: Path) -> None:
    whole = runway("tenants", "render", "--policy", str(policy), tenant=None)
    assert runway("tenants", "render", "--policy", str(policy), tenant="speech").stdout == whole.stdout


def test_render_rejects_an_unknown_tenant(policy: Path) -> None:
    result = runway("tenants", "render", "--policy", str(policy), "--tenant", "nobody")
    assert result.exit_code == 2
    assert "vision, speech" in result.stderr


def test_render_without_policy_is_a_usage_error() -> None:
    result = runway("tenants", "render")
    assert result.exit_code == 2
    assert "--policy" in result.stderr


def test_render_of_an_invalid_policy_prints_nothing(faulty: Path) -> None:
    result = runway("tenants", "render", "--policy", str(faulty))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "images.allow: " in result.stderr


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_serve_rejects_an_invalid_port(port: str) -> None:
    assert runway("serve", "--port", port).exit_code == 2


def test_help_lists_every_command_and_exit_code() -> None:
    text = runway("--help").stdout
    commands = ["submit", "run", "ls", "status", "logs", "wait", "cancel", "quota", "policy", "tenants", "serve"]
    assert [name for name in commands if f"\n  {name} " not in text] == []
    assert [code for code in ("0", "1", "2", "69", "75", "77", "124", "125", "130") if f" {code}  " not in text] == []
