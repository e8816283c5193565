"""SIGTERM in the middle of a request and of a stream, to a real server on the real cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from testbed.context import START_SECONDS, Context
from testbed.http_client import RunwayClient, document, shell
from testbed.kubectl import Kubectl
from testbed.server import CHECKOUT, Server
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def draining_server(server: Server, settings: Mapping[str, str], tmp_path: Path) -> Iterator[Server]:
    """A Runway that goes on for a while after SIGTERM; for that time no other process writes."""
    server.stop()
    with Server(tmp_path / "runway.log", {**settings, "RUNWAY_DRAIN_SECONDS": "1"}) as running:
        running.start()
        yield running
    server.start()


def test_the_end_in_good_order(context: Context, draining_server: Server, kubernetes: Kubectl) -> None:
    """A request in flight is answered, a followed log is cut and so not taken for whole, the Lease is given up."""
    pid = draining_server.pid
    assert pid is not None
    body = json.dumps(shell("true")).encode()
    with RunwayClient(draining_server.url) as runway, connect(draining_server) as request:
        view = document(runway.submit("vision", shell("trap 'exit 0' TERM; echo started; sleep 60 & wait")))
        context.track(view["id"])
        wait_for(lambda: "started" in runway.log(view["id"]).text or None, "the job has started", START_SECONDS)
        lines = runway.follow(view["id"])
        assert next(lines) == "started"
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: runway\r\nX-Tenant-ID: vision\r\nContent-Length: {len(body)}\r\n"
        request.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:10])

        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not_ready(draining_server), "readiness off", 5)
        wait_for(lambda: closed(draining_server), "the door closed", 10)
        request.sendall(body[10:])
        answer = b"".join(iter(lambda: request.recv(65_536), b"")).decode()
        with pytest.raises(httpx2.RemoteProtocolError):
            next(lines)

    assert answer.startswith("HTTP/1.1 201 ")
    created = re.search(r'"id":"(rw-[a-z2-7]{20})"', answer)
    assert created is not None
    assert kubernetes.get("job", created[1], view["kubernetes"]["namespace"]) is not None
    assert context.pod(view)["status"]["phase"] == "Running"
    wait_for(lambda: None if draining_server.pid else True, "the process has ended", 10)
    lease = kubernetes.get("lease", *draining_server.lease)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


def test_an_end_while_it_still_starts_as_process_1(settings: Mapping[str, str], tmp_path: Path) -> None:
    """In a container it is PID 1, for which the kernel drops a signal without a handler."""
    environment = {**os.environ, **settings}
    server = [sys.executable, "-m", "uvicorn", "main:app", "--host=127.0.0.1", "--port=0"]
    log = tmp_path / "runway.log"
    with log.open("wb") as output:
        parent = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *server],
            cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        child = wait_for(lambda: _listens_to_sigterm(parent.pid), "a handler of SIGTERM", 20)
        os.kill(child, signal.SIGTERM)
        assert parent.wait(5) == 128 + signal.SIGTERM
    finally:
        parent.kill()
    assert log.read_text() == ""


def _listens_to_sigterm(parent: int) -> int | None:
    """The one child of a process, once it has a handler."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    if not children:
        return None
    status = dict(line.split(":\t", 1) for line in Path("/proc", children[0], "status").read_text().splitlines())
    caught = int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
    return int(children[0]) if caught and status["NSpid"].split()[-1] == "1" else None


def connect(server: Server) -> socket.socket:
    url = httpx2.URL(server.url)
    return socket.create_connection((url.host, url.port or 0), timeout=20)


def not_ready(server: Server) -> bool | None:
    answer = httpx2.get(f"{server.url}/readyz", timeout=2, trust_env=False)
    return True if answer.status_code == 503 and "told to end" in answer.json()["detail"] else None


def closed(server: Server) -> bool | None:
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return None
