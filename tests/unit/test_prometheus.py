"""Prometheus client: escaping of matchers, and failures."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runway.errors import PrometheusUnavailable
from runway.prometheus import (
    MAX_CONCURRENT_QUERIES,
    MAX_PENDING_QUERIES,
    MAX_RESPONSE_BYTES,
    Prometheus,
    matching,
    matching_any,
)
from testbed.waiting import GUARD_SECONDS
from tests.support.fake_prometheus import FakePrometheus, fake_prometheus, vector

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture
async def fake() -> AsyncIterator[FakePrometheus]:
    async with fake_prometheus() as running:
        yield running


@pytest.fixture
async def client(fake: FakePrometheus) -> AsyncIterator[Prometheus]:
    client = Prometheus(fake.url, seconds=GUARD_SECONDS)
    yield client
    await client.close()


@given(TEXT)
@example('"} or up{x="')
@example("a\\")
@example("line\nfeed\x00\x7f\u2028")
def test_matching_contains_exactly_its_value(value: str) -> None:
    label, literal = matching("pod", value).split("=", 1)

    assert label == "pod"
    assert go_string(literal) == value


@given(st.lists(TEXT, min_size=1, max_size=3))
@example([".*", "a|b", "$^"])
def test_matching_any_matches_exactly_its_values(values: list[str]) -> None:
    _, literal = matching_any("pod", values).split("=~", 1)
    pattern = re.compile(go_string(literal), re.DOTALL)

    assert all(pattern.fullmatch(value) for value in values)
    for other in ("x", "rw-aaa", "a", *(value + "x" for value in values)):
        assert bool(pattern.fullmatch(other)) is (other in values)


async def test_query_is_sent_as_form_with_its_time(client: Prometheus, fake: FakePrometheus) -> None:
    fake.samples = [({"pod": "a"}, "0.5"), ({"pod": "b"}, "1e3")]
    samples = await client.query("up", at=datetime(2026, 11, 24, 8, tzinfo=UTC))
    await client.query("up")

    assert [(sample.labels["pod"], sample.value) for sample in samples] == [("a", 0.5), ("b", 1000.0)]
    assert fake.queries == [{"query": "up", "time": "1795507200.0"}, {"query": "up"}]


async def test_nan_and_infinities_are_dropped(client: Prometheus, fake: FakePrometheus) -> None:
    fake.samples = [({"x": value}, value) for value in ("NaN", "+Inf", "-Inf", "7")]

    assert [sample.value for sample in await client.query("up")] == [7.0]


async def test_empty_result_has_no_sample(client: Prometheus) -> None:
    assert await client.query("up") == []


def answers(**data: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": []} | data}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'{"status": "success"}',
        b"\xff\xfe",
        b"[" * 100_000,
        answers(result={"a": 1}),
        answers(result=[{"metric": {}, "value": [1]}]),
        answers(result=[{"metric": {}, "value": [1, "seven"]}]),
        answers(result=[{"metric": {}, "value": [1, 7]}]),
        answers(result=[{"metric": {"pod": 7}, "value": [1, "7"]}]),
        answers(resultType="matrix"),
        answers(resultType="scalar", result=[1, "7"]),
        json.dumps(vector() | {"status": "error", "error": "sorry"}).encode(),
    ],
)
async def test_invalid_response_is_unavailable_with_reason(
    client: Prometheus, fake: FakePrometheus, body: bytes
) -> None:
    fake.body = body
    with pytest.raises(PrometheusUnavailable, match="Prometheus") as caught:
        await client.query("up")
    assert len(str(caught.value)) < 400


async def test_oversized_response_is_unavailable(client: Prometheus, fake: FakePrometheus) -> None:
    fake.body = b" " * (MAX_RESPONSE_BYTES + 1)
    with pytest.raises(PrometheusUnavailable, match="larger than"):
        await client.query("up")


async def test_compressed_response_is_not_decompressed(client: Prometheus, fake: FakePrometheus) -> None:
    fake.body, fake.headers = b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}
    with pytest.raises(PrometheusUnavailable, match="could not be read"):
        await client.query("up")


async def test_rejection_contains_reason_of_prometheus(client: Prometheus, fake: FakePrometheus) -> None:
    fake.status, fake.body = 422, b'{"status": "error", "errorType": "execution", "error": "too many samples"}'
    with pytest.raises(PrometheusUnavailable, match="answered 422: too many samples"):
        await client.query("up")


async def test_redirect_is_not_followed(client: Prometheus, fake: FakePrometheus) -> None:
    fake.status, fake.headers = 307, {"Location": fake.url + "api/v1/query"}
    with pytest.raises(PrometheusUnavailable, match="answered 307"):
        await client.query("up")
    assert len(fake.queries) == 1


async def test_query_times_out(fake: FakePrometheus) -> None:
    fake.gate.clear()
    client = Prometheus(fake.url, seconds=0.05)
    with pytest.raises(PrometheusUnavailable, match=r"did not answer within 0\.05 s"):
        await client.query("up")
    await client.close()


async def test_refused_connection_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound and not listening, so the kernel refuses connections.
        client = Prometheus(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(PrometheusUnavailable, match=r"no connection to Prometheus: .*refused"):
            await client.query("up")
        await client.close()


async def test_slow_queries_of_one_tenant_delay_no_query_of_another(client: Prometheus, fake: FakePrometheus) -> None:
    fake.gate.clear()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(client.query("vision", "runway-vision")) for _ in range(MAX_PENDING_QUERIES // 2)]
        await fake.until_asked(MAX_CONCURRENT_QUERIES // 2)
        with pytest.raises(PrometheusUnavailable, match="32 queries to Prometheus are pending"):
            await client.query("vision", "runway-vision")
        waiting.append(tasks.create_task(client.query("speech", "runway-speech")))
        await fake.until_asked(MAX_CONCURRENT_QUERIES // 2 + 1)
        assert fake.queries[-1] == {"query": "speech"}
        fake.gate.set()
    assert [task.result() for task in waiting] == [[]] * len(waiting)


async def test_password_is_sent_and_not_in_messages(fake: FakePrometheus) -> None:
    client = Prometheus(fake.url.replace("http://", "http://reader:s3cret@"), seconds=GUARD_SECONDS)
    await client.query("up")
    assert (fake.credentials or "").startswith("Basic ")

    fake.status = 401
    with pytest.raises(PrometheusUnavailable) as caught:
        await client.query("up")
    assert "s3cret" not in str(caught.value)
    await client.close()


def go_string(literal: str) -> str:
    """Unquote a Go literal. Of the escapes accept those with the same meaning in Go and JSON."""
    assert re.fullmatch(r'"(?:[^"\\\n]|\\["\\bfnrt]|\\u[0-9a-f]{4})*"', literal)
    return str(json.loads(literal, strict=False))
