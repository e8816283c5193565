"""`runway logs`: output, and resumption after broken connections."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from threading import Event

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.commands.logs import MAX_JSON_LINE_BYTES, watch_reader
from runway.cli.context import Environment
from testbed.waiting import GUARD_SECONDS
from tests.support.cli import Chunks, Clock, FakeRunway, attempt, invoke, job, problem, reply, runway, serve


def stamped(second: int, text: str) -> bytes:
    return b"2026-11-24T08:00:%02d.000000000Z %s\n" % (second, text.encode())


def log(*chunks: bytes | Exception) -> httpx2.Response:
    return httpx2.Response(200, stream=Chunks(*chunks), headers={"Content-Type": "text/plain"})


BROKEN = httpx2.ReadError("connection reset by peer")


def test_log_bytes_reach_a_pipe_unchanged() -> None:
    raw = b"2026-01-01T00:00:00Z is the job's own word\n\x1b[32mgreen\x1b[0m \xff\xfe\nno newline at the end"
    fake = FakeRunway([log(raw)])
    result = runway("logs", "rw-4f2a", answers=fake)
    assert result.exit_code == 0
    assert result.stdout_bytes == raw
    assert fake.paths == ["GET /v1/jobs/rw-4f2a/logs"]


def test_end_of_the_reader_of_a_quiet_log_is_noticed_at_once() -> None:
    reading, writing = os.pipe()
    ended = Event()
    with os.fdopen(writing, "wb", buffering=0) as stdout, os.fdopen(reading, "rb", buffering=0) as reader:
        watch_reader(stdout, ended.set)
        stdout.write(b"one\n")
        assert (reader.read(4), ended.is_set()) == (b"one\n", False)
        reader.close()
        assert ended.wait(GUARD_SECONDS)


def test_log_options_become_query_parameters() -> None:
    fake = FakeRunway([log(stamped(1, "one"))])
    result = runway("logs", "rw-4f2a", "--tail", "5", "--attempt", "2", "--timestamps", answers=fake)
    assert dict(fake.requests[0].url.params) == {"tail": "5", "attempt": "2", "timestamps": "true"}
    assert result.stdout_bytes == stamped(1, "one")


def test_json_output_has_one_object_a_line() -> None:
    result = runway("logs", "rw-4f2a", "-o", "json", answers=[log(stamped(1, "one") + stamped(2, "a\x1b[1m"))])
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"timestamp": "2026-11-24T08:00:01.000000000Z", "line": "one"},
        {"timestamp": "2026-11-24T08:00:02.000000000Z", "line": "a\x1b[1m"},
    ]
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("options", [[], ["--timestamps"], ["-o", "json"]])
def test_empty_log_says_so_on_stderr(options: list[str]) -> None:
    result = runway("logs", "rw-4f2a", *options, answers=[log()])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "The log of rw-4f2a is empty.\n")
    assert runway("logs", "rw-4f2a", *options, answers=[log(stamped(1, "one"))]).stderr == ""
    assert runway("logs", "rw-4f2a", "--tail", "0", *options, answers=[log()]).stderr == ""


def test_log_that_is_not_ready_is_an_error_without_follow() -> None:
    result = runway("logs", "rw-4f2a", answers=[problem(404, "logs_not_ready")])
    assert result.exit_code == 1
    assert "logs_not_ready" in result.stderr
    assert "hint: use `runway logs -f`: it waits for the log" in result.stderr


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_deleted_pod_shows_the_stored_excerpt(follow: list[str]) -> None:
    result = runway("logs", "rw-4f2a", *follow, answers=[problem(410, "logs_gone", excerpt="last\nwords")])
    assert result.exit_code == 0
    assert result.stdout == "last\nwords\n"
    assert "excerpt" in result.stderr


LINK = "https://logs.example.com/?job=rw-4f2a"


@pytest.mark.parametrize("follow", [[], ["-f"]])
@pytest.mark.parametrize("excerpt", ["last", None])
def test_deleted_pod_shows_the_link_to_stored_logs(follow: list[str], excerpt: str | None) -> None:
    gone = problem(410, "logs_gone", excerpt=excerpt, logs_url=LINK)
    result = runway("logs", "rw-4f2a", *follow, answers=[gone])
    assert LINK in result.stderr
    assert LINK not in result.stdout


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_deleted_pod_without_excerpt_is_an_error(follow: list[str]) -> None:
    result = runway("logs", "rw-4f2a", *follow, answers=[problem(410, "logs_gone", excerpt=None)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "logs_gone" in result.stderr


def test_following_ends_when_the_server_ends_the_stream() -> None:
    fake = FakeRunway([log(stamped(1, "one"), stamped(2, "two")[:-1])])
    result = runway("logs", "rw-4f2a", "-f", "--tail", "10", answers=fake)
    assert result.exit_code == 0
    assert result.stdout == "one\ntwo"
    assert dict(fake.requests[0].url.params) == {"follow": "true", "tail": "10", "timestamps": "true"}


def test_following_waits_for_the_log_to_begin() -> None:
    not_ready = problem(404, "logs_not_ready")
    answers = [not_ready, reply(job("pending")), not_ready, reply(job("running")), log(stamped(1, "one"))]
    result = runway("logs", "rw-4f2a", "-f", answers=answers)
    assert result.exit_code == 0
    assert result.stdout == "one\n"


def test_following_ends_where_the_job_ended_without_a_log() -> None:
    not_ready = problem(404, "logs_not_ready")
    result = runway("logs", "rw-4f2a", "-f", answers=[not_ready, reply(job("failed")), not_ready])
    assert result.exit_code == 1
    assert "ended before it wrote a log" in result.stderr


def test_log_of_a_job_that_ran_between_two_reads_is_shown() -> None:
    answers = [problem(404, "logs_not_ready"), reply(job("succeeded")), log(stamped(1, "quick"))]
    assert runway("logs", "rw-4f2a", "-f", answers=answers).stdout == "quick\n"


def test_after_a_broken_connection_no_line_is_lost_or_repeated() -> None:
    one, two, three = stamped(1, "one"), stamped(2, "two"), stamped(3, "three")
    fake = FakeRunway([log(one, two + three[:20], BROKEN), log(BROKEN), log(one + two + three)])
    result = runway("logs", "rw-4f2a", "-f", "--tail", "2", answers=fake)
    assert result.exit_code == 0
    assert result.stdout == "one\ntwo\nthree\n"
    assert "tail" not in dict(fake.requests[1].url.params), "the place where it broke is looked for from the beginning"


def test_equal_lines_are_each_shown_once() -> None:
    same = stamped(1, "same")
    result = runway("logs", "rw-4f2a", "-f", answers=[log(same, same, BROKEN), log(same * 3)])
    assert result.stdout == "same\n" * 3


def test_rotated_log_continues_with_newer_lines() -> None:
    answers = [log(stamped(1, "one"), stamped(3, "three"), BROKEN), log(stamped(3, "three") + stamped(4, "four"))]
    assert runway("logs", "rw-4f2a", "-f", answers=answers).stdout == "one\nthree\nfour\n"


def test_idle_log_reconnects_silently() -> None:
    one, two = stamped(1, "one"), stamped(2, "two")
    result = runway("logs", "rw-4f2a", "-f", answers=[log(one, httpx2.ReadTimeout("timed out")), log(one, two)])
    assert result.stdout == "one\ntwo\n"
    assert result.stderr == ""


def test_stream_that_only_breaks_fails_after_five_minutes() -> None:
    clock = Clock()
    result = runway("logs", "rw-4f2a", "-f", answers=[lambda: log(BROKEN)], clock=clock)
    assert result.exit_code == 69
    assert 290 < sum(clock.slept) <= 300


def test_pod_deleted_during_a_break_ends_the_log() -> None:
    answers = [log(stamped(1, "one"), BROKEN), problem(410, "logs_gone", excerpt="one", logs_url=LINK)]
    result = runway("logs", "rw-4f2a", "-f", answers=answers)
    assert result.exit_code == 0
    assert result.stdout == "one\n"
    assert "may be missing" in result.stderr
    assert LINK in result.stderr


def test_truncated_connection_is_detected() -> None:
    """A chunked body without its end is a break, not the end of the log."""
    one, two = stamped(1, "one"), stamped(2, "two")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    cut, whole = b"%x\r\n%s\r\n" % (len(one), one), b"%x\r\n%s\r\n0\r\n\r\n" % (len(one + two), one + two)
    with serve(head + cut, head + whole) as url:
        result = invoke(["logs", "rw-" + 20 * "a", "-f", "--url", url], Environment(sleep=lambda _: None))
    assert result.exit_code == 0
    assert result.stdout == "one\ntwo\n"


@given(
    st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=12)), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 60)), max_size=4),
    st.booleans(),
)
def test_each_line_is_shown_once_despite_breaks(
    lines: list[tuple[int, bytes]], breaks: list[tuple[float, int]], timestamps: bool
) -> None:
    """Each break has a position in the log and a chunk size."""
    texts = [text.replace(b"\n", b"") + b"\n" for _, text in lines]
    whole = b"".join(stamped(second, "")[:-1] + text for (second, _), text in zip(lines, texts, strict=True))
    answers = [log(*chunks(whole[: int(share * len(whole))], size), BROKEN) for share, size in breaks]
    flags = ["--timestamps"] if timestamps else []
    result = runway("logs", "rw-4f2a", "-f", *flags, answers=[*answers, log(*chunks(whole, 7))])
    assert result.exit_code == 0
    assert result.stdout_bytes == (whole if timestamps else b"".join(texts))


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def test_log_resumes_with_the_same_attempt() -> None:
    first = log(stamped(1, "one"), BROKEN)
    first.headers["Runway-Attempt"] = "2"
    fake = FakeRunway([first, log(stamped(1, "one") + stamped(2, "two"))])
    assert runway("logs", "rw-4f2a", "-f", answers=fake).stdout == "one\ntwo\n"
    assert [request.url.params.get("attempt") for request in fake.requests] == [None, "2"]


def test_line_without_newline_resumes_after_a_break() -> None:
    line = stamped(1, "x" * 200_000)
    answers = [log(line[:90_000], BROKEN), log(line[:150_000], BROKEN), log(line)]
    assert runway("logs", "rw-4f2a", "-f", answers=answers).stdout == "x" * 200_000 + "\n"


def test_long_line_becomes_several_json_objects() -> None:
    line = stamped(1, "x" * (2 * MAX_JSON_LINE_BYTES + 7))
    result = runway("logs", "rw-4f2a", "-f", "-o", "json", answers=[log(*chunks(line, 1000))])
    entries = [json.loads(text) for text in result.stdout.splitlines()]
    assert [len(entry["line"]) for entry in entries] == [MAX_JSON_LINE_BYTES] * 2 + [7]
    assert {entry["timestamp"] for entry in entries} == {"2026-11-24T08:00:01.000000000Z"}


WARNING = "the first line is from 2026-11-24 08:00:20 UTC, 20s after the container started; earlier lines are missing"


@pytest.mark.parametrize("options", [[], ["-f"], ["--tail", "1"], ["-f", "--tail", "1", "--attempt", "1"]])
def test_log_that_may_lack_its_beginning_says_so_on_stderr(options: list[str]) -> None:
    """https://github.com/kubernetes/kubernetes/issues/11046"""
    answer = log(stamped(20, "late"))
    answer.headers["Runway-Log-Warning"] = WARNING
    result = runway("logs", "rw-4f2a", *options, answers=[answer])
    assert result.stdout == ("late\n" if "-f" in options else stamped(20, "late").decode())
    assert " ".join(result.stderr.split()) == f"Note: {WARNING}"


