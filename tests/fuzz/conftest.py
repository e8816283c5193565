"""One Runway on a fake cluster, served on a loopback port, for all tests of a file."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.waiting import wait_for

CHECKOUT = Path(__file__).parents[2]
START_SECONDS = 30.0
NOISE = "ASGI callable returned without completing handshake."
"""What the server logs of every WebSocket handshake that is refused."""


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is, and what it has logged."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def faults(self) -> list[dict[str, Any]]:
        """What it has logged as a failure of its own."""
        whole = self.log.read_text(encoding="utf-8").split("\n")[:-1]  # It may be writing the next one.
        lines = (json.loads(line) for line in whole if line[:1] == "{")
        bad = [line for line in lines if line["level"] in ("error", "critical") or line.get("status") == 500]
        return [line for line in bad if line["event"] != NOISE]

    def send(self, request: bytes) -> bytes:
        """What is answered to these bytes until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = tmp_path_factory.mktemp("served") / "runway.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.served", str(port)], cwd=CHECKOUT, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        running = Served(port, log)
        wait_for(lambda: _ready(running), "Runway ready", START_SECONDS)
        yield running
    finally:
        process.terminate()
        process.wait(10)


def _ready(served: Served) -> bool | None:
    try:
        return httpx2.get(f"{served.url}/readyz", timeout=2, trust_env=False).status_code == 200 or None
    except httpx2.TransportError:
        return None
