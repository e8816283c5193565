"""One Runway on a fake cluster, as a process of its own on a loopback port (`tests.fuzz.served`)."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from testbed.waiting import wait_for

CHECKOUT = Path(__file__).parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where it listens, its process, and its log."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def faults(self) -> list[dict[str, Any]]:
        """The lines of its log that are failures of its own."""
        whole = self.log.read_text(encoding="utf-8").split("\n")[:-1]  # It may be writing the next one.
        lines = (json.loads(line) for line in whole if line[:1] == "{")
        return [line for line in lines if line["level"] in ("error", "critical") or line.get("status") == 500]

    def connect(self, seconds: float = 10) -> socket.socket:
        """A connection whose calls time out after `seconds`."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def send(self, request: bytes) -> bytes:
        """The answer to these bytes, until the connection is closed."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def resident_mib(self) -> float:
        """Its resident memory."""
        return self._memory("VmRSS")

    def peak_mib(self) -> float:
        """The largest resident memory since the start or `reset_peak`."""
        return self._memory("VmHWM")

    def reset_peak(self) -> None:
        """Let the peak begin again at the memory of now. https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html"""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def _memory(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def serving(folder: Path, **bounds: float) -> Iterator[Served]:
    """Start it, and stop it at the end. `bounds` change those of `tests.fuzz.served.BOUNDS`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder / "runway.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.served", str(port), json.dumps(bounds)],
            cwd=CHECKOUT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Served(port, process.pid, log)
        wait_for(lambda: _ready(running), "Runway ready", START_SECONDS)
        yield running
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def _ready(served: Served) -> bool | None:
    try:
        return httpx2.get(f"{served.url}/readyz", timeout=2, trust_env=False).status_code == 200 or None
    except httpx2.TransportError:
        return None
