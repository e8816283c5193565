"""Log streams: waiting for the container, broken connections, complete ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runway.errors import AmbiguousOutcome
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import SECOND, Cut, FakeLog

RESET = AmbiguousOutcome("the connection to the Kubernetes API broke: reset")


async def running(runway: Runway, **spec: Any) -> tuple[str, str, FakeLog]:
    """Start a job, and return its id, its pod and the log of the pod."""
    job_id = (await runway.submit(**spec)).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.logs[pod] = log = FakeLog()
    await runway.until_state(job_id, "running")
    return job_id, pod, log


def follow(job_id: str, **query: str | int) -> str:
    return f"/v1/jobs/{job_id}/logs?follow=true" + "".join(f"&{name}={value}" for name, value in query.items())


async def test_follow_waits_for_the_pod_and_ends_with_the_container(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(follow(job_id)) as stream:
        name = f"{job_id}-0"
        runway.kubernetes.logs[name] = log = FakeLog()
        assert runway.kubernetes.start_pod(job_id, running=False, node=None) == name
        runway.kubernetes.set_status(name, {"phase": "Pending"})
        await asyncio.sleep(0.05)
        assert stream.status == 0
        running = {"name": "job", "state": {"running": {"startedAt": "2026-11-24T08:00:00Z"}}}
        pod = runway.kubernetes.pod(name)
        pod["spec"]["nodeName"] = "node-1"
        runway.kubernetes.set_status(name, {"phase": "Running", "containerStatuses": [running]})
        assert await stream.begun() == 200
        assert stream.headers["runway-attempt"] == "1"
        log.write(b"one", b"\xff\x00two\r", b"")
        await stream.until(b"two")
        assert stream.ended is None
        runway.kubernetes.end_pod(name)
        assert await stream.end() == b"one\n\xff\x00two\r\n\n"
        assert stream.ended is True


async def test_log_is_that_of_the_job_container_beside_an_injected_one(runway: Runway) -> None:
    """https://github.com/dagster-io/dagster/issues/4474: without a name Kubernetes refuses to choose a container."""
    job_id, pod, log = await running(runway)
    found = runway.kubernetes.pod(pod)
    found["spec"]["containers"] = [{"name": "a-proxy"}, *found["spec"]["containers"]]
    times = {"startedAt": "2026-11-24T08:00:00Z", "finishedAt": "2026-11-24T08:00:00Z"}
    ended = {"name": "job", "state": {"terminated": {"exitCode": 0, **times}}}
    proxy = {"name": "a-proxy", "state": {"running": {"startedAt": "2026-11-24T08:00:00Z"}}}
    async with runway.stream(follow(job_id)) as stream:
        log.write(b"one")
        await stream.until(b"one")
        runway.kubernetes.set_status(pod, {"phase": "Running", "containerStatuses": [proxy, ended]})
        log.end()
        assert await stream.end() == b"one\n"
        assert stream.ended is True, "the log ends with the job's container, not with its pod"
    assert {query["container"] for query in log.queries} == {"job"}
    view = await runway.view(job_id)
    assert view["state"] == "running"
    assert [condition["code"] for condition in view["conditions"]] == ["other_container_running"]


@pytest.mark.parametrize("query", ["", "?follow=true", "?tail=1", "?attempt=1&timestamps=true"])
async def test_headers_say_that_the_beginning_of_a_log_may_be_missing(runway: Runway, query: str) -> None:
    """https://github.com/kubernetes/kubernetes/issues/11046"""
    job_id, pod, log = await running(runway)
    log.write(b"early")
    log.rotate()
    log.write(b"late", step=20 * SECOND)
    runway.kubernetes.end_pod(pod)
    for method in ("GET", "HEAD"):
        answer = await runway.client.request(method, f"/v1/jobs/{job_id}/logs{query}")
        assert answer.headers["runway-log-first-line"] == "2026-11-24T08:00:20.000001000Z"
        assert "earlier lines are missing if the log was too large" in answer.headers["runway-log-warning"]
        assert b"early" not in answer.content


