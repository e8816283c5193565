"""`runway policy check` and `policy diff`, `runway tenants render`, and required packages."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from rich.console import Console
from typer.testing import Result

from runway.api.policy import policy_view
from runway.cli.output import Screen
from runway.cli.views.policy_views import show_policy
from runway.policy import load_policy, parse_policy, policy_hash
from tests.support.builders import policy_text
from tests.support.cli import FakeRunway, runway

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


def check(*arguments: str) -> Result:
    """Run `policy check` without a server to compare with."""
    return runway("policy", "check", *arguments, variables={"RUNWAY_URL": None})


def test_check_shows_limits_pools_and_tenants(policy: Path) -> None:
    result = check(str(policy))
    assert result.exit_code == 0
    *lines, last = result.stdout.splitlines()
    assert re.fullmatch(rf"OK {policy}: 2 tenants \(vision, speech\), 2 pools, hash [0-9a-f]{{12}}", last)
    assert lines == [
        "Limits of a job",
        "  FIELD               MIN   MAX    DEFAULT",
        "  cpu                 100m  16",
        "  memory              32Mi  128Gi",
        "  gpu                 0     4      0",
        "  timeout             1s    1d     1h",
        "  grace period              2m     30s",
        "  retries             0     3      0",
        "  disk                1Gi   10Gi   10Gi",
        "  user                1     65535  1000",
        "  retention                        1d",
        "  credentials in env               refuse",
        "  idle GPU                         none",
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
        "  cpu       32500m  unknown without max_nodes",
        "  memory    192Gi   unknown without max_nodes",
    ]
    assert result.stderr == "warning: the quotas promise 6 gpu a10g, and the pools hold 4\n"


@pytest.mark.parametrize("name", ["local", "eks.example"])
def test_shipped_policies_fit_80_columns(name: str) -> None:
    screen, output = Screen(), io.StringIO()
    screen.stdout = Console(file=output, force_terminal=True, color_system=None, width=80)
    show_policy(screen, load_policy(Path(__file__).parents[3] / "config" / f"policy.{name}.yaml"))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["INSTANCE", "g5.12xlarge"] for line in lines)
    assert any("idle GPU " in line and line.endswith("report below 5% for 1h") for line in lines)


def test_check_shows_the_link_to_stored_logs(tmp_path: Path) -> None:
    file, template = tmp_path / "policy.yaml", "https://logs.example.com/?job={job}"
    file.write_text(json.dumps(POLICY | {"logs": {"url_template": template}}))
    result = check(str(file))
    assert result.exit_code == 0
    assert f"  {template}" in result.stdout.splitlines()


def test_check_shows_start_deadlines_by_cause(policy: Path) -> None:
    text = policy.read_text()
    assert "limits:\n" in text
    policy.write_text(text.replace("limits:\n", "limits:\n  start_timeout_seconds: {image: 300, registry: 1800}\n"))
    shown = check(str(policy)).stdout
    rows = [line.split() for line in shown.splitlines() if "start timeout" in line]
    assert rows == [["start", "timeout:", "image", "5m"], ["start", "timeout:", "registry", "30m"]]


def test_check_shows_volumes_with_their_claims(policy: Path) -> None:
    own = "  vision:\n    volumes: {datasets: {claim: datasets-v2, path: /data, read_only: true}}\n"
    policy.write_text(policy.read_text().replace("  vision:\n", own))
    shown = check(str(policy)).stdout
    assert "vision  datasets  datasets-v2  /data  yes" in shown
    document = json.loads(check(str(policy), "-o", "json").stdout)
    assert parse_policy(yaml.safe_dump(document["policy"])) == parse_policy(policy.read_text())


def test_check_shows_optional_limits_of_tenants(policy: Path) -> None:
    document = yaml.safe_load(policy.read_text())
    document["tenants"]["speech"]["quota"] |= {"disk": "2Ti", "gpu_types": {"a10g": 1}, "usd_per_hour": "2.50"}
    document["tenants"]["vision"]["budget"] = {"usd": "300", "hours": 24}
    policy.write_text(yaml.safe_dump(document, sort_keys=False))
    lines = check(str(policy)).stdout.splitlines()
    head, *rows = lines[lines.index("Tenants") + 1 :][:3]
    start = head.index("GPU TYPES")
    assert [line[start:] for line in (head, *rows)] == [
        "GPU TYPES  DISK  USD AN HOUR  BUDGET",
        "                              300.00 USD in 24 h",
        "1 a10g     2Ti   2.50",
    ]


def test_check_as_data_round_trips(policy: Path) -> None:
    document = json.loads(check(str(policy), "-o", "json").stdout)
    assert document["valid"] is True
    assert parse_policy(yaml.safe_dump(document["policy"])) == parse_policy(policy.read_text())


def test_check_shows_the_disk_limit_of_a_policy_of_version_0_7_as_disk(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(POLICY | {"limits": POLICY["limits"] | {"ephemeral_storage": {"per_job": "2Gi"}}}))
    document = json.loads(check(str(path), "-o", "json").stdout)
    assert document["policy"]["limits"]["disk"] == {"min": "1Gi", "max": "2Gi", "default": "2Gi"}
    assert parse_policy(yaml.safe_dump(document["policy"])) == parse_policy(path.read_text())


def test_check_shows_every_fault_with_line_value_and_hint(tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text(policy_text(("quota: {gpu: 2,", "quota: {gpus: 2, gpu: two,"), ("max: 86400", "max: 0100")))
    result = check(str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"Error: {file} is not a valid policy: 3 errors",
        "  line 6: limits.timeout_seconds.max  observed 0100",
        "      must be a whole number",
        "      hint: write it in decimal digits, without quotes",
        "  line 22: tenants.speech.quota.gpu   observed two",
        "      must be a whole number",
        "      hint: write it in decimal digits, without quotes",
        "  line 22: tenants.speech.quota.gpus",
        "      is not a field of a quota",
        "      hint: did you mean gpu? fields here: gpu, gpu_types, cpu, memory, disk, jobs, usd_per_hour",
    ]


def test_check_hides_values_that_may_be_secret(tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    link = "https://me:s3cr3t@logs.example.com"  # pragma: allowlist secret
    file.write_text(
        policy_text(
            ("    rate: {per_minute: 6,", "    secrets: [hf_Secret]\n    password: s3cr3t\n    rate: {per_minute: 6,"),
            ("images:\n", f"logs: {{url_template: '{link}'}}\nimages:\n"),
        )
    )
    result = check(str(file))
    assert result.stderr.splitlines()[0].endswith("3 errors")
    assert "hf_Secret" not in result.stderr
    assert "s3cr3t" not in result.stderr


def test_check_gives_faults_as_data(faulty: Path) -> None:
    result = check(str(faulty), "-o", "json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["valid"] is False
    assert [(fault["field"], fault["line"]) for fault in document["faults"]] == [("images.allow", 21), ("surprise", 60)]


def test_check_names_a_missing_file(tmp_path: Path) -> None:
    result = check(str(tmp_path / "absent.yaml"))
    assert result.exit_code == 1
    assert "absent.yaml\n      cannot be read: No such file" in result.stderr


def test_check_without_a_file_takes_the_one_of_the_server(policy: Path) -> None:
    result = runway("policy", "check", variables={"RUNWAY_URL": None, "RUNWAY_POLICY": str(policy)})
    assert f"OK {policy}" in result.stdout
    without = check()
    assert without.exit_code == 2
    assert "Missing argument 'FILE'" in without.stderr


def test_check_refuses_a_file_that_every_user_can_write(policy: Path) -> None:
    policy.chmod(0o666)
    result = check(str(policy))
    assert result.exit_code == 1
    assert "can be written by every user: run chmod o-w on it" in result.stderr


def served(document: dict[str, Any], *, jobs: int = 0, gpu: int = 0) -> FakeRunway:
    """Serve this policy, with the usage of tenant vision."""
    in_force = parse_policy(yaml.safe_dump(document, sort_keys=False))
    body = json.loads(json.dumps({"hash": policy_hash(in_force), **policy_view(in_force, None)}))
    quotas = [
        tenant_quota(name, used={"gpu": gpu, "jobs": jobs} if name == "vision" else {}) for name in document["tenants"]
    ]
    return FakeRunway([httpx2.Response(200, json=body), httpx2.Response(200, json={"tenants": quotas})])


def tenant_quota(name: str, *, used: dict[str, object]) -> dict[str, object]:
    nothing = {"gpu": 0, "cpu": "0", "memory": "0", "jobs": 0}
    return {
        "tenant": name,
        "namespace": f"runway-{name}",
        "limit": nothing,
        "used": nothing | used,
        "reserved": nothing,
        "held_by_terminating": nothing,
        "jobs": [],
    }


def test_diff_of_the_policy_in_force_is_empty(policy: Path) -> None:
    policy.write_text(policy.read_text() + "# a comment\n")
    result = runway("policy", "diff", str(policy), answers=served(POLICY))
    assert (result.exit_code, result.stdout) == (0, "Changes of the policy in force\n  none\n")


def test_diff_shows_each_change_and_the_affected_jobs(tmp_path: Path) -> None:
    changed = copy.deepcopy(POLICY)
    changed["limits"]["cpu"]["max"] = "8"
    changed["images"]["allow"] = ["runway.local/*", "ghcr.io/acme/*"]
    changed["tenants"]["vision"]["quota"] |= {"gpu": 2, "memory": "256Gi", "disk": "1Ti"}
    changed["tenants"]["robotics"] = changed["tenants"].pop("speech") | {"namespace": "runway-robotics"}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(changed, sort_keys=False))
    effect = (
        "vision has 3 unfinished jobs and uses 4, above the new quota.gpu 2: they continue, and Runway admits none "
        "that needs more until enough is free"
    )
    result = runway("policy", "diff", str(file), answers=served(POLICY, jobs=3, gpu=4))
    assert result.exit_code == 3
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "Changes of the policy in force",
        "FIELD IN FORCE FILE CHANGE",
        "tenants.robotics present added",
        "tenants.speech present removed",
        "limits.cpu.max 16 8 down",
        "images.allow[ghcr.io/acme/*] present added",
        "tenants.vision.quota.gpu 4 2 down",
        "tenants.vision.quota.memory 128Gi 256Gi up",
        "tenants.vision.quota.disk 1Ti added",
        "Unfinished jobs",
        effect,
    ]


def test_diff_names_the_jobs_of_a_tenant_that_goes(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(POLICY | {"tenants": {"speech": POLICY["tenants"]["speech"]}}, sort_keys=False))
    result = runway("policy", "diff", str(file), "-o", "json", answers=served(POLICY, jobs=1))
    document = json.loads(result.stdout)
    assert [(each["field"], each["kind"]) for each in document["changes"]] == [("tenants.vision", "removed")]
    assert document["effects"] == [
        "vision has 1 unfinished job in runway-vision: Runway would no longer show, count or cancel it"
    ]


def test_diff_warns_of_limits_that_end_jobs_already_accepted(tmp_path: Path) -> None:
    changed = copy.deepcopy(POLICY)
    changed["limits"]["start_timeout_seconds"] = {"image": 60}
    changed["limits"]["idle_gpu"] = {"below_percent": 5, "for_seconds": 600, "action": "cancel"}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(changed, sort_keys=False))
    result = runway("policy", "diff", str(file), "-o", "json", answers=served(POLICY, jobs=3))
    (effect,) = json.loads(result.stdout)["effects"]
    assert effect == (
        "limits.start_timeout_seconds and limits.idle_gpu: the new values also apply to all 3 unfinished jobs, which "
        "Runway can end by them"
    )
    assert json.loads(runway("policy", "diff", str(file), "-o", "json", answers=served(POLICY)).stdout)["effects"] == []


def test_diff_tells_another_order_of_pools_and_no_other_form_of_a_price(tmp_path: Path) -> None:
    changed = copy.deepcopy(POLICY)
    changed["pools"] = dict(reversed(changed["pools"].items()))
    changed["pools"]["cpu"]["hourly_usd"] += "00"
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(changed, sort_keys=False))
    result = runway("policy", "diff", str(file), "-o", "json", answers=served(POLICY))
    assert [each["field"] for each in json.loads(result.stdout)["changes"]] == ["order of pools"]


def test_diff_tells_a_change_that_the_server_does_not_send(tmp_path: Path) -> None:
    changed = copy.deepcopy(POLICY)
    changed["pools"]["a10g"]["node_selector"] = {"pool": "a10g"}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(changed, sort_keys=False))
    result = runway("policy", "diff", str(file), answers=served(POLICY))
    assert result.exit_code == 3
    assert "only in what Runway does not send: node selectors" in result.stdout


def test_diff_with_a_server_of_version_0_7_compares_what_it_sends(policy: Path) -> None:
    body = policy_view(parse_policy(policy.read_text()), None)
    answers = FakeRunway([httpx2.Response(200, json=body), httpx2.Response(200, json={"tenants": []})])
    assert runway("policy", "diff", str(policy), answers=answers).exit_code == 0
    policy.write_text(policy.read_text().replace("jobs: 100", "jobs: 90"))
    answers = FakeRunway([httpx2.Response(200, json=body), httpx2.Response(200, json={"tenants": []})])
    result = runway("policy", "diff", str(policy), answers=answers)
    assert result.exit_code == 3
    assert "tenants.vision.quota.jobs  100       90    down" in result.stdout


def test_diff_without_a_server_is_an_outage(policy: Path) -> None:
    answers = FakeRunway([httpx2.ConnectError("refused")])
    assert runway("policy", "diff", str(policy), answers=answers).exit_code == 69


def test_check_shows_what_changes_and_is_ok_without_a_server(policy: Path) -> None:
    changed = copy.deepcopy(POLICY)
    changed["tenants"]["vision"]["quota"]["gpu"] = 1
    result = runway("policy", "check", str(policy), answers=served(changed))
    assert result.exit_code == 0
    assert "  tenants.vision.quota.gpu  1         4     up" in result.stdout.splitlines()
    down = runway("policy", "check", str(policy), answers=FakeRunway([httpx2.ConnectError("refused")]))
    assert down.exit_code == 0
    assert down.stderr.splitlines()[0].startswith("warning: not compared with the policy in force")
    assert down.stdout.splitlines()[-1].startswith("OK ")


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
    assert "images.allow " in result.stderr


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_serve_rejects_an_invalid_port(port: str) -> None:
    assert runway("serve", "--port", port).exit_code == 2


def test_help_lists_every_command_and_exit_code() -> None:
    text = runway("--help").stdout
    commands = ["submit", "run", "ls", "status", "logs", "wait", "cancel", "quota", "policy", "tenants", "serve"]
    assert [name for name in commands if f"\n  {name} " not in text] == []
    assert [code for code in ("0", "1", "2", "69", "75", "77", "124", "125", "130") if f" {code}  " not in text] == []