def test_lines_that_the_node_rotated_away_during_a_break_are_reported_once() -> None:
    again = log(stamped(30, "thirty"), stamped(31, "more"))
    again.headers["Runway-Log-First-Line"] = "2026-11-24T08:00:30.000000000Z"
    again.headers["Runway-Log-Warning"] = WARNING
    result = runway("logs", "rw-4f2a", "-f", answers=[log(stamped(1, "one"), BROKEN), again])
    assert result.stdout == "one\nthirty\nmore\n"
    assert result.stderr.count("may be missing") == 1
    assert "lines between 08:00:01 and 08:00:30 UTC may be missing" in " ".join(result.stderr.split())
    assert "earlier lines" not in result.stderr


@pytest.mark.parametrize("first", ["2026-11-24T08:00:01.000000000Z", "", "not a time", "9999999-99-99", "\xff" * 300])
def test_resumed_log_without_evidence_of_a_gap_has_no_note(first: str) -> None:
    again = log(stamped(1, "one"), stamped(30, "thirty"))
    again.headers["Runway-Log-First-Line"] = first
    result = runway("logs", "rw-4f2a", "-f", answers=[log(stamped(1, "one"), BROKEN), again])
    assert result.stdout == "one\nthirty\n"
    assert "may be missing" not in result.stderr