async def test_log_of_a_job_that_waits_says_why(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    answer = await runway.client.get(f"/v1/jobs/{job_id}/logs")
    assert (answer.status_code, answer.json()["code"]) == (404, "logs_not_ready")
    assert "pod_not_created" in answer.json()["detail"]


async def test_log_of_a_job_whose_image_fails_says_so_once(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id, running=False)
    waiting = {"reason": "ErrImagePull", "message": "dial tcp: no such host"}
    runway.kubernetes.set_status(
        pod, {"phase": "Pending", "containerStatuses": [{"name": "job", "state": {"waiting": waiting}}]}
    )

    async def detail() -> str | None:
        said = (await runway.client.get(f"/v1/jobs/{job_id}/logs")).json()["detail"]
        return said if "no such host" in said else None

    said = await runway.until(detail)
    assert said.startswith("image_pull_failing: ")
    assert "Kubernetes answered" not in said


@pytest.mark.parametrize("query", ["", "?follow=true", "?attempt=1"])
@pytest.mark.parametrize("deleted", [False, True])
async def test_log_of_a_container_that_never_started_says_so(runway: Runway, query: str, deleted: bool) -> None:
    job_id, pod, _ = await running(runway)
    runway.kubernetes.end_pod(pod, 128, "StartError", 'exec: "trainn": executable file not found in $PATH: unknown')
    runway.kubernetes.fail(job_id)
    await runway.until_state(job_id, "failed")
    if deleted:
        runway.kubernetes.remove_pod(pod)
    answer = await runway.client.get(f"/v1/jobs/{job_id}/logs{query}")
    assert (answer.status_code, answer.json()["code"]) == (404, "logs_not_ready")
    assert "started" in answer.json()["detail"]
    assert "the image has no such program" in answer.json()["detail"]


async def test_waiting_log_stream_counts_as_open_until_closed(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, max_streams=1) as runway:
        job_id = (await runway.submit()).json()["id"]
        async with runway.stream(follow(job_id), x_tenant_id="vision"):

            async def waiting() -> bool:
                return bool(runway.app.state.services.limits.streams.total())

            await runway.until(waiting)
            answer = await runway.client.get(f"/v1/jobs/{job_id}/events")
            assert (answer.status_code, answer.json()["code"]) == (503, "too_busy")
        async with runway.stream(follow(job_id), x_tenant_id="vision") as stream:
            await asyncio.sleep(0.02)
            assert stream.status == 0, "the closed stream has released its slot"


@pytest.mark.parametrize("attempt", ["", "&attempt=1"])
async def test_follow_of_job_that_never_starts_is_logs_not_ready(runway: Runway, attempt: str) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(follow(job_id) + attempt) as stream:
        pod = runway.kubernetes.start_pod(job_id, running=False, node=None)
        runway.kubernetes.fail(job_id, "DeadlineExceeded")
        runway.kubernetes.remove_pod(pod)
        assert await stream.begun() == 404
        await stream.end()
        assert stream.json()["code"] == "logs_not_ready"
        assert "no container" in stream.json()["detail"] or "before a container" in stream.json()["detail"]


@pytest.mark.parametrize("query", ["?follow=true", "?follow=true&attempt=1", ""])
async def test_container_with_status_unknown_has_no_log(runway: Runway, query: str) -> None:
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id, running=False)
    unknown = {"exitCode": 137, "reason": "ContainerStatusUnknown"}
    status = {"name": "job", "containerID": "", "state": {"terminated": unknown}}
    runway.kubernetes.set_status(pod, {"phase": "Failed", "containerStatuses": [status]})
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    runway.kubernetes.remove_pod(pod)
    await runway.until_state(job_id, "failed")
    answer = await runway.client.get(f"/v1/jobs/{job_id}/logs{query}")
    assert (answer.status_code, answer.json()["code"]) == (404, "logs_not_ready")


