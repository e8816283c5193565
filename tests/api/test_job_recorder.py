"""Job records: kept after pod deletion, crash and change of leader."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

from runway.kube.transport import Response
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes, Json, copy_of
from tests.support.fake_logs import FakeLog

RECORD = "runway.internal/record"


def record_on(kubernetes: FakeKubernetes, job_id: str) -> Json | None:
    """Return the record of a Job."""
    text = kubernetes.job(job_id)["metadata"]["annotations"].get(RECORD)
    return dict(json.loads(text)) if text else None


async def final_record(runway: Runway, job_id: str) -> Json:
    """Wait for the final record of a job."""

    async def there() -> Json | None:
        record = record_on(runway.kubernetes, job_id)
        return record if record and "state" in record else None

    return dict(await runway.until(there))


async def metric(runway: Runway, name: str) -> float:
    """Return the sum of a metric over its labels; `name` may contain some of them."""
    text = (await runway.client.get("/metrics")).text
    lines = [
        line for line in text.splitlines() if line.startswith(name.partition("{")[0]) and name.partition("{")[2] in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def until_metric(runway: Runway, name: str, value: float) -> None:
    async def reached() -> bool:
        return await metric(runway, name) == value

    await runway.until(reached)


async def running(runway: Runway, log: bytes | FakeLog | None = None, **spec: Any) -> tuple[str, str]:
    """Start a job; return its id and pod."""
    job_id = str((await runway.submit(**spec)).json()["id"])
    pod = runway.kubernetes.start_pod(job_id)
    if log is not None:
        runway.kubernetes.logs[pod] = log
    await runway.until_state(job_id, "running")
    return job_id, pod


def failed(runway: Runway, job_id: str, pod: str, **end: Any) -> None:
    """Fail the process and the Job."""
    runway.kubernetes.end_pod(pod, **{"exit_code": 3, "message": "last words\n", **end})
    runway.kubernetes.fail(job_id)


def records_sent(kubernetes: FakeKubernetes) -> int:
    return sum(RECORD in patch["metadata"].get("annotations", {}) for patch in kubernetes.patches)


async def test_failure_is_unchanged_after_pod_deletion_and_restart(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        job_id, pod = await running(before, retries=1)
        kubernetes.end_pod(pod, exit_code=1)
        second = kubernetes.start_pod(job_id)
        failed(before, job_id, second)
        await final_record(before, job_id)
        view = await before.until_state(job_id, "failed")
        assert view["failure"]["code"] == "exit_nonzero"
        assert view["excerpt"] == {"pod": second, "text": "last words\n", "truncated": False}
        assert [attempt["exit_code"] for attempt in view["attempts"]] == [1, 3]
        assert view["cost"]["actual"] == "0.000001"
    for name in (pod, second):
        kubernetes.remove_pod(name)
    async with serve(kubernetes) as after:
        assert await after.view(job_id) == view


async def test_success_keeps_end_of_log(runway: Runway) -> None:
    job_id, pod = await running(runway, b"x" * 5000 + b"\nepoch 9: loss 0.1\n")
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    record = await final_record(runway, job_id)
    assert record["state"] == "succeeded"
    assert record["excerpt"]["text"].endswith("x\nepoch 9: loss 0.1\n")
    assert record["excerpt"]["truncated"]
    view = await runway.view(job_id)
    assert (view["excerpt"], view["failure"]) == (record["excerpt"], None)


async def test_failure_keeps_what_came_before_a_progress_bar(runway: Runway) -> None:
    """https://github.com/argoproj/argo-workflows/issues/7671: the bar fills the 2 KiB of the termination message."""
    bar = b"".join(b"\r%3d%%|%s|" % (percent % 101, b"#" * 60) for percent in range(2000))
    text = b"ModuleNotFoundError: No module named 'wandb'\n" + bar + b"\ngiving up\n"
    job_id, pod = await running(runway, text)
    failed(runway, job_id, pod, exit_code=1, message=text[-2048:].decode())
    record = await final_record(runway, job_id)
    assert record["excerpt"]["text"].startswith("ModuleNotFoundError: No module named 'wandb'\n")
    assert record["excerpt"]["text"].endswith("|\ngiving up\n")
    view = await runway.view(job_id)
    assert view["failure"]["evidence"]["last_words"] == record["excerpt"]["text"]
    assert view["failure"]["evidence"]["log_hint"] == "missing_module"
    page = (await runway.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})).text
    assert "No module named" in page
    assert page.count("%|#") < 5


