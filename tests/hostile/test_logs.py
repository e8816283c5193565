"""Hostile logs and log readers.

The long form (`HOSTILE_FULL=1`) reads 300 MB instead of 40 MB, and opens and closes streams for 5 s instead of 1 s.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import httpx2
import pytest

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.apiserver import STEERING, YEARS
from tests.hostile.serving import (
    CLI,
    FULL,
    LONGEST_ANSWER_SECONDS,
    MIB,
    POLICY,
    Process,
    Runway,
    api_server,
    resident_memory,
    runway,
)  # fmt: skip
from tests.hostile.terminal import at_terminal

SIZE = (300 if FULL else 40) * MIB
STREAM_BYTES = 2 * MIB
"""Runway's memory for one open log. Measured: 0.5 MiB."""
CLI_BYTES = 80 * MIB
"""Memory of the command line, mostly Python and its libraries."""
STORM_SECONDS = 5 if FULL else 1
STORM_RATE = 500
SAFE = re.compile(rb"(?:[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\x1b\[[0-9;:]{0,40}m)*", re.DOTALL)
"""Text without control characters except tab, newline, carriage return and colours."""
HIDING = "\u202e\u2066\u200b\u061c\u2028\x9b"


class Serving(NamedTuple):
    """A Runway and its API server."""

    api: Process
    runway: Runway


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    scratch = tmp_path_factory.mktemp("logs")
    rate = "rate: {per_minute: 600, burst: 100"
    fast = f"{rate}, reads: {{per_minute: 1000000, burst: 1000000}}"
    (scratch / "policy.yaml").write_text(POLICY.read_text().replace(rate, fast))
    with api_server(scratch) as api, runway(scratch, policy=scratch / "policy.yaml") as process:
        yield Serving(api, process)
        assert process.faults() == []


def _read(process: Runway, job: str, query: str = "") -> int:
    """Read a log, and return its length."""
    headers = {"X-Tenant-ID": "vision"}
    with httpx2.stream(
        "GET", f"{process.url}/v1/jobs/{job}/logs{query}", headers=headers, timeout=GUARD_SECONDS, trust_env=False
    ) as answer:
        assert answer.status_code == 200
        return sum(map(len, answer.iter_raw()))


def _open(process: Runway, path: str) -> socket.socket:
    """Send a request, and return the connection with the response unread."""
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=GUARD_SECONDS)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: runway\r\nX-Tenant-ID: vision\r\n\r\n".encode())
    return connection


@contextmanager
def _others(process: Runway) -> Iterator[list[float]]:
    """Read as another tenant in the background, and yield the duration of each read."""
    took: list[float] = []
    stop = threading.Event()

    def read() -> None:
        with httpx2.Client(trust_env=False, timeout=GUARD_SECONDS) as client:
            while not stop.is_set():
                begun = time.monotonic()
                answer = client.get(f"{process.url}/v1/quota", headers={"X-Tenant-ID": "speech"})
                took.append(time.monotonic() - begun if answer.status_code == 200 else float("inf"))
                stop.wait(0.05)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("query", ["", "?timestamps=true", "?tail=5"])
@pytest.mark.parametrize("kind", ["flood", "line", "empty"])
def test_large_log_takes_no_memory_and_does_not_block_others(serving: Serving, kind: str, query: str) -> None:
    size = SIZE // 10 if kind == "empty" else SIZE
    job, before = serving.runway.submit(kind, str(size)), serving.runway.memory()

    with _others(serving.runway) as took:
        begun = time.monotonic()
        length = _read(serving.runway, job, query)
        seconds = time.monotonic() - begun

    print(
        f"{kind}{query}: {length} bytes in {seconds:.1f} s; {before / MIB:.0f} to {serving.runway.peak() / MIB:.0f} MiB"
    )
    print(f"others: at most {max(took) * 1000:.0f} ms")
    assert serving.runway.memory() < before + 2 * STREAM_BYTES
    assert max(took) < LONGEST_ANSWER_SECONDS


def test_stalled_log_readers_take_little_memory(serving: Serving) -> None:
    job = serving.runway.submit("endless")
    _read_some(serving.runway, job)
    before, readers = serving.runway.memory(), 15

    connections = [_open(serving.runway, f"/v1/jobs/{job}/logs?follow=true") for _ in range(readers)]
    wait_for(lambda: _is_stalled(serving.api), "Runway stops reading from Kubernetes")
    grown = serving.runway.memory() - before
    for connection in connections:
        connection.close()

    print(f"{readers} readers: {grown / MIB:.1f} MiB more")
    assert grown < readers * STREAM_BYTES
    wait_for(lambda: serving.runway.metric("runway_open_streams") == 0 or None, "streams closed")


