"""The event stream: views of a job, slow clients and resumption."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runway.policy import parse_policy
from tests.api.conftest import POLICY, Runway, serve
from tests.support.fake_cluster import FakeKubernetes


def events(body: bytes) -> list[dict[str, str]]:
    """Return the events of a stream as https://html.spec.whatwg.org/multipage/server-sent-events.html reads them."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append(fields)
    return found


def views(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(event["data"]) for event in events(body) if "event" not in event]


def path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/events"


async def succeeded(runway: Runway, job_id: str) -> None:
    runway.kubernetes.end_pod(f"{job_id}-0")
    runway.kubernetes.complete(job_id)
    await runway.until_state(job_id, "succeeded")


async def test_stream_follows_a_job_to_its_end(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(path(job_id)) as stream:
        await stream.until(b"pending")
        runway.kubernetes.start_pod(job_id)
        await stream.until(b'"running"')
        await succeeded(runway, job_id)
        body = await stream.end()
        assert stream.ended is True
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store, no-transform"
    assert body.startswith(b"retry: 2000\n\n")
    seen = views(body)
    assert [seen[0]["state"], seen[-1]["state"]] == ["pending", "succeeded"]
    assert "running" in {view["state"] for view in seen}
    assert seen[-1] == await runway.view(job_id)
    assert len({event["id"] for event in events(body)}) == len(seen)


async def test_stream_resumes_in_another_process(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as runway:
        job_id = (await runway.submit()).json()["id"]
        kubernetes.start_pod(job_id)
        await runway.until_state(job_id, "running")
        async with runway.stream(path(job_id)) as stream:
            last = events(await stream.until(b"running"))[-1]["id"]
    async with serve(kubernetes) as runway:
        async with runway.stream(path(job_id), last_event_id=last) as stream:
            await stream.until(b"retry")
            await asyncio.sleep(0.02)
            assert events(stream.body) == [], "the stream repeats no view"
            await succeeded(runway, job_id)
            assert views(await stream.end())[-1]["state"] == "succeeded"
        async with runway.stream(path(job_id), last_event_id="0" * 32) as stream:
            ended = events(await stream.end())
            assert len(ended) == 1
        assert (await runway.client.get(path(job_id), headers={"Last-Event-ID": ended[0]["id"]})).status_code == 204


async def test_readers_of_one_job_follow_it_as_their_tenants_may(runway: Runway) -> None:
    job_id = (await runway.submit(env={"EPOCHS": "90"})).json()["id"]
    own = {"X-Tenant-ID": "vision"}
    async with runway.stream(path(job_id), x_tenant_id="vision") as one, runway.stream(path(job_id)) as other:
        await asyncio.gather(one.until(b"pending"), other.until(b"pending"))
        runway.kubernetes.start_pod(job_id)
        await asyncio.gather(one.until(b'"running"'), other.until(b'"running"'))
        await succeeded(runway, job_id)
        last_of_one, last_of_other = [views(await stream.end())[-1] for stream in (one, other)]
    assert last_of_one == (await runway.client.get(f"/v1/jobs/{job_id}", headers=own)).json()
    assert last_of_other == await runway.view(job_id)
    assert (last_of_one["spec"]["env"]["EPOCHS"], last_of_one["state"]) == ("90", "succeeded")
    assert "90" not in last_of_other["spec"]["env"]["EPOCHS"]


async def test_slow_client_gets_the_latest_view_without_a_queue(runway: Runway) -> None:
    job_id = (await runway.submit(retries=3)).json()["id"]
    async with runway.stream(path(job_id)) as stream:
        await stream.until(b"pending")
        stream.reading.clear()
        for _ in range(3):
            pod = runway.kubernetes.start_pod(job_id)
            await runway.until_state(job_id, "running")
            runway.kubernetes.end_pod(pod, exit_code=1)
            await runway.until_state(job_id, "pending")
        runway.kubernetes.start_pod(job_id)
        runway.kubernetes.end_pod(f"{job_id}-3")
        runway.kubernetes.complete(job_id)
        await runway.until_state(job_id, "succeeded")
        stream.reading.set()
        seen = views(await stream.end())
    assert seen[-1]["state"] == "succeeded"
    assert len(seen) <= 3


async def test_deleted_job_ends_the_stream_with_a_gone_event(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(path(job_id)) as stream:
        await stream.until(b"pending")
        runway.kubernetes.delete_job(job_id)
        last = events(await stream.end())[-1]
        assert (last["event"], json.loads(last["data"])) == ("gone", {"id": job_id})
        assert stream.ended is True
    assert (await runway.client.get(path(job_id))).json()["code"] == "job_not_found"


async def test_event_stream_counts_as_a_stream_and_is_cleaned_up(kubernetes: FakeKubernetes) -> None:
    rate = "rate: {per_minute: 6, burst: 5"
    policy = parse_policy(POLICY.read_text().replace(rate, f"{rate}, streams: 2"))
    async with serve(kubernetes, policy=policy) as runway:
        job_id = (await runway.submit("speech")).json()["id"]
        own = {"x_tenant_id": "speech"}
        async with runway.stream(path(job_id), **own) as one, runway.stream(path(job_id), **own) as two:
            await asyncio.gather(one.until(b"pending"), two.until(b"pending"))
            for url in (path(job_id), f"/v1/jobs/{job_id}/logs?follow=true"):
                refused = await runway.client.get(url, headers={"X-Tenant-ID": "speech"})
                assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
                assert refused.headers["retry-after"]
        use = runway.app.state.services
        assert use.limits.streams.total() == 0
        assert len(use.cluster.subscriptions) == 0


@pytest.mark.parametrize("last", ["x" * 60_000, "\x00\x01\x1b[2J", "\xff\xfe", "a\tb", "", "{}", "*", "../.."])
async def test_hostile_last_event_id_is_ignored(runway: Runway, last: str) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(path(job_id), last_event_id=last) as stream:
        assert views(await stream.until(b"pending"))[0]["state"] == "pending"


async def test_unknown_jobs_and_jobs_of_other_tenants_are_not_found(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    for url, headers in ((path("rw-" + "a" * 20), {}), (path("x"), {}), (path(job_id), {"X-Tenant-ID": "speech"})):
        answer = await runway.client.get(url, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_openapi_describes_the_stream(runway: Runway) -> None:
    paths = (await runway.client.get("/openapi.json")).json()["paths"]
    operation = paths["/v1/jobs/{job_id}/events"]["get"]
    assert {"200", "204", "400", "403", "404", "429", "503"} <= operation["responses"].keys()
    assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Last-Event-ID" in [parameter.get("name") for parameter in operation["parameters"]]
    logs = paths["/v1/jobs/{job_id}/logs"]["get"]["responses"]["200"]
    assert list(logs["content"]) == ["text/plain"]
    assert "Runway-Attempt" in logs["headers"]
