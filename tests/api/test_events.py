"""The event stream: a job's views as they change, to the last one, for slow clients and after breaks too."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runway.policy import parse_policy
from tests.api.conftest import POLICY, Runway, serve
from tests.support.fake_cluster import FakeKubernetes


def events(body: bytes) -> list[dict[str, str]]:
    """The events of a stream as https://html.spec.whatwg.org/multipage/server-sent-events.html reads them."""
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


async def test_a_job_is_watched_from_its_beginning_to_its_end(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(path(job_id)) as stream:
        await stream.until(b"pending")
        runway.kubernetes.start_pod(job_id)
        await stream.until(b'"running"')
        await succeeded(runway, job_id)
        body = await stream.end()
        assert stream.ended is True
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store"
    assert body.startswith(b"retry: 2000\n\n")
    seen = views(body)
    assert [seen[0]["state"], seen[-1]["state"]] == ["pending", "succeeded"]
    assert "running" in {view["state"] for view in seen}
    assert seen[-1] == await runway.view(job_id)
    assert len({event["id"] for event in events(body)}) == len(seen)


async def test_it_is_resumed_where_it_broke_off_in_another_process_too(kubernetes: FakeKubernetes) -> None:
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
            assert events(stream.body) == [], "what was seen is not repeated"
            await succeeded(runway, job_id)
            assert views(await stream.end())[-1]["state"] == "succeeded"
        async with runway.stream(path(job_id), last_event_id="0" * 32) as stream:
            ended = events(await stream.end())
            assert len(ended) == 1
        assert (await runway.client.get(path(job_id), headers={"Last-Event-ID": ended[0]["id"]})).status_code == 204


async def test_a_client_that_does_not_read_is_given_the_latest_view_and_no_queue(runway: Runway) -> None:
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


async def test_a_job_that_is_deleted_is_said_to_be_gone(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(path(job_id)) as stream:
        await stream.until(b"pending")
        runway.kubernetes.delete_job(job_id)
        last = events(await stream.end())[-1]
        assert (last["event"], json.loads(last["data"])) == ("gone", {"id": job_id})
        assert stream.ended is True
    assert (await runway.client.get(path(job_id))).json()["code"] == "job_not_found"


async def test_it_is_one_of_the_tenants_streams_and_leaves_nothing_behind(kubernetes: FakeKubernetes) -> None:
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
        assert use.observer.readers == 0


@pytest.mark.parametrize("last", ["x" * 60_000, "\x00\x01\x1b[2J", "\xff\xfe", "a\tb", "", "{}", "*", "../.."])
async def test_hostile_ids_are_ids_that_were_not_sent(runway: Runway, last: str) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(path(job_id), last_event_id=last) as stream:
        assert views(await stream.until(b"pending"))[0]["state"] == "pending"


async def test_unknown_jobs_and_other_tenants_jobs_are_not_found(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    for url, headers in ((path("rw-" + "a" * 20), {}), (path("x"), {}), (path(job_id), {"X-Tenant-ID": "speech"})):
        answer = await runway.client.get(url, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_openapi_tells_of_the_stream(runway: Runway) -> None:
    paths = (await runway.client.get("/openapi.json")).json()["paths"]
    told = paths["/v1/jobs/{job_id}/events"]["get"]
    assert {"200", "204", "400", "403", "404", "429", "503"} <= told["responses"].keys()
    assert list(told["responses"]["200"]["content"]) == ["text/event-stream"]
    assert "Last-Event-ID" in [parameter.get("name") for parameter in told["parameters"]]
    logs = paths["/v1/jobs/{job_id}/logs"]["get"]["responses"]["200"]
    assert list(logs["content"]) == ["text/plain"]
    assert "Runway-Attempt" in logs["headers"]
