"""`runway status`: a job as a story."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.support.cli import (
    attempt,
    failure,
    job,
    reply,
    runway,
)


def test_status_shows_a_failed_job_in_full() -> None:
    view = job(
        "failed",
        started_at="2026-11-24T08:01:00Z",
        finished_at="2026-11-24T08:05:00Z",
        attempts=[
            attempt(
                "failed",
                exit_code=137,
                signal="SIGKILL",
                reason="OOMKilled",
                cause="oom_killed",
                finished_at="2026-11-24T08:05:00Z",
            )
        ],
        failure=failure("oom_killed", message="used more than 16Gi", hint="ask for more", evidence={"limit": "16Gi"}),
        cost=job()["cost"] | {"actual": "0.094533"},
    )
    result = runway("status", "rw-4f2a", answers=[reply(view)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "rw-4f2a train failed (accepted 10m ago, finished 5m ago)",
        "Failure",
        "  oom_killed: the job's own error; retrying will not help",
        "  used more than 16Gi",
        "  hint: ask for more",
        "Timeline (UTC, 2026-11-24)",
        "  08:00:00      +0s  accepted",
        "  08:00:30     +30s  bound to node node-1",
        "  08:01:00      +1m  started",
        "  08:05:00      +5m  ended after 4m: killed by SIGKILL, exit code 137 (OOMKilled)",
        "  08:05:00      +5m  failed: oom_killed",
        "Attempts",
        "  #  STATE   EXIT  SIGNAL   CAUSE       RAN  COUNTED  NODE    POD",
        "  1  failed   137  SIGKILL  oom_killed   4m  yes      node-1  rw-4f2a-x7k2p",
        "Spec",
        "  tenant    vision",
        "  image     runway.local/busybox:1",
        "  command   sh -c 'echo $HOME'",
        "  env       TOKEN",
        "  secrets   HF_TOKEN=huggingface/token",
        "  volumes   datasets checkpoints",
        "  resources 4 CPU, 16Gi memory, 1 GPU a10g",
        "  storage   50Gi disk, 8Gi shared memory",
        "  process   user 65532, working directory /scratch",
        "  limits    timeout 1h, start within 15m, retries 1, grace 30s",
        "Cost in USD",
        "  0.09453 total (limit 1.418, rate 1.418/h)",
        "  rate: 0.83 for 1 gpu (a10g/g5.12xlarge@5.672)",
        "Evidence",
        "  limit: 16Gi",
        "Kubernetes",
        "  kubectl -n runway-vision describe job rw-4f2a",
    ]


def test_status_shows_image_and_link_to_stored_logs() -> None:
    image, link = "sha256:" + "ab" * 32, "https://logs.example.com/?job=rw-4f2a&from=1&to=2"
    view = job("running", attempts=[attempt(image_id=image)], images_differ=False, logs_url=link)
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    assert f"  ran       {image}" in lines
    assert lines[lines.index("Stored logs") + 1] == f"  {link}"


def test_status_shows_different_images() -> None:
    first, second = ("sha256:" + digit * 64 for digit in "ab")
    attempts = [attempt("failed", image_id=first), attempt(image_id=second)]
    view = job("running", attempts=attempts, attempts_left_out=3, images_differ=True)
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    at = lines.index("  the attempts ran different images; name a digest in `image`")
    assert lines[at + 1 : at + 3] == [f"  4: image {first}", f"  5: image {second}"]


def test_status_shows_a_job_of_version_0_7_with_the_values_that_0_7_used() -> None:
    old = job("failed")
    del old["spec"]["working_dir"], old["spec"]["user"], old["spec"]["secrets"], old["spec"]["volumes"]
    del old["spec"]["resources"]["disk"], old["spec"]["resources"]["shared_memory"]
    lines = runway("status", "rw-4f2a", answers=[reply(old)]).stdout.splitlines()
    assert "  storage   64Mi shared memory" in lines
    assert "  process   user 1000, working directory of the image" in lines


def test_status_shows_each_cause_once() -> None:
    lost = attempt(
        "failed",
        counted=False,
        cause="drained",
        message="the pod was evicted",
        exit_code=143,
        signal="SIGTERM",
        finished_at="2026-11-24T08:02:00Z",
    )
    last = attempt("failed", cause="exit_nonzero", message="the process ended with exit code 3")
    view = job("failed", attempts=[lost, last], attempts_left_out=4, disruptions=5, failure=failure())
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    assert [line[:4] for line in lines if "rw-4f2a-x7k2p" in line] == ["  5 ", "  6 "]
    assert "  5: the pod was evicted" in lines
    assert any(line.endswith("attempt 5 ended after 1m: SIGTERM, exit code 143") for line in lines)
    assert "  4 earlier attempts are not stored" in lines
    assert "  the cluster ended 5; they do not count against the retries" in lines
    assert sum("exit code 3" in line for line in lines) == 1


def test_status_of_a_pending_job_shows_conditions_and_deadline() -> None:
    condition = {"code": "unschedulable", "message": "insufficient nvidia.com/gpu", "since": "2026-11-24T08:02:00Z"}
    result = runway("status", "rw-4f2a", answers=[reply(job(conditions=[condition]))])
    assert "  unschedulable (for 8m): insufficient nvidia.com/gpu" in result.stdout
    assert "  08:02:00      +2m  condition unschedulable" in result.stdout
    assert "  09:00:00      +1h  deadline in 50m" in result.stdout


def test_timeline_of_a_job_that_has_not_started_shows_its_own_start_deadline() -> None:
    spec = job()["spec"] | {"start_timeout_seconds": 900}
    lines = runway("status", "rw-4f2a", answers=[reply(job(spec=spec))]).stdout.splitlines()
    assert "  08:15:00     +15m  start deadline in 5m" in lines
    started = job("running", spec=spec, started_at="2026-11-24T08:01:00Z", attempts=[attempt("running")])
    assert "start deadline" not in runway("status", "rw-4f2a", answers=[reply(started)]).stdout


def test_waiting_job_shows_when_the_policy_ends_it() -> None:
    pulling = {"code": "image_pull_failing", "message": "no such image", "start_timeout_seconds": 900}
    shown = [{**pulling, "since": "2026-11-24T08:02:00Z"}, {**pulling, "since": None}]
    lines = runway("status", "rw-4f2a", answers=[reply(job(conditions=shown))]).stdout.splitlines()
    assert "  image_pull_failing (for 8m, Runway ends the job after 15m): no such image" in lines
    assert "  image_pull_failing (Runway ends the job after 15m): no such image" in lines
    assert [line for line in lines if "deadline of" in line] == [
        "  08:17:00     +17m  start deadline of image_pull_failing in 7m"
    ]


def test_text_of_a_registry_is_cut_after_its_cause_and_whole_in_the_evidence() -> None:
    text = "the registry has no such image: ErrImagePull: " + "failed to resolve reference; " * 10
    condition = {"code": "image_pull_failing", "message": text, "since": None}
    lines = runway("status", "rw-4f2a", answers=[reply(job(conditions=[condition]))]).stdout.splitlines()
    assert f"  image_pull_failing: {text[:120]}…" in lines
    assert lines[lines.index("Evidence") + 1] == f"  image_pull_failing: {text}"
    failed = failure("image_not_found", message=text, evidence={"waiting_message": text[46:]})
    lines = runway("status", "rw-4f2a", answers=[reply(job("failed", failure=failed))]).stdout.splitlines()
    assert f"  {text[:120]}…" in lines
    assert lines[lines.index("Evidence") + 1] == f"  waiting_message: {text[46:]}"
    wide = runway("status", "rw-4f2a", "-o", "wide", answers=[reply(job("failed", failure=failed))])
    assert f"  {text}" in wide.stdout.splitlines()


def test_timeline_over_midnight_shows_the_date() -> None:
    view = job("failed", created_at="2026-11-23T23:59:50Z", finished_at="2026-11-24T00:00:10Z")
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    assert lines[2:4] == ["  23:59:50      +0s  accepted", "  11-24 00:00:10     +20s  failed"]


def test_cost_so_far_comes_from_the_attempts() -> None:
    ended = attempt("failed", bound_at="2026-11-24T08:00:00Z", finished_at="2026-11-24T08:05:00Z")
    view = job("running", attempts=[ended, attempt(bound_at="2026-11-24T08:05:00Z")])
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    assert "  about 0.2363 so far (limit 1.418, rate 1.418/h)" in lines, "600 s of 1.418 USD an hour"
    stuck = job("cancelling", attempts=[attempt(bound_at="2026-11-24T05:00:00Z")])
    assert "about 1.418 so far (limit 1.418" in runway("status", "rw-4f2a", answers=[reply(stuck)]).stdout
    for price in ("hourly", "ceiling"):
        stuck["cost"] |= {price: "NaN"}
        assert "  actual cost unknown" in runway("status", "rw-4f2a", answers=[reply(stuck)]).stdout
    unknown = job("running", attempts=[attempt()], attempts_left_out=3)
    assert "  actual cost unknown (limit" in runway("status", "rw-4f2a", answers=[reply(unknown)]).stdout


def test_status_shows_usage_and_log_excerpt() -> None:
    usage = {
        "cpu_cores": 0.0991,
        "cpu_limit_cores": 0.1,
        "memory_bytes": 60 << 20,
        "memory_peak_bytes": 61 << 20,
        "memory_limit_bytes": 64 << 20,
        "throttled_ratio": 0.994,
        "gpu_utilisation": None,
    }
    excerpt = {"pod": "rw-4f2a-x7k2p", "text": "epoch 1\nepoch 2\n", "truncated": True}
    lines = runway("status", "rw-4f2a", answers=[reply(job(usage=usage, excerpt=excerpt))]).stdout.splitlines()
    expected = "  CPU 0.10 of 0.1 on average, throttled in 99% of its CPU periods, memory peak 61Mi of 64Mi"
    assert lines[lines.index("Usage") + 1] == expected
    start = lines.index("End of the log of rw-4f2a-x7k2p")
    assert lines[start + 1 : start + 4] == ["  …", "  epoch 1", "  epoch 2"]


def test_status_leaves_out_unknown_usage() -> None:
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


def test_status_shows_a_job_created_outside_runway() -> None:
    result = runway("status", "rw-4f2a", answers=[reply(job(spec=None, cost=None, created_at=None, name=None))])
    assert result.exit_code == 0
    assert result.stdout.startswith("rw-4f2a pending\n")
    assert "Tenant vision; created outside Runway" in result.stdout


def test_status_does_not_show_env_values() -> None:
    assert "do-not-show" not in runway("status", "rw-4f2a", answers=[reply(job())]).output


def test_status_as_data_is_the_servers_document() -> None:
    view = job(something_new={"deep": [1, None, "\x1b[31m"]})
    assert json.loads(runway("status", "rw-4f2a", "-o", "json", answers=[reply(view)]).stdout) == view
    assert yaml.safe_load(runway("status", "rw-4f2a", "-o", "yaml", answers=[reply(view)]).stdout) == view


def test_end_of_the_log_follows_the_failure() -> None:
    excerpt = {"pod": "rw-4f2a-x7k2p", "text": "ValueError: no data\n", "truncated": False}
    view = job("failed", failure=failure(), excerpt=excerpt)
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    assert lines[1:6] == [
        "Failure",
        "  exit_nonzero: the job's own error; retrying will not help",
        "  the process ended with exit code 3",
        "  hint: read the log",
        "End of the log of rw-4f2a-x7k2p",
    ]


@pytest.mark.parametrize(("state", "ended"), [("succeeded", "succeeded"), ("cancelled", "failed")])
def test_success_and_cancellation_have_no_cause(state: str, ended: str) -> None:
    view = job(state, attempts=[attempt(ended, reason="Completed", counted=False)])
    lines = runway("status", "rw-4f2a", answers=[reply(view)]).stdout.splitlines()
    row = lines[lines.index("Attempts") + 2]
    assert row.split()[:3] == ["1", ended, "9m"]
    assert "Completed" not in row