async def test_log_of_terminating_pod_is_captured(runway: Runway) -> None:
    log = FakeLog()
    log.write(b"checkpoint saved")
    job_id, pod = await running(runway, log)
    runway.kubernetes.terminate_pod(pod)

    async def followed() -> bool:
        return log.open == 1

    await runway.until(followed)
    log.write(b"last line")
    runway.kubernetes.end_pod(pod, exit_code=0)
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    record = await final_record(runway, job_id)
    assert record["excerpt"] == {"pod": pod, "text": "checkpoint saved\nlast line\n", "truncated": False}
    assert log.open == 0


async def test_empty_log_of_terminating_pod_is_read_again_after_pause(runway: Runway) -> None:
    job_id, pod = await running(runway, b"")
    runway.kubernetes.terminate_pod(pod)

    async def reads() -> float:
        return await metric(runway, "runway_kubernetes_requests_total{pods/log")

    await asyncio.sleep(10)
    assert 8 <= await reads() <= 25, "one in half a second to a second"
    failed(runway, job_id, pod)
    assert (await final_record(runway, job_id))["state"] == "failed"


async def test_log_follow_ends_with_process(kubernetes: FakeKubernetes) -> None:
    log = FakeLog()
    async with serve(kubernetes) as runway:
        _, pod = await running(runway, log)
        kubernetes.terminate_pod(pod)

        async def followed() -> bool:
            return log.open == 1

        await runway.until(followed)
    assert log.open == 0


async def test_attempt_of_drained_pod_is_known_after_restart(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        job_id, pod = await running(before, b"on its way\n")
        kubernetes.terminate_pod(pod)
        kubernetes.end_pod(pod, exit_code=143)
        kubernetes.remove_pod(pod)

        async def noted() -> Json | None:
            return record_on(kubernetes, job_id)

        record = await before.until(noted)
        assert "state" not in record
    async with serve(kubernetes) as after:
        view = await after.view(job_id)
        assert (view["state"], [attempt["exit_code"] for attempt in view["attempts"]]) == ("pending", [143])
        second = kubernetes.start_pod(job_id)
        kubernetes.logs[second] = b"done\n"
        await after.until_state(job_id, "running")
        kubernetes.end_pod(second)
        kubernetes.complete(job_id)
        record = await final_record(after, job_id)
        assert [attempt["pod"] for attempt in record["attempts"]] == [pod, second]
        assert record["excerpt"]["text"] == "done\n"


async def test_job_that_finished_during_downtime_is_recorded_at_start(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        job_id, pod = await running(before)
    failed(before, job_id, pod)
    assert record_on(kubernetes, job_id) is None
    async with serve(kubernetes) as after:
        assert (await final_record(after, job_id))["failure"]["code"] == "exit_nonzero"
        await until_metric(after, "runway_jobs_finished_total", 1)


async def test_each_job_is_counted_once_across_restarts(kubernetes: FakeKubernetes) -> None:
    kubernetes.now = lambda: "2026-11-24T07:00:00Z"
    async with serve(kubernetes) as before:
        job_id, pod = await running(before)
        failed(before, job_id, pod)
        actual = float((await final_record(before, job_id))["actual"])
        assert actual > 0
        await until_metric(before, 'runway_jobs_finished_total{state="failed",tenant="vision"}', 1)
        assert await metric(before, 'runway_failures_total{category="user",code="exit_nonzero",tenant="vision"}') == 1
        assert await metric(before, 'runway_actual_cost_usd_total{tenant="vision"}') == actual
        assert await metric(before, 'runway_records_total{outcome="kept"}') == 1
        assert await metric(before, "runway_record_lag_seconds") == 0
    async with serve(kubernetes) as after:
        other, pod = await running(after)
        failed(after, other, pod)
        await final_record(after, other)
        await until_metric(after, "runway_jobs_finished_total", 1)
    assert records_sent(kubernetes) == 2


async def test_drained_job_that_exits_with_0_is_counted_and_stays_explained(runway: Runway) -> None:
    """https://github.com/kubernetes/kubernetes/issues/90636: the reason outlives the pod, in the record."""
    metric_name = 'runway_incomplete_successes_total{tenant="vision"}'
    assert await metric(runway, metric_name) == 0
    job_id, pod = await running(runway)
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    runway.kubernetes.set_status(pod, {**runway.kubernetes.pod(pod)["status"], "conditions": [drained]})
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    await final_record(runway, job_id)
    runway.kubernetes.remove_pod(pod)
    await until_metric(runway, metric_name, 1)
    view = await runway.view(job_id)
    assert view["state"] == "succeeded"
    assert "EvictionByEvictionAPI" in view["may_be_incomplete"]
    page = (await runway.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})).text
    assert "May be incomplete" in page
    assert "its work may be incomplete" in page


