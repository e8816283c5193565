"""`runway wait` on the event stream: output, broken connections, limits."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.client import MAX_EVENT_BYTES
from tests.support.cli import Answer, Chunks, Clock, FakeRunway, attempt, job, problem, reply, runway

HEARTBEAT = b": no change\n\n"
BROKEN = httpx2.ReadError("connection reset by peer")
UNEXPECTED_READ = AssertionError("the job was read although its stream was complete")


def event(view: dict[str, Any], event_id: str) -> bytes:
    return f"id: {event_id}\ndata: {json.dumps(view)}\n\n".encode()


def stream(*chunks: bytes | Exception) -> httpx2.Response:
    return httpx2.Response(200, stream=Chunks(*chunks), headers={"Content-Type": "text/event-stream"})


def wait(fake: FakeRunway, *flags: str, clock: Clock | None = None) -> Any:
    return runway("wait", "rw-4f2a", *flags, answers=fake, clock=clock)


def test_one_stream_follows_a_job_to_its_end() -> None:
    clock = Clock()
    views = [event(job("pending"), "1"), HEARTBEAT, event(job("running"), "2"), event(job("succeeded"), "3")]
    fake = FakeRunway([UNEXPECTED_READ], events=[stream(b"retry: 2000\n\n", *views)])
    result = wait(fake, clock=clock)
    assert result.exit_code == 0
    assert [line.split(" (")[0] for line in result.stderr.splitlines()] == ["rw-4f2a is pending", "rw-4f2a is running"]
    assert result.stdout.startswith("rw-4f2a succeeded")
    assert (clock.slept, len(fake.streams)) == ([], 1)
    assert fake.streams[0].headers["Accept"] == "text/event-stream"


def test_wait_reads_the_last_view_with_the_record() -> None:
    bare, kept = job("failed"), job("failed", excerpt={"pod": "p", "text": "last words\n", "truncated": False})
    fake = FakeRunway([UNEXPECTED_READ], events=[stream(event(bare, "1"), event(kept, "2"))])
    assert json.loads(wait(fake, "-o", "json").stdout)["excerpt"]["text"] == "last words\n"


def test_broken_stream_after_finished_view_ends_the_wait() -> None:
    fake = FakeRunway([UNEXPECTED_READ], events=[stream(event(job("succeeded"), "1"), BROKEN)])
    assert wait(fake).exit_code == 0


@pytest.mark.parametrize("end", [[BROKEN], [], [httpx2.ReadTimeout("silent")]], ids=["reset", "ended early", "silent"])
def test_broken_stream_resumes_from_last_event_id(end: list[Exception]) -> None:
    clock = Clock()
    fake = FakeRunway(
        [reply(job("running"))],
        events=[stream(event(job("running"), "id-1"), *end), stream(event(job("succeeded"), "id-2"))],
    )
    result = wait(fake, clock=clock)
    assert result.exit_code == 0
    assert [request.headers.get("Last-Event-ID") for request in fake.streams] == [None, "id-1"]
    assert fake.paths == ["GET /v1/jobs/rw-4f2a"], "the job is read in between to check that Runway is reachable"
    assert len(result.stderr.splitlines()) == 1, "a repeated view is one line, and the break is silent"
    assert len(clock.slept) == 1


def test_streams_that_break_at_once_back_off() -> None:
    clock = Clock()
    events: list[Answer] = [stream(event(job("running"), str(number)), BROKEN) for number in range(10)]
    assert wait(
        FakeRunway([reply(job("running"))], events=[*events, stream(event(job("succeeded"), "x"))]), clock=clock
    )
    assert clock.slept == sorted(clock.slept)
    assert (len(clock.slept), clock.slept[-1]) == (10, 2.5)


@pytest.mark.parametrize("refusal", [problem(429, "rate_limited"), problem(503, "too_busy")], ids=["429", "503"])
def test_rejected_stream_falls_back_to_polling(refusal: httpx2.Response) -> None:
    clock = Clock()
    fake = FakeRunway([reply(job("running"))], events=[refusal, stream(event(job("succeeded"), "1"))])
    assert wait(fake, clock=clock).exit_code == 0
    assert 30 <= sum(clock.slept) < 36
    assert len(fake.streams) == 2


def test_server_without_streams_is_polled() -> None:
    fake = FakeRunway([*(reply(job("running")) for _ in range(20)), reply(job("succeeded"))])
    assert wait(fake).exit_code == 0
    assert len(fake.streams) == 1


def test_html_answer_is_not_an_event_stream() -> None:
    fake = FakeRunway([reply(job("succeeded"))], events=[httpx2.Response(200, html="hello")])
    assert wait(fake).exit_code == 0


def test_finished_job_needs_no_stream() -> None:
    fake = FakeRunway([reply(job("succeeded"))], events=[httpx2.Response(204)])
    assert wait(fake).exit_code == 0


def test_deleted_job_ends_the_wait_with_not_found() -> None:
    gone = b'event: gone\ndata: {"id": "rw-4f2a"}\n\n'
    fake = FakeRunway([problem(404, "job_not_found")], events=[stream(event(job("running"), "1"), gone)])
    result = wait(fake)
    assert result.exit_code == 1
    assert "job_not_found" in result.stderr


def test_stream_of_unknown_job_ends_the_wait() -> None:
    fake = FakeRunway([UNEXPECTED_READ], events=[problem(404, "job_not_found")])
    assert wait(fake).exit_code == 1


def test_timeout_expires_while_a_stream_sends_only_heartbeats() -> None:
    class Alive(httpx2.SyncByteStream):
        """An endless stream with a heartbeat every 15 seconds."""

        def __iter__(self) -> Any:
            yield event(job("running"), "1")
            while True:
                clock.sleep(15)
                yield HEARTBEAT

    clock = Clock()
    alive = httpx2.Response(200, stream=Alive(), headers={"Content-Type": "text/event-stream"})
    started = clock.time
    result = wait(FakeRunway([reply(job("running"))], events=[alive]), "--timeout", "100", clock=clock)
    assert result.exit_code == 75
    assert clock.time - started == pytest.approx(100)


def test_comments_names_and_empty_events_are_skipped() -> None:
    chunks = [b": hello\n\n", b"event: other\ndata: {}\n\n", b"id: 7\n\n", event(job("succeeded"), "8")]
    assert wait(FakeRunway([UNEXPECTED_READ], events=[stream(*chunks)])).exit_code == 0


@given(st.integers(1, 40))
def test_chunks_may_end_anywhere(size: int) -> None:
    content = event(job("running", name="café ✓"), "ä") + HEARTBEAT + event(job("succeeded"), "2")
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    assert wait(FakeRunway([UNEXPECTED_READ], events=[stream(*chunks)])).exit_code == 0


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 1000 + b"\n"])
def test_endless_event_does_not_fill_the_memory(piece: bytes) -> None:
    read = 0

    class Endless(httpx2.SyncByteStream):
        def __iter__(self) -> Any:
            nonlocal read
            while True:
                read += len(piece)
                yield piece

    endless = httpx2.Response(200, stream=Endless(), headers={"Content-Type": "text/event-stream"})
    assert wait(FakeRunway([reply(job("succeeded"))], events=[endless])).exit_code == 0
    assert read <= MAX_EVENT_BYTES + (1 << 20)


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"id": "rw-4f2a"}'])
def test_event_that_is_not_a_job_ends_the_stream(data: bytes) -> None:
    fake = FakeRunway([reply(job("succeeded"))], events=[stream(b"data: " + data + b"\n\n")])
    assert wait(fake).exit_code == 0


def test_stream_shows_attempt_number() -> None:
    second = job("running", attempts=[attempt("failed", exit_code=1), attempt("running", node="node-2")])
    fake = FakeRunway([UNEXPECTED_READ], events=[stream(event(second, "1"), event(job("succeeded"), "2"))])
    assert "rw-4f2a is running, attempt 2 of 2 on node-2" in wait(fake).stderr
