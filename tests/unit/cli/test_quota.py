"""`runway quota` and `runway top`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.client import Client
from runway.cli.commands.top import USAGE_REQUESTS, USAGE_REQUESTS_ONCE, Poller
from runway.cli.context import Environment, Session
from runway.cli.output import Screen
from runway.cli.views.tables import ResourceUsage, bar, legend
from tests.support.cli import URL, FakeRunway, attempt, job, problem, reply, runway


def amounts(gpu: int, cpu: str, memory: str, jobs: int) -> dict[str, Any]:
    return {"gpu": gpu, "cpu": cpu, "memory": memory, "jobs": jobs}


QUOTA: dict[str, Any] = {
    "tenants": [
        {
            "tenant": "vision",
            "namespace": "runway-vision",
            "limit": amounts(4, "32", "128Gi", 100),
            "used": amounts(2, "8", "32Gi", 2),
            "reserved": amounts(1, "500m", "64Mi", 1),
            "held_by_terminating": amounts(1, "4", "16Gi", 1),
            "jobs": [
                {
                    "id": "rw-1",
                    "state": "running",
                    "gpu": 1,
                    "cpu": "4",
                    "memory": "16Gi",
                    "terminating": False,
                    "disk": "50Gi",
                    "name": "train",
                },
                {"id": "rw-2", "state": None, "gpu": 1, "cpu": "4", "memory": "16Gi", "terminating": True},
            ],
        }
    ]
}


def test_quota_shows_limit_usage_and_jobs() -> None:
    result = runway("quota", answers=[reply(QUOTA)])
    assert result.stdout.splitlines() == [
        "vision (namespace runway-vision)",
        "  RESOURCE                        LIMIT  USED  RESERVED  TERMINATING",
        "  gpu       █████▓▓▓▓▓▒▒▒▒▒░░░░░      4     2         1            1",
        "  cpu       ██▓▓▒░░░░░░░░░░░░░░░     32     8       0.5            4",
        "  memory    ██▓▓▒░░░░░░░░░░░░░░░  128Gi  32Gi      64Mi         16Gi",
        "  jobs      █▓▒░░░░░░░░░░░░░░░░░    100     2         1            1",
        "  used by",
        "  JOB   NAME   STATE    GPU  CPU  MEMORY  DISK",
        "  rw-1  train  running    1    4    16Gi  50Gi",
        "  rw-2         deleted    1    4    16Gi        terminating",
        "",
        "█ used   ▓ used, terminating   ▒ reserved   ░ free",
    ]


def test_quota_marks_a_pod_that_outlives_its_job() -> None:
    (tenant,) = QUOTA["tenants"]
    orphan = {"id": "rw-3", "state": None, "gpu": 2, "cpu": "4", "memory": "16Gi", "terminating": False}
    page = {"tenants": [tenant | {"jobs": [orphan | {"orphaned": True}]}]}
    lines = runway("quota", answers=[reply(page)]).stdout.splitlines()
    assert "  rw-3        deleted    2    4    16Gi        orphaned" in lines


def test_quota_shows_gpu_types_hourly_price_and_budget_if_they_are_limited() -> None:
    (tenant,) = QUOTA["tenants"]
    more = {
        "limit": {"gpu_types": {"a10g": 2}, "usd_per_hour": "20"},
        "used": {"gpu_types": {"a10g": 1, "l4": 1}, "usd_per_hour": "5.25"},
        "reserved": {"gpu_types": {}, "usd_per_hour": "0"},
        "held_by_terminating": {"gpu_types": {}, "usd_per_hour": "0"},
    }
    budget = {"usd": "300", "hours": 24, "spent": "12.5", "committed": "40", "reserved": "0", "free": "247.5"}
    limited = tenant | {name: tenant[name] | amounts for name, amounts in more.items()} | {"budget": budget}
    lines = runway("quota", answers=[reply({"tenants": [limited]})]).stdout.splitlines()
    assert "  usd_per_hour    █████░░░░░░░░░░░░░░░  20.00  5.25      0.00         0.00" in lines
    assert "  gpu_types.a10g  ██████████░░░░░░░░░░      2     1         0            0" in lines
    assert "  budget of 300.00 USD in 24 h: 12.50 spent, 40.00 committed, 0.00 reserved, 247.50 free" in lines


def test_quota_shows_disk_if_it_is_limited() -> None:
    (tenant,) = QUOTA["tenants"]
    disk = {"limit": "2Ti", "used": "512Gi", "reserved": "0", "held_by_terminating": "0"}
    limited = tenant | {name: tenant[name] | {"disk": amount} for name, amount in disk.items()}
    result = runway("quota", answers=[reply({"tenants": [limited]})])
    assert "  disk      █████░░░░░░░░░░░░░░░    2Ti  512Gi         0            0" in result.stdout.splitlines()


def test_quota_as_data_and_names() -> None:
    assert json.loads(runway("quota", "-o", "json", answers=[reply(QUOTA)]).stdout) == QUOTA
    assert runway("quota", "-o", "name", answers=[reply(QUOTA)]).stdout == "vision\n"


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 100), st.integers(8, 40))
def test_bar_has_its_width_and_a_cell_for_each_part(
    used: int, ending: int, reserved: int, limit: int, width: int
) -> None:
    cells = bar(ResourceUsage(used + ending, ending, reserved, limit), width, "utf-8").plain
    assert len(cells) == width
    assert [letter in cells for letter in "█▓▒"] == [part > 0 for part in (used, ending, reserved)]
    assert ("░" in cells) is (used + ending + reserved < limit or used + ending + reserved == 0)


def test_terminal_without_unicode_gets_ascii_bars() -> None:
    assert bar(ResourceUsage(2, 1, 1, 4), 8, "ascii").plain == "##%%++.."
    assert legend("ascii").plain.isascii()


# top

BUSY = {
    "cpu_cores": 0.4986,
    "cpu_limit_cores": 0.5,
    "memory_bytes": 61 << 20,
    "memory_peak_bytes": 62 << 20,
    "memory_limit_bytes": 64 << 20,
    "throttled_ratio": 0.97,
    "gpu_utilisation": 0.5,
}
WAITING = job("pending", id="rw-2", conditions=[{"code": "unschedulable", "message": "no node", "since": None}])


def page(*views: dict[str, Any]) -> httpx2.Response:
    return reply({"jobs": list(views), "next_cursor": None})


def test_top_shows_quota_and_usage_of_jobs() -> None:
    running = job("running", attempts=[attempt()])
    fake = FakeRunway([reply(QUOTA), page(WAITING, running), reply(BUSY)])
    result = runway("top", "--once", answers=fake)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Runway at http://runway.test, tenant vision, 08:10:00 UTC",
        "TENANT  GPU           CPU              MEMORY               JOBS",
        "vision  ██▓▓▒▒░░ 3/4  █▓▒░░░░░ 8.5/32  █▓▒░░░░░ 32Gi/128Gi  █▓▒░░░░░ 3/100",
        "",
        "JOB      NAME   STATE    AGE       CPU  THROTTLED     MEMORY    GPU     USD  WHY",
        "rw-4f2a  train  running  10m  0.50/0.5        97%  61Mi/64Mi  1 50%  0.2245",
        "rw-2     train  pending  10m                                           0.00  unschedulable",
    ]
    assert fake.requests[1].url.params.get_list("state") == ["running", "cancelling", "pending"]
    assert [path for path in fake.paths if "usage" in path] == ["GET /v1/jobs/rw-4f2a/usage"]


def test_top_shows_unknown_figures_as_unknown() -> None:
    nothing = dict.fromkeys(BUSY)
    views = [job("running", id=f"rw-{number}") for number in range(3)]
    idle = nothing | {"cpu_cores": 0.0}
    answers = [reply(QUOTA), page(*views), reply(nothing), problem(503, "not_ready"), reply(idle)]
    lines = runway("top", answers=answers).stdout.splitlines()[5:]
    assert [line.count("unknown") for line in lines] == [4, 4, 3]
    assert "0.00" in lines[2]


def test_top_limits_its_usage_requests() -> None:
    views = [job("running", id=f"rw-{number}") for number in range(100)]
    fake = FakeRunway([reply(QUOTA), page(*views), reply(BUSY)])
    assert len(runway("top", "--once", answers=fake).stdout.splitlines()) == 105
    assert sum("usage" in path for path in fake.paths) == USAGE_REQUESTS_ONCE


def test_top_rotates_through_all_jobs() -> None:
    views = [job("running", id=f"rw-{number}") for number in range(25)]
    asked = Counter[str]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/usage"):
            asked[request.url.path] += 1
            return reply(BUSY)
        return reply(QUOTA) if request.url.path == "/v1/quota" else page(*views)

    with Client(URL, None, httpx2.MockTransport(answer)) as client:
        source = Poller(Session(client, Screen(), Environment()), [])
        for look in range(1, 6):
            frame, _ = source.poll(USAGE_REQUESTS)
            assert asked.total() == look * USAGE_REQUESTS
    assert set(asked.values()) == {2}
    assert all(frame.usage.values())


def test_top_as_data() -> None:
    running = job("running", attempts=[attempt()])
    document = json.loads(runway("top", "-o", "json", answers=[reply(QUOTA), page(running), reply(BUSY)]).stdout)
    assert document == {**QUOTA, "jobs": [running], "usage": {"rw-4f2a": BUSY}}


def test_top_without_jobs_says_so() -> None:
    assert runway("top", answers=[reply(QUOTA), page()]).stdout.endswith("No active jobs.\n")