def test_concurrent_floods_do_not_block_others(serving: Serving) -> None:
    job, readers = serving.runway.submit("endless"), 10
    threads = [threading.Thread(target=_read_some, args=(serving.runway, job, SIZE // 20)) for _ in range(readers)]

    with _others(serving.runway) as took:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    print(f"{readers} floods; others: at most {max(took) * 1000:.0f} ms")
    assert max(took) < LONGEST_ANSWER_SECONDS
    assert serving.runway.role() == "writer"


@pytest.mark.parametrize("path", ["events", "logs?follow=true", "endless"])
def test_closed_streams_leak_nothing(serving: Serving, path: str) -> None:
    job = serving.runway.submit("endless" if path == "endless" else "quiet")
    target = f"/v1/jobs/{job}/{'logs?follow=true' if path == 'endless' else path}"
    idle = _counts(serving.runway)
    before = serving.runway.memory()

    for number in range(STORM_RATE * STORM_SECONDS):
        connection = _open(serving.runway, target)
        if number % 4 == 0:
            connection.recv(64)
        if number % 2:  # Reset the connection instead of a regular close.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    wait_for(lambda: _no_more_than(idle, _counts(serving.runway)), f"no more than {idle}")
    print(f"{before / MIB:.0f} to {serving.runway.memory() / MIB:.0f} MiB")
    assert serving.runway.memory() < before + 32 * MIB


@pytest.mark.parametrize("number", range(len(YEARS)), ids=lambda number: YEARS[number].decode())
def test_line_with_invalid_time_fails_only_its_reader(serving: Serving, number: int) -> None:
    job = serving.runway.submit(f"year{number}")
    with closing(_open(serving.runway, f"/v1/jobs/{job}/logs?follow=true")) as connection:
        answer = b""
        while b"first" not in answer:
            answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")
        reads = serving.api.get("/counts").json()["log_reads"]
        wait_for(lambda: serving.api.get("/counts").json()["log_reads"] > reads or None, "Runway reads the log again")
    assert serving.runway.role() == "writer"


@pytest.mark.parametrize("arguments", [("logs",), ("logs", "-f"), ("logs", "--timestamps"), ("logs", "-o", "json")])
def test_logs_sanitizes_hostile_log_on_terminal(serving: Serving, arguments: tuple[str, ...]) -> None:
    job = serving.runway.submit("steering")
    if "-f" in arguments:
        _finish(serving, job)
    shown = at_terminal(serving.runway, *arguments, job)
    assert SAFE.fullmatch(shown)
    assert not any(letter in shown.decode() for letter in HIDING)
    assert b"controls" in shown


def test_run_sanitizes_hostile_log_on_terminal(serving: Serving) -> None:
    spec = ["--image", "runway.local/busybox:1", "--cpu", "100m", "--memory", "32Mi", "--", "steering"]
    known = {job["id"] for job in serving.runway.get("/v1/jobs", "vision").json()["jobs"]}

    def finish_it() -> None:
        new = wait_for(lambda: _new_job(serving.runway, known), "a job")
        time.sleep(0.5)
        _finish(serving, new)

    thread = threading.Thread(target=finish_it)
    thread.start()
    shown = at_terminal(serving.runway, "run", *spec)
    thread.join()
    assert SAFE.fullmatch(shown)
    assert not any(letter in shown.decode() for letter in HIDING)
    assert b"controls" in shown


def test_pipe_gets_the_raw_log(serving: Serving) -> None:
    job = serving.runway.submit("steering")
    done = subprocess.run(
        [*CLI, "logs", job], env=serving.runway.environment(), capture_output=True, timeout=GUARD_SECONDS, check=True
    )
    assert done.stdout == b"".join(line + b"\n" for line in STEERING)


@pytest.mark.parametrize("arguments", [("logs",), ("logs", "-f"), ("logs", "-o", "json")])
def test_command_line_prints_endless_line_in_little_memory(serving: Serving, arguments: tuple[str, ...]) -> None:
    job = serving.runway.submit("line", str(SIZE))
    if "-f" in arguments:
        _finish(serving, job)
    command, environment = [*CLI, *arguments, job], serving.runway.environment()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        peak = length = 0
        assert process.stdout is not None
        while chunk := process.stdout.read(MIB):
            length += len(chunk)
            peak = max(peak, resident_memory(process.pid))
    print(f"{length} bytes, {peak / MIB:.0f} MiB")
    assert process.returncode == 0
    assert length >= SIZE
    assert peak < CLI_BYTES


@pytest.mark.parametrize("kind", ["endless", "line", "steering", "nostamps"])
def test_excerpt_of_hostile_log_is_short_and_sanitized(serving: Serving, kind: str) -> None:
    job = serving.runway.submit(kind, str(SIZE))
    before = serving.runway.memory()
    _finish(serving, job)

    excerpt = wait_for(lambda: serving.runway.get(f"/v1/jobs/{job}", "vision").json()["excerpt"], "an excerpt")

    assert len(excerpt["text"].encode()) <= 4096
    assert excerpt["text"].replace("\n", "").replace("\t", "").isprintable()
    assert serving.runway.memory() < before + 8 * MIB


def _no_more_than(most: tuple[float, ...], counts: tuple[float, ...]) -> bool | None:
    return all(count <= limit for count, limit in zip(counts, most, strict=True)) or None


def _counts(process: Runway) -> tuple[float, ...]:
    """Return the numbers of descriptors, tasks and open streams."""
    return process.descriptors(), process.metric("runway_tasks"), process.metric("runway_open_streams")


def _read_some(process: Runway, job: str, length: int = MIB) -> None:
    with closing(_open(process, f"/v1/jobs/{job}/logs?follow=true")) as connection:
        while length > 0 and (chunk := connection.recv(1 << 18)):
            length -= len(chunk)


def _is_stalled(api: Process) -> bool | None:
    """Return whether the API server sends no log bytes for half a second."""
    before = api.get("/counts").json()["log_bytes"]
    time.sleep(0.5)
    return api.get("/counts").json()["log_bytes"] == before or None


def _finish(serving: Serving, job: str) -> None:
    httpx2.post(f"{serving.api.url}/finish/{job}", timeout=GUARD_SECONDS, trust_env=False).raise_for_status()


def _new_job(process: Runway, known: set[str]) -> str | None:
    jobs = process.get("/v1/jobs", "vision").json()["jobs"]
    return next((str(job["id"]) for job in jobs if job["id"] not in known and job["state"] == "running"), None)