async def test_follow_of_deleted_job_is_not_found(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(follow(job_id)) as stream:
        await asyncio.sleep(0.02)
        runway.kubernetes.delete_job(job_id)
        assert await stream.begun() == 404
        await stream.end()
        assert stream.json()["code"] == "job_not_found"


async def test_log_cut_by_pod_deletion_ends_as_incomplete(runway: Runway) -> None:
    job_id, pod, log = await running(runway)
    log.write(b"one", b"two")
    log.cuts = [Cut(50, RESET)] + [Cut(0, RESET)] * 50
    async with runway.stream(follow(job_id)) as stream:
        await stream.until(b"one")
        runway.kubernetes.end_pod(pod, exit_code=143)
        runway.kubernetes.remove_pod(pod)
        await stream.end()
        assert stream.ended is False, "a client can tell that the rest is missing"


async def test_log_of_pod_deleted_after_its_end_is_complete(runway: Runway) -> None:
    job_id, pod, log = await running(runway)
    log.write(b"one")
    async with runway.stream(follow(job_id)) as stream:
        await stream.until(b"one")
        runway.kubernetes.terminate_pod(pod)
        log.write(b"last")
        runway.kubernetes.end_pod(pod, exit_code=143)
        runway.kubernetes.remove_pod(pod)
        assert await stream.end() == b"one\nlast\n"
        assert stream.ended is True


async def test_log_without_follow_resumes_after_a_broken_connection(runway: Runway) -> None:
    job_id, _, log = await running(runway)
    log.write(*(b"line %d" % number for number in range(5)))
    log.cuts = [Cut(100, RESET)]
    answer = await runway.client.get(f"/v1/jobs/{job_id}/logs?tail=3")
    assert answer.content == b"line 2\nline 3\nline 4\n"
    assert [query.get("tailLines") for query in log.queries] == ["3", None]


async def test_client_disconnect_closes_the_kubernetes_stream(runway: Runway) -> None:
    job_id, _, log = await running(runway)
    log.write(b"one")
    async with runway.stream(follow(job_id)) as stream:
        await stream.until(b"one")
        assert log.open == 1
        await stream.go()
        assert log.open == 0
    limits = runway.app.state.services.limits
    assert limits.streams.total() == 0


async def test_slow_client_applies_backpressure(runway: Runway) -> None:
    job_id, pod, log = await running(runway)
    async with runway.stream(follow(job_id)) as stream:
        await stream.begun()
        log.write(b"one")
        await stream.until(b"one")
        stream.reading.clear()
        for number in range(20):
            log.write(b"x" * 1000 + b"%d" % number)
            await asyncio.sleep(0)
        stream.reading.set()
        runway.kubernetes.end_pod(pod)
        assert (await stream.end()).count(b"\n") == 21


async def test_client_that_closes_its_sending_side_gets_the_log_however_slowly_it_reads(runway: Runway) -> None:
    job_id, _, log = await running(runway)
    log.write(b"one", b"two")
    async with runway.stream(f"/v1/jobs/{job_id}/logs") as stream:
        stream.reading.clear()
        stream.close_sending_side()
        await asyncio.sleep(60)  # Of virtual time.
        stream.reading.set()
        assert await stream.end() == b"one\ntwo\n"
        assert stream.ended is True


@pytest.mark.parametrize("query", ["", "?follow=true"])
async def test_client_that_may_be_gone_keeps_no_stream_that_waits_for_kubernetes(runway: Runway, query: str) -> None:
    job_id, _, log = await running(runway)
    log.stuck = True
    async with runway.stream(f"/v1/jobs/{job_id}/logs{query}") as stream:
        stream.close_sending_side()
        await stream.end()
        assert (stream.status, stream.json()["code"]) == (400, "malformed_request")
        assert runway.app.state.services.limits.streams.total() == 0
    assert log.open == 0


async def test_streams_end_at_shutdown(runway: Runway) -> None:
    job_id, _, log = await running(runway)
    log.write(b"one")
    waiting = (await runway.submit()).json()["id"]
    paths = (follow(job_id), f"/v1/jobs/{job_id}/events", follow(waiting))
    async with runway.stream(paths[0]) as logs, runway.stream(paths[1]) as events, runway.stream(paths[2]) as waits:
        await logs.until(b"one")
        await events.until(b"running")
        await asyncio.sleep(0.01)
        runway.app.state.services.closing.set()
        await asyncio.gather(logs.end(), events.end(), waits.end())
        assert (logs.ended, events.ended) == (False, False)
        assert (waits.status, waits.json()["code"]) == (503, "not_ready")
    assert log.open == 0


async def test_attempts_are_numbered_as_in_the_view(runway: Runway) -> None:
    job_id = (await runway.submit(retries=1)).json()["id"]
    first = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.logs[first] = b"first\n"
    runway.kubernetes.end_pod(first, exit_code=1)

    async def ended() -> bool:
        return bool([item["state"] for item in (await runway.view(job_id))["attempts"]] == ["failed"])

    await runway.until(ended)
    assert (await runway.client.get(f"/v1/jobs/{job_id}/logs?attempt=3")).json()["code"] == "invalid_parameter"
    assert (await runway.client.get(f"/v1/jobs/{job_id}/logs?attempt=2")).json()["code"] == "logs_not_ready"
    async with runway.stream(follow(job_id, attempt=2)) as stream:
        await asyncio.sleep(0.02)
        assert stream.status == 0
        runway.kubernetes.logs[f"{job_id}-1"] = FakeLog.of(b"second\n")
        second = runway.kubernetes.start_pod(job_id)
        runway.kubernetes.end_pod(second)
        runway.kubernetes.complete(job_id)
        assert await stream.end() == b"second\n"
        assert stream.headers["runway-attempt"] == "2"
    assert (await runway.client.get(f"/v1/jobs/{job_id}/logs?attempt=1")).content == b"first\n"
