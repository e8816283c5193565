"""`runway submit`, its dry run, and `runway run`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import yaml

from runway.jobs.manifest import keyed_job_id
from tests.support.cli import (
    Chunks,
    Clock,
    FakeRunway,
    attempt,
    failure,
    job,
    problem,
    reply,
    runway,
)

SUBMIT = ("submit", "--image", "runway.local/busybox:1", "--cpu", "1", "--memory", "1Gi")
RUN = ("run", *SUBMIT[1:])
RUNNING = job("running", attempts=[attempt("running")])


def sent(fake: FakeRunway) -> Any:
    return json.loads(fake.requests[0].content)


def log(*chunks: bytes | Exception) -> httpx2.Response:
    return httpx2.Response(200, stream=Chunks(*chunks))


def page(status: int) -> httpx2.Response:
    """Return the answer of a proxy or of another server."""
    return httpx2.Response(status, text="<html>", headers={"Content-Type": "text/html"})


def test_submit_prints_id_state_and_price() -> None:
    fake = FakeRunway([reply(job(), 201)])
    result = runway(*SUBMIT, "--", "python", "train.py", "--lr", "3", answers=fake)
    assert result.exit_code == 0
    assert result.stdout == "rw-4f2a pending 1.418 USD an hour, at most 1.418 (a10g/g5.12xlarge@5.672)\n"
    assert fake.paths == ["POST /v1/jobs", "GET /v1/policy"]
    assert sent(fake) == {
        "image": "runway.local/busybox:1",
        "resources": {"cpu": "1", "memory": "1Gi"},
        "command": ["python", "train.py", "--lr", "3"],
    }


def test_submit_sends_every_flag_as_its_field() -> None:
    fake = FakeRunway([reply(job(), 201)])
    flags = "--gpu 1 --gpu-type a10g --timeout 1h30m --retries 2 --grace 10s --max-cost 12.50 --name train --env A=1"
    storage = "--start-timeout 15m --disk 50Gi --shared-memory 512Mi --workdir /scratch --user 65532"
    runway(*SUBMIT, *flags.split(), *storage.split(), "--idempotency-key", "k-1", answers=fake)
    assert sent(fake) == {
        "image": "runway.local/busybox:1",
        "resources": {
            "cpu": "1",
            "memory": "1Gi",
            "gpu": 1,
            "gpu_type": "a10g",
            "disk": "50Gi",
            "shared_memory": "512Mi",
        },
        "working_dir": "/scratch",
        "user": 65532,
        "timeout_seconds": 5400,
        "start_timeout_seconds": 900,
        "retries": 2,
        "grace_period_seconds": 10,
        "max_cost_usd": "12.50",
        "name": "train",
        "env": {"A": "1"},
    }
    assert fake.requests[0].headers["Idempotency-Key"] == "k-1"


def test_submit_reports_a_replayed_idempotency_key() -> None:
    result = runway(*SUBMIT, "--idempotency-key", "k", answers=[reply(job("running"), 200, Idempotent_Replay="true")])
    assert result.exit_code == 0
    assert "nothing new was submitted" in result.stdout


def test_submit_as_data_or_name() -> None:
    assert json.loads(runway(*SUBMIT, "-o", "json", answers=[reply(job(), 201)]).stdout) == job()
    assert yaml.safe_load(runway(*SUBMIT, "-o", "yaml", answers=[reply(job(), 201)]).stdout) == job()
    assert runway(*SUBMIT, "-o", "name", answers=[reply(job(), 201)]).stdout == "rw-4f2a\n"


def test_submit_and_wait_exits_like_wait() -> None:
    finished = job("failed", failure=failure(), attempts=[attempt("failed", exit_code=3)])
    result = runway(*SUBMIT, "--wait", answers=[reply(job(), 201), reply(job("running")), reply(finished)])
    assert result.exit_code == 3
    assert [line.split()[:2] for line in result.stdout.splitlines()[:2]] == [
        ["rw-4f2a", "pending"],
        ["rw-4f2a", "failed"],
    ]


def test_submit_and_wait_as_data_prints_the_last_view_alone() -> None:
    result = runway(*SUBMIT, "--wait", "-o", "json", answers=[reply(job(), 201), reply(job("succeeded"))])
    assert json.loads(result.stdout) == job("succeeded")


@pytest.mark.parametrize(
    "lost",
    [
        httpx2.ReadTimeout("timed out"),
        httpx2.ConnectError("refused"),
        problem(502, "bad_gateway"),
        problem(503, "not_leader", retry_after=2),
        problem(503, "outcome_unknown", retry_after=2, id="rw-4f2a"),
        problem(504, "timeout"),
        page(500),
        page(524),
    ],
    ids=["timeout", "refused", "502", "not leader", "outcome unknown", "504", "500 of a proxy", "524 of a proxy"],
)
def test_lost_answer_is_retried_under_one_key_and_is_no_replay(lost: httpx2.Response | Exception) -> None:
    """aws/containers-roadmap issue 2798: a repeated command must not create a second job."""
    fake = FakeRunway([lost, lost, reply(job(), 200, Idempotent_Replay="true")])
    result = runway(*SUBMIT, answers=fake)
    assert result.exit_code == 0
    assert "nothing new was submitted" not in result.stdout
    keys = [request.headers["Idempotency-Key"] for request in fake.requests if request.method == "POST"]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(keys.pop()) >= 32
    assert result.stderr.splitlines()[-1] == "Runway answers again"


def test_each_submission_has_a_key_of_its_own() -> None:
    keys = set()
    for _ in range(3):
        fake = FakeRunway([reply(job(), 201)])
        runway(*SUBMIT, answers=fake)
        keys.add(fake.requests[0].headers["Idempotency-Key"])
    assert len(keys) == 3


@pytest.mark.parametrize(
    "refusal",
    [problem(503, "submissions_stopped", retry_after=30), problem(429, "rate_limited", retry_after=3)]
    + [problem(status, "refused") for status in (400, 403, 409, 422)],
)
def test_refusal_is_not_retried(refusal: httpx2.Response) -> None:
    fake = FakeRunway([refusal])
    assert runway(*SUBMIT, answers=fake).exit_code in (1, 77)
    assert len(fake.requests) == 1


def test_job_that_may_exist_is_named_after_the_last_retry() -> None:
    fake, clock = FakeRunway([httpx2.ReadTimeout("timed out")]), Clock()
    result = runway(*SUBMIT, "--idempotency-key", "k-1", answers=fake, clock=clock)
    assert result.exit_code == 69
    assert sum(clock.slept) <= 60
    assert f"id: {keyed_job_id('vision', 'k-1')}" in result.stderr
    assert "idempotency_key: k-1" in result.stderr
    assert f"`runway status {keyed_job_id('vision', 'k-1')}`" in result.stderr


def test_server_that_is_down_gets_no_job_and_none_is_named() -> None:
    for error in (httpx2.ConnectError("connection refused"), httpx2.ConnectTimeout("timed out")):
        fake, clock = FakeRunway([error]), Clock()
        result = runway(*SUBMIT, "--idempotency-key", "k-1", answers=fake, clock=clock)
        assert result.exit_code == 69
        assert len(fake.requests) > 1
        assert sum(clock.slept) <= 60
        assert f"{error}; nothing was submitted" in result.stderr
        assert "rw-" not in result.stderr


@pytest.mark.parametrize(("error", "is_named"), [(httpx2.ConnectError, False), (httpx2.ReadTimeout, True)])
def test_interrupt_between_tries_names_the_job_only_if_something_was_sent(
    error: type[httpx2.RequestError], is_named: bool
) -> None:
    class Interrupted(Clock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    fake = FakeRunway([error("lost")])
    result = runway(*SUBMIT, "--idempotency-key", "k-1", answers=fake, clock=Interrupted())
    assert result.exit_code == 130
    assert ("nothing was submitted" in result.stderr) is not is_named
    assert (keyed_job_id("vision", "k-1") in result.stderr) is is_named
    assert fake.paths == ["POST /v1/jobs"]


def test_lost_answer_between_refused_connections_may_have_created_the_job() -> None:
    down, clock = httpx2.ConnectError("connection refused"), Clock()
    result = runway(*SUBMIT, "--idempotency-key", "k-1", answers=[down, httpx2.ReadTimeout("lost"), down], clock=clock)
    assert sum(clock.slept) <= 60
    assert "nothing was submitted" not in result.stderr
    assert f"id: {keyed_job_id('vision', 'k-1')}" in result.stderr


@pytest.mark.parametrize(
    ("answers", "is_named"),
    [
        ([page(201)], True),
        ([page(200)], True),
        ([problem(500, "internal_error")], True),
        ([httpx2.ReadTimeout("timed out"), problem(429, "rate_limited", retry_after=3)], True),
        ([httpx2.ReadTimeout("timed out"), page(403)], True),
        ([httpx2.ReadTimeout("timed out"), problem(403, "quota_exceeded")], False),
        ([page(302)], False),
        ([page(401)], False),
        ([problem(429, "rate_limited", retry_after=3)], False),
    ],
)
def test_job_is_named_exactly_if_it_may_exist(answers: list[Any], is_named: bool) -> None:
    result = runway(*SUBMIT, "--idempotency-key", "k-1", answers=answers)
    assert result.exit_code != 0
    assert (keyed_job_id("vision", "k-1") in result.stderr) is is_named


@contextmanager
def signals_of_a_new_process() -> Iterator[None]:
    """Give signals their default handlers: a server of an earlier test, or nohup, may have left others."""
    handlers: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL,
    }  # fmt: skip
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize("command", [(*SUBMIT, "--wait"), RUN])
def test_signal_ends_the_command_and_names_the_job_last(command: tuple[str, ...], cancels: bool, name: str) -> None:
    """apache/airflow issue 10383: CI ends a step with SIGTERM."""

    def interrupted() -> httpx2.Response:
        signal.raise_signal(signal.Signals[name])
        raise AssertionError("the signal was ignored")

    fake = FakeRunway([reply(job(), 201), interrupted, reply(job("cancelling"))])
    options = ["--cancel-on-interrupt"] if cancels else []
    with signals_of_a_new_process():
        before = signal.getsignal(signal.Signals[name])
        result = runway(*command, *options, answers=fake)
        after = signal.getsignal(signal.Signals[name])
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "rw-4f2a"
    assert ("DELETE /v1/jobs/rw-4f2a" in fake.paths) is cancels
    assert after == before


@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_second_signal_during_the_cancel_names_the_job_last(second: str) -> None:
    """A CI runner sends SIGINT, and SIGTERM seconds later: Runway may not have answered yet."""

    def interrupted(name: str) -> Callable[[], httpx2.Response]:
        def answer() -> httpx2.Response:
            signal.raise_signal(signal.Signals[name])
            raise AssertionError("the signal was ignored")

        return answer

    fake = FakeRunway([reply(job(), 201), interrupted("SIGINT"), interrupted(second)])
    with signals_of_a_new_process():
        result = runway(*RUN, "--cancel-on-interrupt", answers=fake)
    assert result.exit_code == 130
    assert "may continue" in result.stderr
    assert result.stderr.splitlines()[-1] == "rw-4f2a"


def test_signal_during_the_submission_names_the_job_that_may_exist() -> None:
    def interrupted() -> httpx2.Response:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was ignored")

    fake = FakeRunway([interrupted, reply(job("cancelling"))])
    result = runway(*RUN, "--idempotency-key", "k-1", answers=fake)
    assert "may exist" in result.stderr
    assert result.stderr.splitlines()[-1] == keyed_job_id("vision", "k-1")
    # Runway may create the job after the first cancel.
    for failed in (problem(503, "not_leader"), problem(404, "job_not_found")):
        fake = FakeRunway([interrupted, failed, reply(job("cancelling"))])
        result = runway(*RUN, "--idempotency-key", "k-1", "--cancel-on-interrupt", answers=fake)
        assert fake.paths[1:] == [f"DELETE /v1/jobs/{keyed_job_id('vision', 'k-1')}"] * 2
        assert "is cancelling" in result.stderr


def test_cancel_of_a_job_that_never_appears_ends() -> None:
    fake = FakeRunway([interrupt, problem(404, "job_not_found")])
    result = runway(*RUN, "--cancel-on-interrupt", answers=fake)
    assert result.exit_code == 130
    assert "was not cancelled" in result.stderr


# submit --dry-run

PLAN: dict[str, Any] = {
    "decision": "refused",
    "violations": [
        {
            "field": "resources.gpu",
            "code": "quota_exceeded",
            "message": "3 of 4 are used or reserved, 1 free",
            "observed": "2",
            "limit": "4",
            "hint": "ask for at most 1 now",
        }
    ],
    "cost": {
        "currency": "USD",
        "rate_card": "a10g/g5.12xlarge@5.672",
        "hourly": "2.500000",
        "ceiling": "1.250000",
        "actual": None,
        "lines": [
            {"resource": "cpu", "quantity": "500m", "hourly": "0.100000"},
            {"resource": "gpu", "quantity": "2", "hourly": "2.400000"},
        ],
    },
    "quota": {
        "limit": {"gpu": 4, "cpu": "32", "memory": "128Gi", "jobs": 100},
        "used": {"gpu": 2, "cpu": "8", "memory": "32Gi", "jobs": 2},
        "reserved": {"gpu": 1, "cpu": "0", "memory": "0", "jobs": 1},
        "requested": {"gpu": 2, "cpu": "500m", "memory": "1Gi", "jobs": 1},
    },
    "manifest": {"kind": "Job"},
    "warnings": ['299 - "unknown field"'],
}


def test_dry_run_shows_decision_violations_price_and_quota() -> None:
    fake = FakeRunway([reply(PLAN)])
    result = runway(*SUBMIT, "--dry-run", answers=fake)
    assert fake.paths == ["POST /v1/jobs?dry_run=true"]
    assert result.exit_code == 1
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "Would be refused for 1 violation (dry run: nothing was submitted)",
        "  resources.gpu  requested 2, limit 4",
        "      3 of 4 are used or reserved, 1 free",
        "      hint: ask for at most 1 now",
        "  warning: unknown field",
        "Price in USD (a10g/g5.12xlarge@5.672)",
        "  RESOURCE  QUANTITY   USD",
        "  cpu           500m  0.10",
        "  gpu              2  2.40",
        "  an hour             2.50",
        "  at most             1.25",
        "Quota",
        "  RESOURCE  USAGE  THIS JOB  AFTER  LIMIT",
        "  gpu           3        +2      5      4  over",
        "  cpu           8      +0.5    8.5     32",
        "  memory     32Gi      +1Gi   33Gi  128Gi",
        "  jobs          3        +1      4    100",
    ]


def test_dry_run_without_price_shows_the_other_parts() -> None:
    quota = PLAN["quota"] | {"requested": None}
    plan = PLAN | {"cost": None, "quota": quota, "manifest": None, "warnings": []}
    result = runway(*SUBMIT, "--dry-run", answers=[reply(plan)])
    assert "Price: unknown until the spec is valid" in result.stdout
    assert "  gpu           3                       4" in result.stdout


def test_admitted_dry_run_exits_with_zero() -> None:
    plan = PLAN | {"decision": "admitted", "violations": []}
    result = runway(*SUBMIT, "--dry-run", answers=[reply(plan)])
    assert result.exit_code == 0
    assert result.stdout.startswith("Would be admitted")


def test_dry_run_as_json_exits_with_its_decision() -> None:
    result = runway(*SUBMIT, "--dry-run", "-o", "json", answers=[reply(PLAN)])
    assert (result.exit_code, json.loads(result.stdout)) == (1, PLAN)
    assert runway(*SUBMIT, "--dry-run", "-o", "name", answers=[reply(PLAN)]).stdout == "refused\n"


@pytest.mark.parametrize("flag", [["--wait"], ["--idempotency-key", "k"]])
def test_dry_run_rejects_wait_and_idempotency_key(flag: list[str]) -> None:
    assert runway(*SUBMIT, "--dry-run", *flag, answers=[reply(PLAN)]).exit_code == 2


# run


def test_run_shows_the_log_on_stdout_and_all_else_on_stderr() -> None:
    finished = job("failed", failure=failure(), attempts=[attempt("failed", exit_code=3)])
    answers = [
        reply(job(), 201),
        reply(job("pending", attempts=[attempt("waiting", started_at=None)])),
        reply(RUNNING),
        problem(404, "logs_not_ready"),
        reply(RUNNING),
        log(b"2026-11-24T08:01:00.000000001Z hello\n"),
        reply(finished),
    ]
    result = runway(*RUN, answers=answers)
    assert result.exit_code == 3
    assert result.stdout == "hello\n"
    assert "at most 1.418" in result.stderr
    assert "rw-4f2a is pending, attempt 1 of 2 on node-1 (" in result.stderr
    assert "hint: read the log" in result.stderr


def test_run_shows_every_attempt_in_turn() -> None:
    first = attempt("failed", exit_code=1)
    fake = FakeRunway(
        [
            reply(job(), 201),
            reply(RUNNING),
            log(b"2026-11-24T08:01:00.000000001Z first\n"),
            reply(job("running", attempts=[first])),
            reply(job("pending", attempts=[first, attempt("waiting", started_at=None)])),
            reply(job("pending", attempts=[first, attempt("waiting", started_at=None)])),
            reply(job("running", attempts=[first, attempt()])),
            problem(404, "logs_not_ready"),
            reply(job("running", attempts=[first, attempt()])),
            log(b"2026-11-24T08:02:00.000000001Z second\n"),
            reply(job("succeeded", attempts=[first, attempt("succeeded", exit_code=0)])),
        ]
    )
    result = runway(*RUN, answers=fake)
    assert result.exit_code == 0
    assert result.stdout == "first\nsecond\n"
    followed = [request.url.params["attempt"] for request in fake.requests if request.url.path.endswith("/logs")]
    assert followed == ["1", "2", "2"]


def test_run_shows_the_outcome_without_a_log() -> None:
    finished = job("failed", failure=failure("deadline_exceeded"))
    not_ready = problem(404, "logs_not_ready")
    result = runway(
        *RUN, answers=[reply(job(), 201), reply(finished), not_ready, reply(finished), not_ready, reply(finished)]
    )
    assert result.exit_code == 124
    assert result.stdout == ""


def test_run_shows_the_outcome_after_a_deleted_log() -> None:
    gone = problem(410, "logs_gone", excerpt=None)
    answers = [reply(job(), 201), reply(RUNNING), gone, reply(job("succeeded"))]
    assert runway(*RUN, answers=answers).exit_code == 0


def test_run_as_data_keeps_stdout_for_the_result() -> None:
    hello = log(b"2026-11-24T08:01:00.000000001Z hello\n")
    answers = [reply(job(), 201), reply(RUNNING), hello, reply(job("succeeded"))]
    result = runway(*RUN, "-o", "json", answers=answers)
    assert json.loads(result.stdout) == job("succeeded")
    assert "hello\n" in result.stderr


def interrupt() -> httpx2.Response:
    raise KeyboardInterrupt


def test_interrupted_run_leaves_the_job_running() -> None:
    fake = FakeRunway([reply(job(), 201), reply(RUNNING), interrupt])
    result = runway(*RUN, answers=fake)
    assert result.exit_code == 130
    assert "Interrupted; rw-4f2a continues." in result.stderr
    assert "runway logs -f rw-4f2a" in result.stderr
    assert not any(path.startswith("DELETE") for path in fake.paths)


@pytest.mark.parametrize(("answer", "cancelled"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_interrupted_run_at_a_terminal_offers_to_cancel(answer: str, cancelled: bool) -> None:
    fake = FakeRunway([reply(job(), 201), reply(RUNNING), interrupt, reply(job("cancelling"), 202)])
    result = runway(*RUN, answers=fake, at_terminal=True, stdin=answer)
    assert result.exit_code == 130
    assert ("DELETE /v1/jobs/rw-4f2a" in fake.paths) is cancelled
    assert ("rw-4f2a is cancelling" if cancelled else "rw-4f2a continues") in result.stderr
