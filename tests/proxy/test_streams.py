"""Logs and events through a real nginx, and to clients of HTTP/1.0.

https://github.com/home-assistant/supervisor/issues/5544, https://github.com/nginx/nginx/issues/1505,
https://github.com/kubernetes/ingress-nginx/issues/4063
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest

from runway.errors import AmbiguousOutcome
from runway.services.watch_job import HEARTBEAT_SECONDS
from testbed.nginx import nginx
from testbed.waiting import GUARD_SECONDS
from tests.api.conftest import Runway
from tests.browser.conftest import Served
from tests.hostile.serving import CLI
from tests.support.fake_logs import FakeLog

_BROKEN = AmbiguousOutcome("the connection to the Kubernetes API broke: reset")
DEFAULT = ""
"""nginx speaks HTTP/1.0 to its upstream by default."""
HTTP_1_1 = "proxy_http_version 1.1;"
UPSTREAM_VERSIONS = pytest.mark.parametrize("options", [DEFAULT, HTTP_1_1], ids=["HTTP/1.0", "HTTP/1.1"])


class Job:
    """A running job of a served Runway, and its log."""

    def __init__(self, served: Served) -> None:
        self.served, self.log = served, FakeLog()
        self.id: str = served.run(self._start)
        self.pod = f"{self.id}-0"

    def write(self, *lines: bytes) -> None:
        self.served.run(lambda _: self._write(*lines))

    def end(self) -> None:
        self.served.run(self._end)

    def delete_pod(self) -> None:
        """Delete the pod while its log is open, so that the rest of the log is lost."""
        self.served.run(self._delete_pod)

    async def _start(self, runway: Runway) -> str:
        job_id = str((await runway.submit()).json()["id"])
        runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = self.log
        await runway.until_state(job_id, "running")
        return job_id

    async def _write(self, *lines: bytes) -> None:
        self.log.write(*lines)

    async def _end(self, runway: Runway) -> None:
        runway.kubernetes.end_pod(self.pod)
        runway.kubernetes.complete(self.id)

    async def _delete_pod(self, runway: Runway) -> None:
        runway.kubernetes.remove_pod(self.pod)
        self.log.drop(_BROKEN)


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as running:
        yield running


@pytest.fixture
def job(served: Served) -> Job:
    return Job(served)


@contextmanager
def reading(url: str, **headers: str) -> Iterator[httpx2.Response]:
    timeout = httpx2.Timeout(GUARD_SECONDS)
    with (
        httpx2.Client(trust_env=False, timeout=timeout) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield answer


@UPSTREAM_VERSIONS
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_lines_of_a_followed_log_pass_a_buffering_proxy_at_once(
    served: Served, job: Job, tmp_path: Path, options: str, encoding: str
) -> None:
    with (
        nginx(tmp_path, served.url, options=options) as url,
        reading(f"{url}/v1/jobs/{job.id}/logs?follow=true", accept_encoding=encoding) as answer,
    ):
        chunks = answer.iter_bytes()
        for number in range(3):
            line = b"line %d\n" % number
            job.write(line[:-1])
            assert next(chunks) == line, "the job waits until the line has arrived"
        job.end()
        assert b"".join(chunks) == b""


@UPSTREAM_VERSIONS
def test_events_pass_a_buffering_proxy_at_once(served: Served, job: Job, tmp_path: Path, options: str) -> None:
    with (
        nginx(tmp_path, served.url, options=options) as url,
        reading(f"{url}/v1/jobs/{job.id}/events") as answer,
    ):
        lines = answer.iter_lines()
        next(line for line in lines if '"state":"running"' in line)
        job.end()
        next(line for line in lines if '"state":"succeeded"' in line)
        assert not [line for line in lines if line.startswith("data:") and '"succeeded"' not in line]


def test_idle_event_stream_survives_the_idle_limit_of_a_proxy(served: Served, job: Job, tmp_path: Path) -> None:
    """Proxies end a response that is silent for a minute; this one for a little longer than a heartbeat takes."""
    with (
        nginx(tmp_path, served.url, idle_seconds=int(HEARTBEAT_SECONDS) + 10) as url,
        reading(f"{url}/v1/jobs/{job.id}/events") as answer,
    ):
        lines = answer.iter_lines()
        for _ in range(2):
            next(line for line in lines if line.startswith(":"))
        job.end()
        next(line for line in lines if '"state":"succeeded"' in line)


@UPSTREAM_VERSIONS
def test_command_line_resumes_a_quiet_log_that_the_proxy_ends(
    served: Served, job: Job, tmp_path: Path, options: str
) -> None:
    with nginx(tmp_path, served.url, idle_seconds=1, options=options) as url:
        job.write(b"one")
        command = [*CLI, "logs", "-f", job.id, "--url", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as shown:
            job.served.run(partial(_opened_again, job))
            job.write(b"two")
            job.end()
            output, _ = shown.communicate(timeout=GUARD_SECONDS)
    assert output == b"one\ntwo\n"
    assert shown.returncode == 0


async def _opened_again(job: Job, runway: Runway) -> None:
    async def often() -> bool:
        return len(job.log.queries) >= 3

    await runway.until(often)


@UPSTREAM_VERSIONS
def test_incomplete_log_is_an_error_behind_a_proxy(served: Served, job: Job, tmp_path: Path, options: str) -> None:
    with (
        nginx(tmp_path, served.url, options=options) as url,
        reading(f"{url}/v1/jobs/{job.id}/logs?follow=true") as answer,
    ):
        chunks = answer.iter_bytes()
        job.write(b"one")
        assert next(chunks) == b"one\n"
        job.delete_pod()
        with pytest.raises(httpx2.RemoteProtocolError):
            next(chunks)


def test_old_client_gets_the_body_without_chunks(served: Served, job: Job) -> None:
    job.write(b"one", b"two")
    job.end()
    for path in (f"/v1/jobs/{job.id}/logs", f"/v1/jobs/{job.id}/logs?follow=true"):
        head, body = _get_1_0(served, path)
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == b"one\ntwo\n"
    head, body = _get_1_0(served, f"/v1/jobs/{job.id}/events")
    assert b"transfer-encoding" not in head
    assert body.startswith(b"retry: 2000\n\nid: ")
    assert body.endswith(b"\n\n")
    head, body = _get_1_0(served, f"/v1/jobs/{job.id}")
    assert b"content-length: %d\r\n" % len(body) in head


def test_old_client_that_keeps_the_connection_alive_gets_it_closed_after_a_stream(served: Served, job: Job) -> None:
    job.write(b"one")
    job.end()
    head, body = _get_1_0(served, f"/v1/jobs/{job.id}/logs", b"Connection: keep-alive\r\n")
    assert b"connection: close" in head
    assert body == b"one\n"


def test_incomplete_log_is_a_reset_for_an_old_client(served: Served, job: Job) -> None:
    with _asked_1_0(served, f"/v1/jobs/{job.id}/logs?follow=true") as connection:
        job.write(b"one")
        received = b""
        while b"one\n" not in received:
            received += connection.recv(4096)
        job.delete_pod()
        with pytest.raises(ConnectionResetError):
            connection.recv(4096)


def test_head_request_of_an_old_client_ends(served: Served, job: Job) -> None:
    job.write(b"one")
    head, body = _get_1_0(served, f"/v1/jobs/{job.id}/logs?follow=true", method=b"HEAD")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""


def _get_1_0(served: Served, path: str, fields: bytes = b"", method: bytes = b"GET") -> tuple[bytes, bytes]:
    """Return head and body, which ends with the connection."""
    with _asked_1_0(served, path, fields, method) as connection:
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return head.lower().replace(b"http/1.1", b"HTTP/1.1") + b"\r\n", body


@contextmanager
def _asked_1_0(served: Served, path: str, fields: bytes = b"", method: bytes = b"GET") -> Iterator[socket.socket]:
    url = httpx2.URL(served.url)
    with socket.create_connection((url.host, url.port or 0), timeout=GUARD_SECONDS) as connection:
        request = b"%s %s HTTP/1.0\r\nHost: %s\r\n%s\r\n" % (method, path.encode(), url.host.encode(), fields)
        connection.sendall(request)
        yield connection