async def test_only_leader_writes_records_and_next_leader_continues(kubernetes: FakeKubernetes) -> None:
    async with AsyncExitStack() as one:
        first = await one.enter_async_context(serve(kubernetes, instance="one"))
        async with serve(kubernetes, instance="two", until="reader") as second:
            job_id, pod = await running(first)
            failed(first, job_id, pod)
            await final_record(first, job_id)
            assert (await second.until_state(job_id, "failed"))["excerpt"]["text"] == "last words\n"
            other, pod = await running(first)
            await one.aclose()
            failed(second, other, pod)
            await second.until_state(other, "failed")
            await final_record(second, other)
            await until_metric(second, "runway_jobs_finished_total", 1)
    assert records_sent(kubernetes) == 2


async def test_conflicting_write_reads_job_again(runway: Runway) -> None:
    job_id, pod = await running(runway)

    def changed() -> Response | None:
        job = copy_of(runway.kubernetes.job(job_id))
        job["metadata"]["annotations"]["somebody"] = "was here"
        runway.kubernetes.put("jobs", job, "MODIFIED")
        return None

    runway.kubernetes.before_patch.append(changed)
    failed(runway, job_id, pod)
    await final_record(runway, job_id)
    assert runway.kubernetes.job(job_id)["metadata"]["annotations"]["somebody"] == "was here"
    await until_metric(runway, 'runway_records_total{outcome="conflict"}', 1)
    await until_metric(runway, "runway_jobs_finished_total", 1)


async def test_ambiguous_write_is_counted_when_observed(runway: Runway) -> None:
    job_id, pod = await running(runway)
    runway.kubernetes.after_patch.append(lambda: Response(500, b"{}"))
    failed(runway, job_id, pod)
    await final_record(runway, job_id)
    await until_metric(runway, "runway_jobs_finished_total", 1)
    assert await metric(runway, 'runway_records_total{outcome="kept"}') == 1
    assert records_sent(runway.kubernetes) == 1


async def test_failed_write_is_retried_and_lag_is_reported(runway: Runway) -> None:
    job_id, pod = await running(runway)
    runway.kubernetes.before_patch.extend([lambda: Response(500, b"{}"), lambda: Response(403, b"{}")])
    failed(runway, job_id, pod)
    assert (await runway.until_state(job_id, "failed"))["failure"]["code"] == "exit_nonzero"

    async def behind() -> bool:
        return await metric(runway, "runway_record_lag_seconds") > 0

    await runway.until(behind)
    await final_record(runway, job_id)
    await until_metric(runway, "runway_record_lag_seconds", 0)
    assert await metric(runway, 'runway_records_total{outcome="failed"}') == 2


async def test_unreadable_log_does_not_block_record(runway: Runway) -> None:
    log = FakeLog(refusals=[Response(500, b"{}")] * 3, ended=True)
    job_id, pod = await running(runway, log)
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    record = await final_record(runway, job_id)
    assert "excerpt" not in record
    assert await metric(runway, 'runway_records_total{outcome="log_lost"}') == 1


async def test_record_contains_no_secrets(runway: Runway) -> None:
    env = {"SITE_TOKEN": "hf_abcdefgh", "EPOCHS": "12345"}
    job_id, pod = await running(runway, b"login with hf_abcdefgh\nfor 12345 epochs\n", env=env)
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    record = await final_record(runway, job_id)
    assert record["excerpt"]["text"] == "login with ***\nfor 12345 epochs\n"
    assert "hf_abcdefgh" not in json.dumps(record)


async def test_edited_record_is_rewritten_and_not_counted_again(runway: Runway) -> None:
    job_id, pod = await running(runway)
    failed(runway, job_id, pod)
    await final_record(runway, job_id)
    await until_metric(runway, "runway_jobs_finished_total", 1)
    job = copy_of(runway.kubernetes.job(job_id))
    job["metadata"]["annotations"][RECORD] = '{"state": "succeeded"'
    runway.kubernetes.put("jobs", job, "MODIFIED")
    await until_metric(runway, 'runway_records_total{outcome="kept"}', 2)
    assert (await final_record(runway, job_id))["state"] == "failed"
    assert await metric(runway, "runway_jobs_finished_total") == 1


async def test_job_without_pod_is_recorded_without_cost(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    assert (await runway.cancel(job_id)).status_code == 202
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    record = await final_record(runway, job_id)
    assert (record["state"], record["actual"]) == ("cancelled", "0.000000")
    assert (await runway.view(job_id))["cost"]["actual"] == "0.000000"
