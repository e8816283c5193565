"""Graceful shutdown of Runway on the local cluster, during a request and a stream."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from testbed.context import Context
from testbed.http_client import RunwayClient, document, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def stopping_server(server: Server, settings: Mapping[str, str], tmp_path: Path) -> Iterator[Server]:
    """A Runway of its own that a test ends; no other process is the leader meanwhile."""
    server.stop()
    with Server(tmp_path / "runway.log", settings) as running:
        running.start()
        yield running
    server.start()


def test_sigterm_completes_requests_closes_streams_and_releases_the_lease(
    context: Context, stopping_server: Server, kubernetes: Kubectl
) -> None:
    """A request in flight is answered, a followed log is cut and so not taken for whole, the Lease is given up."""
    pid = stopping_server.pid
    assert pid is not None
    body = json.dumps(shell("true")).encode()
    with RunwayClient(stopping_server.url) as runway, ExitStack() as stack:
        view = document(runway.submit("vision", shell("trap 'exit 0' TERM; echo started; sleep 60 & wait")))
        context.track(view["id"])
        wait_for(lambda: "started" in runway.log(view["id"]).text or None, "the job has started")
        lines = runway.follow(view["id"])
        assert next(lines) == "started"
        request = stack.enter_context(connect(stopping_server))
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: runway\r\nX-Tenant-ID: vision\r\nContent-Length: {len(body)}\r\n"
        request.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:10])

        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: closed(stopping_server), "the listening socket is closed")
        request.sendall(body[10:])
        answer = b"".join(iter(lambda: request.recv(65_536), b"")).decode()
        with pytest.raises(httpx2.RemoteProtocolError):
            next(lines)

    assert answer.startswith("HTTP/1.1 201 ")
    created = re.search(r'"id":"(rw-[a-z2-7]{20})"', answer)
    assert created is not None
    assert kubernetes.get("job", created[1], view["kubernetes"]["namespace"]) is not None
    assert context.pod(view)["status"]["phase"] == "Running"
    wait_for(lambda: None if stopping_server.pid else True, "the process has ended")
    lease = kubernetes.get("lease", *stopping_server.lease)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


def connect(server: Server) -> socket.socket:
    url = httpx2.URL(server.url)
    return socket.create_connection((url.host, url.port or 0), timeout=GUARD_SECONDS)


def closed(server: Server) -> bool | None:
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return None
