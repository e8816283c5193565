"""Commands on jobs as a user sees them: submit, run, ls, status, cancel, and `runway quota`."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import yaml

from runway.cli.jobs import State
from runway.jobs import view as server
from tests.unit.test_cli_seam import Answer, Chunks, FakeRunway, attempt, failure, job, problem, reply, runway

SUBMIT = ("submit", "--image", "runway.local/busybox:1", "--cpu", "1", "--memory", "1Gi")
RUN = ("run", *SUBMIT[1:])


def sent(fake: FakeRunway) -> Any:
    return json.loads(fake.requests[0].content)


def log(*chunks: bytes | Exception) -> httpx2.Response:
    return httpx2.Response(200, stream=Chunks(*chunks))


# submit


def test_submit_prints_id_state_and_price() -> None:
    fake = FakeRunway([reply(job(), 201)])
    result = runway(*SUBMIT, "--", "python", "train.py", "--lr", "3", answers=fake)
    assert result.exit_code == 0
    assert result.stdout == ("rw-4f2a pending 1.418000 USD an hour, at most 1.418000 (a10g/g5.12xlarge@5.672)\n")
    assert fake.paths == ["POST /v1/jobs"]
    assert sent(fake) == {
        "image": "runway.local/busybox:1",
        "resources": {"cpu": "1", "memory": "1Gi"},
        "command": ["python", "train.py", "--lr", "3"],
    }


def test_submit_sends_every_flag_as_its_field() -> None:
    fake = FakeRunway([reply(job(), 201)])
    flags = "--gpu 1 --gpu-type a10g --timeout 1h30m --retries 2 --grace 10s --max-cost 12.50 --name train --env A=1"
    runway(*SUBMIT, *flags.split(), "--idempotency-key", "k-1", answers=fake)
    assert sent(fake) == {
        "image": "runway.local/busybox:1",
        "resources": {"cpu": "1", "memory": "1Gi", "gpu": 1, "gpu_type": "a10g"},
        "timeout_seconds": 5400,
        "retries": 2,
        "grace_period_seconds": 10,
        "max_cost_usd": "12.50",
        "name": "train",
        "env": {"A": "1"},
    }
    assert fake.requests[0].headers["Idempotency-Key"] == "k-1"


def test_submit_says_when_a_key_was_used_before() -> None:
    result = runway(*SUBMIT, "--idempotency-key", "k", answers=[reply(job("running"), 200, Idempotent_Replay="true")])
    assert result.exit_code == 0
    assert "nothing new was submitted" in result.stdout


def test_submit_as_data_or_name() -> None:
    assert json.loads(runway(*SUBMIT, "-o", "json", answers=[reply(job(), 201)]).stdout) == job()
    assert yaml.safe_load(runway(*SUBMIT, "-o", "yaml", answers=[reply(job(), 201)]).stdout) == job()
    assert runway(*SUBMIT, "-o", "name", answers=[reply(job(), 201)]).stdout == "rw-4f2a\n"


def test_submit_and_wait_exits_like_wait() -> None:
    over = job("failed", failure=failure(), attempts=[attempt("failed", exit_code=3)])
    result = runway(*SUBMIT, "--wait", answers=[reply(job(), 201), reply(job("running")), reply(over)])
    assert result.exit_code == 3
    assert [line.split()[:2] for line in result.stdout.splitlines()[:2]] == [
        ["rw-4f2a", "pending"],
        ["rw-4f2a", "failed"],
    ]


def test_submit_and_wait_as_data_prints_the_last_view_alone() -> None:
    result = runway(*SUBMIT, "--wait", "-o", "json", answers=[reply(job(), 201), reply(job("succeeded"))])
    assert json.loads(result.stdout) == job("succeeded")


def test_a_submission_is_not_repeated_by_itself() -> None:
    fake = FakeRunway([httpx2.ReadTimeout("timed out")])
    assert runway(*SUBMIT, answers=fake).exit_code == 125
    assert len(fake.requests) == 1


# run


def test_run_shows_the_log_on_stdout_and_all_else_on_stderr() -> None:
    over = job("failed", failure=failure(), attempts=[attempt("failed", exit_code=3)])
    answers = [
        reply(job(), 201),
        problem(404, "logs_not_ready"),
        reply(job("pending")),
        log(b"2026-11-24T08:01:00.000000001Z hello\n"),
        reply(over),
    ]
    result = runway(*RUN, answers=answers)
    assert result.exit_code == 3
    assert result.stdout == "hello\n"
    assert "at most 1.418000" in result.stderr
    assert "hint: read the log" in result.stderr


def test_run_shows_every_attempt_in_turn() -> None:
    first = attempt("failed", exit_code=1)
    fake = FakeRunway(
        [
            reply(job(), 201),
            log(b"2026-11-24T08:01:00.000000001Z first\n"),
            reply(job("running", attempts=[first])),
            reply(job("pending", attempts=[first, attempt("waiting")])),
            problem(404, "logs_not_ready"),
            reply(job("pending", attempts=[first, attempt("waiting")])),
            log(b"2026-11-24T08:02:00.000000001Z second\n"),
            reply(job("succeeded", attempts=[first, attempt("succeeded", exit_code=0)])),
        ]
    )
    result = runway(*RUN, answers=fake)
    assert result.exit_code == 0
    assert result.stdout == "first\nsecond\n"
    followed = [request.url.params["attempt"] for request in fake.requests if request.url.path.endswith("/logs")]
    assert followed == ["1", "2", "2"]


def test_run_tells_the_end_of_a_job_that_left_no_log() -> None:
    over = job("failed", failure=failure("deadline_exceeded"))
    not_ready = problem(404, "logs_not_ready")
    result = runway(*RUN, answers=[reply(job(), 201), not_ready, reply(over), not_ready, reply(over)])
    assert result.exit_code == 124
    assert result.stdout == ""


def test_run_tells_the_end_of_a_job_whose_log_is_gone() -> None:
    answers = [reply(job(), 201), problem(410, "logs_gone", excerpt=None), reply(job("succeeded"))]
    assert runway(*RUN, answers=answers).exit_code == 0


def test_run_as_data_keeps_stdout_for_the_result() -> None:
    answers = [reply(job(), 201), log(b"2026-11-24T08:01:00.000000001Z hello\n"), reply(job("succeeded"))]
    result = runway(*RUN, "-o", "json", answers=answers)
    assert json.loads(result.stdout) == job("succeeded")
    assert "hello\n" in result.stderr


# ls


def test_ls_shows_a_row_a_job() -> None:
    jobs = [
        job("running", conditions=[{"code": "node_unreachable", "message": "...", "since": None}]),
        job("failed", id="rw-9", name=None, failure=failure("oom_killed"), cost=job()["cost"] | {"actual": "0.09"}),
        job("pending", id="rw-8", name="", spec=None, cost=None, created_at=None),
    ]
    result = runway("ls", answers=[reply({"jobs": jobs, "next_cursor": None})])
    assert result.stdout.splitlines() == [
        "ID       NAME   STATE    WHY               AGE  GPU  COST USD",
        "rw-4f2a  train  running  node_unreachable  10m  1    max 1.418000",
        "rw-9            failed   oom_killed        10m  1    0.09",
        "rw-8            pending",
    ]


def test_ls_follows_pages_up_to_its_limit() -> None:
    def page(first: int, count: int, cursor: str | None) -> httpx2.Response:
        return reply({"jobs": [job(id=f"rw-{n}") for n in range(first, first + count)], "next_cursor": cursor})

    fake = FakeRunway([page(0, 100, "c1"), page(100, 100, "c2"), page(200, 50, "c3")])
    result = runway("ls", "--limit", "250", "--state", "running", "-o", "name", answers=fake)
    assert result.stdout.split() == [f"rw-{number}" for number in range(250)]
    assert [dict(request.url.params) for request in fake.requests] == [
        {"limit": "100", "state": "running"},
        {"limit": "100", "state": "running", "cursor": "c1"},
        {"limit": "50", "state": "running", "cursor": "c2"},
    ]
    assert "There are more than these 250" in result.stderr


def test_ls_ends_with_the_last_page() -> None:
    fake = FakeRunway([reply({"jobs": [job()], "next_cursor": "c"}), reply({"jobs": [job()], "next_cursor": None})])
    result = runway("ls", "-o", "json", answers=fake)
    assert json.loads(result.stdout) == {"jobs": [job(), job()], "next_cursor": None}
    assert result.stderr == ""


def test_ls_does_not_ask_without_end_for_pages_that_are_empty() -> None:
    answers: list[Answer] = [reply({"jobs": [], "next_cursor": "c"}), AssertionError("asked again")]
    assert runway("ls", answers=answers).exit_code == 0


def test_ls_knows_every_state_that_runway_has() -> None:
    assert [state.value for state in State] == [state.value for state in server.State]


# status


def test_status_tells_the_whole_story() -> None:
    view = job(
        "failed",
        started_at="2026-11-24T08:01:00Z",
        finished_at="2026-11-24T08:05:00Z",
        attempts=[
            attempt("failed", exit_code=137, signal="SIGKILL", reason="OOMKilled", finished_at="2026-11-24T08:05:00Z")
        ],
        failure=failure("oom_killed", message="used more than 16Gi", hint="ask for more", evidence={"limit": "16Gi"}),
        cost=job()["cost"] | {"actual": "0.094533"},
    )
    result = runway("status", "rw-4f2a", answers=[reply(view)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "rw-4f2a train failed",
        "  created   2026-11-24T08:00:00Z (10m ago)",
        "  started   2026-11-24T08:01:00Z (9m ago)",
        "  finished  2026-11-24T08:05:00Z (5m ago)",
        "  tenant    vision",
        "  image     runway.local/busybox:1",
        "  command   sh -c 'echo $HOME'",
        "  env       TOKEN",
        "  resources 4 CPU, 16Gi memory, 1 GPU a10g",
        "  limits    timeout 1h, retries 1, grace 30s",
        "Attempts",
        "  #  POD            NODE    STATE   EXIT  SIGNAL   REASON     STARTED               RAN  COUNTED",
        "  1  rw-4f2a-x7k2p  node-1  failed  137   SIGKILL  OOMKilled  2026-11-24T08:01:00Z  4m   yes",
        "Failure",
        "  oom_killed (user; will not succeed by being repeated): used more than 16Gi",
        "  hint: ask for more",
        "  limit: 16Gi",
        "Cost in USD (a10g/g5.12xlarge@5.672)",
        "  hourly 1.418000, ceiling 1.418000, actual 0.094533",
        "  RESOURCE  QUANTITY  HOURLY",
        "  gpu       1         0.83",
        "Kubernetes",
        "  kubectl -n runway-vision describe job rw-4f2a",
    ]


def test_status_says_why_each_attempt_was_replaced_but_the_verdict_once() -> None:
    lost = attempt("failed", counted=False, cause="drained", message="the pod was evicted")
    last = attempt("failed", cause="exit_nonzero", message="the process ended with exit code 3")
    view = job("failed", attempts=[lost, last], attempts_left_out=4, disruptions=5, failure=failure())
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    assert [line[:4] for line in lines if "rw-4f2a-x7k2p" in line] == ["  5 ", "  6 "]
    assert "  5: drained: the pod was evicted" in lines
    assert "  5 ended by the cluster, which does not count against the retries" in lines
    assert sum("exit code 3" in line for line in lines) == 1


def test_status_of_a_waiting_job_says_for_what_and_until_when() -> None:
    condition = {"code": "unschedulable", "message": "insufficient nvidia.com/gpu", "since": "2026-11-24T08:02:00Z"}
    result = runway("status", "rw-4f2a", answers=[reply(job(conditions=[condition]))])
    assert "  unschedulable: insufficient nvidia.com/gpu (for 8m)" in result.stdout
    assert "  deadline  2026-11-24T09:00:00Z (in 50m)" in result.stdout


def test_status_shows_what_was_used_and_the_kept_end_of_the_log() -> None:
    usage = {
        "cpu_cores": 0.0991,
        "cpu_limit_cores": 0.1,
        "memory_peak_bytes": 61 << 20,
        "memory_limit_bytes": 64 << 20,
        "throttled_ratio": 0.994,
        "gpu_utilisation": None,
    }
    excerpt = {"pod": "rw-4f2a-x7k2p", "text": "epoch 1\nepoch 2\n", "truncated": True}
    lines = runway("status", "rw-4f2a", answers=[reply(job(usage=usage, excerpt=excerpt))]).stdout.splitlines()
    told = "  CPU 0.10 of 0.1 on average, throttled in 99% of its CPU periods, memory peak 61Mi of 64Mi"
    assert lines[lines.index("Usage") + 1] == told
    start = lines.index("The end of the log of rw-4f2a-x7k2p")
    assert lines[start + 1 : start + 4] == ["  …", "  epoch 1", "  epoch 2"]


def test_status_says_nothing_of_usage_that_is_unknown() -> None:
    unknown = dict.fromkeys(
        [
            "cpu_cores",
            "cpu_limit_cores",
            "memory_peak_bytes",
            "memory_limit_bytes",
            "throttled_ratio",
            "gpu_utilisation",
        ]
    )
    assert "Usage" not in runway("status", "rw-4f2a", answers=[reply(job(usage=unknown))]).stdout


def test_status_shows_a_job_that_did_not_come_through_runway() -> None:
    result = runway("status", "rw-4f2a", answers=[reply(job(spec=None, cost=None, created_at=None, name=None))])
    assert result.exit_code == 0
    assert result.stdout.startswith("rw-4f2a pending\n")


def test_values_of_the_environment_stay_off_the_screen() -> None:
    assert "do-not-show" not in runway("status", "rw-4f2a", answers=[reply(job())]).output


def test_status_as_data_passes_on_what_the_server_said() -> None:
    view = job(something_new={"deep": [1, None, "\x1b[31m"]})
    assert json.loads(runway("status", "rw-4f2a", "-o", "json", answers=[reply(view)]).stdout) == view
    assert yaml.safe_load(runway("status", "rw-4f2a", "-o", "yaml", answers=[reply(view)]).stdout) == view


# cancel


def test_cancel_on_a_terminal_asks_first_and_takes_no_for_an_answer() -> None:
    fake = FakeRunway([reply(job("running"))])
    result = runway("cancel", "rw-4f2a", answers=fake, at_terminal=True, stdin="n\n")
    assert result.exit_code == 1
    assert fake.paths == ["GET /v1/jobs/rw-4f2a"]


def test_cancel_on_a_terminal_goes_on_with_a_yes() -> None:
    fake = FakeRunway([reply(job("running", name="evil\x1b[2J")), reply(job("cancelling"), 202)])
    result = runway("cancel", "rw-4f2a", answers=fake, at_terminal=True, stdin="y\n")
    assert result.exit_code == 0
    assert "Cancel rw-4f2a (evil\\x1b[2J), which is running?" in result.output
    assert result.stdout.endswith("rw-4f2a is cancelling\n")
    assert fake.paths == ["GET /v1/jobs/rw-4f2a", "DELETE /v1/jobs/rw-4f2a"]


@pytest.mark.parametrize(("flags", "at_terminal"), [(["-y"], True), ([], False)])
def test_cancel_does_not_ask_where_told_so_or_no_one_is_there(flags: list[str], at_terminal: bool) -> None:
    fake = FakeRunway([reply(job("cancelling"), 202)])
    assert runway("cancel", "rw-4f2a", *flags, answers=fake, at_terminal=at_terminal).exit_code == 0
    assert fake.paths == ["DELETE /v1/jobs/rw-4f2a"]


def test_cancel_says_when_there_was_nothing_left_to_cancel() -> None:
    result = runway("cancel", "rw-4f2a", answers=[reply(job("succeeded"), 202)])
    assert result.stdout == "rw-4f2a was already over: succeeded\n"


# quota


def amounts(gpu: int, cpu: str, memory: str, jobs: int) -> dict[str, Any]:
    return {"gpu": gpu, "cpu": cpu, "memory": memory, "jobs": jobs}


QUOTA = {
    "tenants": [
        {
            "tenant": "vision",
            "namespace": "runway-vision",
            "limit": amounts(4, "32", "128Gi", 100),
            "used": amounts(2, "8", "32Gi", 2),
            "reserved": amounts(1, "500m", "64Mi", 1),
            "held_by_terminating": amounts(1, "4", "16Gi", 1),
            "jobs": [
                {"id": "rw-1", "state": "running", "gpu": 1, "cpu": "4", "memory": "16Gi", "terminating": False},
                {"id": "rw-2", "state": None, "gpu": 1, "cpu": "4", "memory": "16Gi", "terminating": True},
            ],
        }
    ]
}


def test_quota_shows_limit_use_and_who_holds_it() -> None:
    result = runway("quota", answers=[reply(QUOTA)])
    assert result.stdout.splitlines() == [
        "vision (namespace runway-vision)",
        "  RESOURCE  LIMIT  USED  RESERVED  TERMINATING",
        "  gpu       4      2     1         1",
        "  cpu       32     8     500m      4",
        "  memory    128Gi  32Gi  64Mi      16Gi",
        "  jobs      100    2     1         1",
        "  held by",
        "  JOB   STATE    GPU  CPU  MEMORY",
        "  rw-1  running  1    4    16Gi",
        "  rw-2  deleted  1    4    16Gi    terminating",
    ]


def test_quota_as_data_and_names() -> None:
    assert json.loads(runway("quota", "-o", "json", answers=[reply(QUOTA)]).stdout) == QUOTA
    assert runway("quota", "-o", "name", answers=[reply(QUOTA)]).stdout == "vision\n"
