"""Callers without a tenant header: shared streams, no cancel, hidden values."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import pytest

from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes

TENANT = {"X-Tenant-ID": "vision"}
VALUE = "only-for-its"
ENV = {"MODE": VALUE, "EMPTY": ""}
HIDDEN = {"MODE": "<hidden: 12 characters>", "EMPTY": "<hidden: 0 characters>"}


# Streams


async def test_anonymous_streams_do_not_count_against_the_tenant(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    path = f"/v1/jobs/{job_id}/events"
    async with AsyncExitStack() as opened:
        for _ in range(25):
            stream = await opened.enter_async_context(runway.stream(path))
            await stream.until(b"pending")
        for url in (path, f"/v1/jobs/{job_id}/logs?follow=true"):
            refused = await runway.client.get(url)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"]
            assert "callers without a tenant header: 25 of 25 streams are open" in refused.json()["detail"]
        for _ in range(20):
            own = await opened.enter_async_context(runway.stream(path, x_tenant_id="vision"))
            await own.until(b"pending")
        refused = await runway.client.get(path, headers=TENANT)
        assert "tenant vision: 20 of 20 streams are open" in refused.json()["detail"]
    assert runway.app.state.services.limits.streams.total() == 0


async def test_at_least_one_anonymous_stream_is_allowed(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, max_streams=2) as runway:
        path = f"/v1/jobs/{(await runway.submit()).json()['id']}/events"
        async with runway.stream(path) as stream:
            await stream.until(b"pending")
            assert (await runway.client.get(path)).status_code == 429


# Cancel


@pytest.mark.parametrize("headers", [[], [("X-Tenant-ID", "")], [("X-Tenant-ID", "vision"), ("X-Tenant-ID", "vision")]])
async def test_cancel_requires_exactly_one_tenant_header(runway: Runway, headers: list[tuple[str, str]]) -> None:
    job_id = (await runway.submit()).json()["id"]
    answer = await runway.client.request("DELETE", f"/v1/jobs/{job_id}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "tenant_required")
    assert (await runway.view(job_id))["state"] == "pending"


async def test_cancel_of_job_of_another_tenant_is_not_found(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    assert (await runway.cancel(job_id, "speech")).json()["code"] == "job_not_found"
    assert (await runway.cancel(job_id, "nobody")).json()["code"] == "unknown_tenant"
    assert (await runway.view(job_id))["state"] == "pending"


# Environment values


async def test_only_the_own_tenant_reads_environment_values(runway: Runway) -> None:
    accepted = await runway.submit(env=ENV, headers={"Idempotency-Key": "one"})
    job_id = accepted.json()["id"]
    replay = await runway.submit(env=ENV, headers={"Idempotency-Key": "one"})
    assert accepted.json()["spec"]["env"] == replay.json()["spec"]["env"] == ENV
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs", "/v1/jobs?tenant=vision", f"/jobs/{job_id}", "/jobs", "/"):
        answer = await runway.client.get(path)
        assert answer.status_code == 200
        assert VALUE not in answer.text, path
    assert (await runway.view(job_id))["spec"]["env"] == HIDDEN
    assert (await runway.client.get("/v1/jobs")).json()["jobs"][0]["spec"]["env"] == HIDDEN
    assert (await runway.client.get(f"/v1/jobs/{job_id}", headers=TENANT)).json()["spec"]["env"] == ENV
    assert (await runway.client.get("/v1/jobs", headers=TENANT)).json()["jobs"][0]["spec"]["env"] == ENV
    assert (await runway.cancel(job_id)).json()["spec"]["env"] == ENV


async def test_event_stream_hides_values_and_its_ids_differ_by_caller(runway: Runway) -> None:
    job_id = (await runway.submit(env=ENV)).json()["id"]
    path = f"/v1/jobs/{job_id}/events"
    ids = []
    for headers, env in (({}, HIDDEN), ({"x_tenant_id": "vision"}, ENV)):
        async with runway.stream(path, **headers) as stream:
            await stream.until(b"data: ")
            event = dict(line.split(": ", 1) for line in stream.body.decode().split("\n\n")[1].splitlines())
            assert json.loads(event["data"])["spec"]["env"] == env
            ids.append(event["id"])
    assert ids[0] != ids[1]


async def test_page_shows_names_and_lengths_of_variables(runway: Runway) -> None:
    job_id = (await runway.submit(env=ENV)).json()["id"]
    for headers in ({}, TENANT):
        page = (await runway.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html", **headers})).text
        assert '<code>MODE</code> <span class="muted">12 characters</span>' in page
        assert f"runway status {job_id} --tenant vision -o json" in page
        assert VALUE not in page