def test_quiet_log_behind_a_proxy_with_an_idle_limit_is_followed_for_hours() -> None:
    """https://github.com/nginx/nginx/issues/1505: a proxy ends a response that is silent for a minute."""
    clock = Clock()

    def silent() -> httpx2.Response:
        return httpx2.Response(200, stream=Quiet(clock, stamped(1, "one")), headers={"Content-Type": "text/plain"})

    fake = FakeRunway([*[silent] * 100, log(stamped(1, "one"), stamped(2, "two"))])
    result = runway("logs", "rw-4f2a", "-f", answers=fake, clock=clock)
    assert result.stdout == "one\ntwo\n"
    assert result.stderr == ""
    assert result.exit_code == 0


class Quiet(Chunks):
    """A body that a proxy breaks off after a minute without data."""

    def __init__(self, clock: Clock, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.clock = clock

    def __iter__(self) -> Iterator[bytes]:
        yield from super().__iter__()
        self.clock.time += 60
        raise BROKEN


def events(*views: dict[str, object]) -> httpx2.Response:
    body = b"".join(b"id: %d\ndata: %s\n\n" % (at, json.dumps(view).encode()) for at, view in enumerate(views))
    return httpx2.Response(200, stream=Chunks(body), headers={"Content-Type": "text/event-stream"})


def test_following_a_job_that_waits_says_why() -> None:
    condition = {"code": "unschedulable", "message": "0/3 nodes: too few free GPUs", "since": None}
    waiting, started = job("pending", conditions=[condition]), job("running", attempts=[attempt()])
    fake = FakeRunway([log(stamped(1, "one"))], events=[events(waiting, waiting, started)])
    result = runway("logs", "rw-4f2a", "-f", answers=fake)
    assert result.stdout == "one\n"
    assert result.stderr.count("unschedulable: 0/3 nodes: too few free GPUs") == 1


def test_following_the_next_attempt_shows_the_wait_for_it() -> None:
    condition = {"code": "retrying", "message": "attempt 1 failed", "since": None}
    waiting = job("pending", conditions=[condition], attempts=[attempt("failed")])
    for number, says in (("2", True), ("1", False)):
        fake = FakeRunway([log(stamped(1, "two"))], events=[events(waiting)])
        result = runway("logs", "rw-4f2a", "-f", "--attempt", number, answers=fake)
        assert result.stdout == "two\n"
        assert ("retrying: attempt 1 failed" in result.stderr) == says


def test_followed_log_without_timestamps_is_an_error() -> None:
    result = runway("logs", "rw-4f2a", "-f", answers=[log(b"<html>a proxy's page</html>")])
    assert result.exit_code == 69
    assert result.stdout == ""
    assert "unexpected_answer" in result.stderr
