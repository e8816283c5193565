"""`runway limits`, and the warning of `submit` when no node has room."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter
from rich.console import Console

from runway.cli.client import Client
from runway.cli.commands.submit import warn_of_wait
from runway.cli.context import Environment, Session
from runway.cli.output import Screen
from runway.jobs.models import JobView
from tests.support.cli import URL, FakeRunway, attempt, job, problem, reply, runway

MOST_FREE = "1 GPU (of 2), 11.9 CPU, 150Gi"
FREE = {"nodes": 2, "cpu": "11900m", "memory": "150Gi", "gpu": 1, "gpu_total": 2}
LIMITS = {
    "cpu": {"min": "100m", "max": "16"},
    "memory": {"min": "32Mi", "max": "128Gi"},
    "gpu": {"max": 4},
    "timeout_seconds": {"min": 1, "max": 86400, "default": 3600},
    "grace_period_seconds": {"max": 120, "default": 30},
    "retries": {"max": 3},
    "disk": {"min": "1Gi", "max": "500Gi", "default": "10Gi"},
    "user": {"min": 1, "max": 65535, "default": 1000},
    "ephemeral_storage": {"per_job": "10Gi"},
    "retention_seconds": 86400,
    "start_timeout_seconds": {"image": 300, "registry": 1800, "config": 600, "unschedulable": None},
    "secrets_in_env": "refuse",
}
POOL = {
    "instance_type": "g5.12xlarge",
    "gpu_type": "a10g",
    "spot": False,
    "max_nodes": 2,
    "per_gpu": {"cpu": "11", "memory": "41Gi"},
    "node": {"cpu": "48", "memory": "192Gi", "gpu": 4},
    "hourly_usd": "5.672",
    "hourly_usd_per": {"cpu": "0.033941", "memory_gib": "0.003771", "gpu": "0.829681"},
    "free": FREE,
}
RATE = {"per_minute": 600, "burst": 100, "reads": {"per_minute": 6000, "burst": 600}, "streams": 20}


def policy(**pool: Any) -> httpx2.Response:
    vision = {
        "namespace": "runway-vision",
        "quota": {"gpu": 4, "cpu": "32", "memory": "128Gi", "jobs": 100},
        "budget": None,
        "rate": RATE,
        "own": {
            "volumes": {"datasets": {"path": "/data", "read_only": True}},
            "secrets": ["huggingface\x1b[2J"],
            "images": {"allow": ["registry.example.com/vision/*"]},
        },
    }
    idle = {"below_percent": 5, "for_seconds": 3600, "action": "report"}
    limits: dict[str, Any] = {**LIMITS, "idle_gpu": idle}
    return reply(
        {
            "limits": limits,
            "images": {"allow": ["docker.io/library/*"]},
            "pools": {"a10g": POOL | pool},
            "capacity": [],
            "tenants": {"vision": vision},
        }
    )


def test_limits_shows_what_a_tenant_may_use() -> None:
    fake = FakeRunway([policy()])
    result = runway("limits", answers=fake)
    assert result.exit_code == 0
    assert fake.requests[0].headers["X-Tenant-ID"] == "vision"
    assert result.stdout.splitlines() == [
        "Limits of a job",
        "  FIELD                         MIN   MAX    DEFAULT",
        "  cpu                           100m  16",
        "  memory                        32Mi  128Gi",
        "  gpu                                 4",
        "  timeout                       1s    1d     1h",
        "  grace period                        2m     30s",
        "  retries                             3",
        "  disk                          1Gi   500Gi  10Gi",
        "  user                          1     65535  1000",
        "  retention                                  1d",
        "  start timeout: image                5m",
        "  start timeout: registry             30m",
        "  start timeout: config               10m",
        "  start timeout: unschedulable        none",
        "  credentials in env                         refuse",
        "  idle GPU                                   report below 5% for 1h",
        "Images",
        "  registry.example.com/vision/*",
        "Pools",
        "  POOL  GPU TYPE  A NODE                FREE NOW",
        "  a10g  a10g      4 GPU, 48 CPU, 192Gi  2 nodes: " + MOST_FREE,
        "Prices in USD an hour",
        "  POOL  A NODE    A CPU     A GiB   A GPU",
        "  a10g   5.672  0.03394  0.003771  0.8297",
        "Quota of vision",
        "  gpu 4, cpu 32, memory 128Gi, jobs 100; 600 submissions a minute, 100 at once",
        "Volumes",
        "  datasets at /data, read-only",
        "Secrets",
        "  huggingface\\x1b[2J",
    ]


def test_limits_without_a_limit_on_idle_gpus_says_none() -> None:
    old = {"limits": {"idle_gpu": None}, "images": {"allow": []}, "pools": {}, "tenants": {}}
    assert runway("limits", answers=[reply(old)]).stdout.splitlines()[2].split() == ["idle", "GPU", "none"]


def test_limits_without_a_tenant_shows_what_all_share() -> None:
    result = runway("limits", answers=[policy()], tenant=None)
    assert "docker.io/library/*" in result.stdout
    assert "Quota" not in result.stdout


@pytest.mark.parametrize(("free", "shown"), [(None, "unknown"), (FREE | {"nodes": 0}, "no ready node")])
def test_unknown_capacity_is_never_zero(free: dict[str, Any] | None, shown: str) -> None:
    assert runway("limits", answers=[policy(free=free)]).stdout.splitlines()[-10].endswith(shown)


def test_limits_of_an_older_server_shows_what_there_is() -> None:
    old = {"limits": {}, "images": {"allow": []}, "pools": {"cpu": {"hourly_usd": "0.768"}}, "tenants": {}}
    result = runway("limits", answers=[reply(old)])
    assert result.exit_code == 0
    assert "0.768" in result.stdout


@pytest.mark.parametrize("wrong", [{"limits": []}, {"pools": {"cpu": 3}}, {"tenants": {"vision": []}}])
@pytest.mark.parametrize("command", ["limits", "policy diff config/policy.local.yaml"])
def test_answer_that_is_no_policy_is_an_outage(command: str, wrong: dict[str, Any]) -> None:
    document = {"limits": {}, "images": {"allow": 5}, "pools": {}, "tenants": {}} | wrong
    assert runway(*command.split(), answers=[reply(document)]).exit_code == 69


def test_limits_as_data_is_the_policy() -> None:
    assert json.loads(runway("limits", "-o", "json", answers=[policy()]).stdout)["pools"]["a10g"]["free"] == FREE
    assert runway("limits", "-o", "name", answers=[policy()]).stdout == "a10g\n"


def test_dry_run_shows_the_warning() -> None:
    amounts = {"gpu": 0, "cpu": "0", "memory": "0", "jobs": 0}
    plan = {
        "decision": "admitted",
        "violations": [],
        "cost": None,
        "quota": {"limit": amounts, "used": amounts, "reserved": amounts},
        "manifest": {},
        "warnings": ["no node of pool a10g has 1 GPU free now: the job would wait"],
    }
    result = runway("submit", "--dry-run", "--image", "x", answers=[reply(plan)])
    assert "warning: no node of pool a10g has 1 GPU free now" in result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("answer", "warned"),
    [
        (policy(), False),
        (policy(free=FREE | {"gpu": 0}), True),
        (policy(free=FREE | {"cpu": "3900m"}), True),
        (policy(free=FREE | {"memory": "15Gi"}), True),
        (policy(free=None), False),
        (problem(503, "not_ready"), False),
        (reply({"pools": {}}), False),
    ],
    ids=["room", "no GPU", "no CPU", "no memory", "unknown", "outage", "foreign"],
)
def test_new_job_without_room_is_announced(answer: httpx2.Response, warned: bool) -> None:
    screen, output = Screen(), io.StringIO()
    screen.stderr = Console(file=output)
    view = TypeAdapter(JobView).validate_python(job())
    fake = FakeRunway([answer, reply(job())])
    with Client(URL, "vision", httpx2.MockTransport(fake)) as client:
        warn_of_wait(Session(client, screen, Environment()), view)
    assert ("No node has room for it now" in output.getvalue()) is warned


def test_submit_in_a_pipe_announces_it_too_but_not_with_names_alone() -> None:
    full = policy(free=FREE | {"gpu": 0})
    result = runway("submit", "--image", "x", answers=[reply(job(), 201), full, reply(job())])
    assert "No node has room for it now" in result.stderr
    bound = job(attempts=[attempt("waiting")])
    assert runway("submit", "--image", "x", answers=[reply(job(), 201), full, reply(bound)]).stderr == ""
    fake = FakeRunway([reply(job(), 201)])
    assert runway("submit", "--image", "x", "-o", "name", answers=fake).exit_code == 0
    assert fake.paths == ["POST /v1/jobs"]
