"""Waiting on the event stream: what is shown, and that it survives what happens to connections."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.sse import MAX_EVENT_CHARACTERS, Event, TooLong, read_events
from tests.support.cli import Answer, Chunks, Clock, FakeRunway, attempt, job, problem, reply, runway

HEARTBEAT = b": no change\n\n"
BROKEN = httpx2.ReadError("connection reset by peer")
UNASKED = AssertionError("the job was read although its stream told everything")


def event(view: dict[str, Any], event_id: str) -> bytes:
    return f"id: {event_id}\ndata: {json.dumps(view)}\n\n".encode()


def stream(*chunks: bytes | Exception) -> httpx2.Response:
    return httpx2.Response(200, stream=Chunks(*chunks), headers={"Content-Type": "text/event-stream"})


def wait(fake: FakeRunway, *flags: str, clock: Clock | None = None) -> Any:
    return runway("wait", "rw-4f2a", *flags, answers=fake, clock=clock)


def test_a_job_is_followed_to_its_end_by_one_stream() -> None:
    clock = Clock()
    views = [event(job("pending"), "1"), HEARTBEAT, event(job("running"), "2"), event(job("succeeded"), "3")]
    fake = FakeRunway([UNASKED], events=[stream(b"retry: 2000\n\n", *views)])
    result = wait(fake, clock=clock)
    assert result.exit_code == 0
    assert [line.split(" (")[0] for line in result.stderr.splitlines()] == ["rw-4f2a is pending", "rw-4f2a is running"]
    assert result.stdout.startswith("rw-4f2a succeeded")
    assert (clock.slept, len(fake.streams)) == ([], 1)
    assert fake.streams[0].headers["Accept"] == "text/event-stream"


def test_the_last_view_is_waited_for_since_it_holds_what_is_kept() -> None:
    bare, kept = job("failed"), job("failed", excerpt={"pod": "p", "text": "last words\n", "truncated": False})
    fake = FakeRunway([UNASKED], events=[stream(event(bare, "1"), event(kept, "2"))])
    assert json.loads(wait(fake, "-o", "json").stdout)["excerpt"]["text"] == "last words\n"


def test_the_end_is_not_lost_where_the_stream_breaks_before_what_is_kept() -> None:
    fake = FakeRunway([UNASKED], events=[stream(event(job("succeeded"), "1"), BROKEN)])
    assert wait(fake).exit_code == 0


@pytest.mark.parametrize("end", [[BROKEN], [], [httpx2.ReadTimeout("silent")]], ids=["reset", "ended early", "silent"])
def test_a_broken_stream_is_taken_up_where_it_broke(end: list[Exception]) -> None:
    clock = Clock()
    fake = FakeRunway(
        [reply(job("running"))],
        events=[stream(event(job("running"), "id-1"), *end), stream(event(job("succeeded"), "id-2"))],
    )
    result = wait(fake, clock=clock)
    assert result.exit_code == 0
    assert [request.headers.get("Last-Event-ID") for request in fake.streams] == [None, "id-1"]
    assert fake.paths == ["GET /v1/jobs/rw-4f2a"], "the job is read in between: that tells whether Runway is there"
    assert len(result.stderr.splitlines()) == 1, "the same view twice is one line, and the break not worth a word"
    assert len(clock.slept) == 1


def test_streams_that_break_at_once_are_not_opened_without_pause() -> None:
    clock = Clock()
    events: list[Answer] = [stream(event(job("running"), str(number)), BROKEN) for number in range(10)]
    assert wait(
        FakeRunway([reply(job("running"))], events=[*events, stream(event(job("succeeded"), "x"))]), clock=clock
    )
    assert clock.slept == sorted(clock.slept)
    assert (len(clock.slept), clock.slept[-1]) == (10, 5.0)


@pytest.mark.parametrize("refusal", [problem(429, "rate_limited"), problem(503, "too_busy")], ids=["429", "503"])
def test_without_a_free_stream_the_job_is_read_for_a_while(refusal: httpx2.Response) -> None:
    clock = Clock()
    fake = FakeRunway([reply(job("running"))], events=[refusal, stream(event(job("succeeded"), "1"))])
    assert wait(fake, clock=clock).exit_code == 0
    assert 30 <= sum(clock.slept) < 36
    assert len(fake.streams) == 2


def test_a_runway_without_streams_is_asked_for_one_once() -> None:
    fake = FakeRunway([*(reply(job("running")) for _ in range(20)), reply(job("succeeded"))])
    assert wait(fake).exit_code == 0
    assert len(fake.streams) == 1


def test_a_page_of_something_else_is_no_stream() -> None:
    fake = FakeRunway([reply(job("succeeded"))], events=[httpx2.Response(200, html="hello")])
    assert wait(fake).exit_code == 0


def test_a_job_that_is_over_already_needs_no_stream() -> None:
    fake = FakeRunway([reply(job("succeeded"))], events=[httpx2.Response(204)])
    assert wait(fake).exit_code == 0


def test_a_job_that_is_deleted_meanwhile_is_told_of_as_unknown() -> None:
    gone = b'event: gone\ndata: {"id": "rw-4f2a"}\n\n'
    fake = FakeRunway([problem(404, "job_not_found")], events=[stream(event(job("running"), "1"), gone)])
    result = wait(fake)
    assert result.exit_code == 1
    assert "job_not_found" in result.stderr


def test_a_job_that_is_not_known_is_refused_by_the_stream_already() -> None:
    fake = FakeRunway([UNASKED], events=[problem(404, "job_not_found")])
    assert wait(fake).exit_code == 1


def test_a_timeout_holds_while_a_stream_only_gives_signs_of_life() -> None:
    class Alive(httpx2.SyncByteStream):
        """A sign of life every 15 seconds, without end."""

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


# The form of server-sent events


def read(*chunks: bytes) -> list[Event | None]:
    return list(read_events(chunks))


def test_an_event_may_have_several_lines_a_name_and_comments_between() -> None:
    text = b": hello\n\nid: 1\nevent: gone\ndata: a\ndata:  b\nretry: 3\n\ndata\n\ndata: last"
    assert read(text) == [None, Event("1", "gone", "a\n b"), Event("1", "message", "")]


@given(st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(1, 7), min_size=1, max_size=30))
def test_it_does_not_matter_where_chunks_are_cut_or_how_lines_end(newline: bytes, sizes: list[int]) -> None:
    text = "id: ä\ndata: café ✓\n\n: alive\n\nid: 2\ndata: x\n\n".encode().replace(b"\n", newline)
    chunks, at = [], 0
    for size in sizes:
        chunks.append(text[at : at + size])
        at += size
    assert read(*chunks, text[at:]) == [Event("ä", "message", "café ✓"), None, Event("2", "message", "x")]


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 1000 + b"\n"])
def test_an_event_without_end_fills_no_memory(piece: bytes) -> None:
    with pytest.raises(TooLong):
        read(*[piece] * (MAX_EVENT_CHARACTERS // (len(piece) - 1) + 2))


def test_attempts_are_counted_through_a_stream() -> None:
    second = job("running", attempts=[attempt("failed", exit_code=1), attempt("running", node="node-2")])
    fake = FakeRunway([UNASKED], events=[stream(event(second, "1"), event(job("succeeded"), "2"))])
    assert "rw-4f2a is running, attempt 2 of 2 on node-2" in wait(fake).stderr
