"""A real Runway process, and the API server of `tests.hostile.apiserver`, each on a loopback port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from testbed.waiting import wait_for

CHECKOUT = Path(__file__).parents[2]
POLICY = CHECKOUT / "config" / "policy.local.yaml"
START_SECONDS = 60.0
FULL = os.environ.get("HOSTILE_FULL") == "1"
"""`HOSTILE_FULL=1 pytest tests/hostile` runs the long form of the tests that have one: some minutes in place of one."""
LONGEST_ANSWER_SECONDS = 1.0 if FULL else 10.0
"""For any answer to other callers during an attack. The long form is run by hand, on an idle machine."""
MIB = 1 << 20


@dataclass(slots=True)
class Process:
    """A process of this test run. Memory is in bytes."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory(self) -> int:
        """Resident memory now."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most resident memory so far."""
        return self._status("VmHWM")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.popen.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str, tenant: str | None = None, seconds: float = 10.0) -> httpx2.Response:
        headers = {"X-Tenant-ID": tenant} if tenant else {}
        return httpx2.get(self.url + path, headers=headers, timeout=seconds, trust_env=False)

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


@dataclass(slots=True)
class Runway(Process):
    """A Runway process."""

    def role(self) -> str | None:
        """What `/readyz` says; None where it says nothing."""
        try:
            answer = self.get("/readyz", seconds=2)
        except httpx2.TransportError:
            return None
        return str(answer.json()["role"]) if answer.status_code == 200 else None

    def submit(self, *command: str, tenant: str = "vision") -> str:
        """Submit a job that the API server runs; its id once the log can be read."""
        spec = {
            "image": "runway.local/busybox:1",
            "command": list(command),
            "resources": {"cpu": "100m", "memory": "32Mi"},
        }
        headers = {"X-Tenant-ID": tenant}
        answer = httpx2.post(f"{self.url}/v1/jobs", json=spec, headers=headers, timeout=10, trust_env=False)
        assert answer.status_code == 201, answer.text
        job = str(answer.json()["id"])
        wait_for(lambda: self.get(f"/v1/jobs/{job}").json()["state"] == "running" or None, "job running", 10)
        return job

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def faults(self) -> list[dict[str, Any]]:
        """What it has logged as an error."""
        whole = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        lines = (json.loads(line) for line in whole if line[:1] == "{")
        return [line for line in lines if line["level"] in ("error", "critical") or line.get("status") == 500]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def api_server(scratch: Path) -> Iterator[Process]:
    """The API server; its kubeconfig is `scratch/kubeconfig`."""
    with _started(["-m", "tests.hostile.apiserver"], scratch / "apiserver.log", {}, None) as (popen, port):
        process = Process(popen, port, scratch / "apiserver.log")
        (scratch / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(process.url)))
        wait_for(lambda: _answers(process, "/version"), "API server", START_SECONDS)
        yield process


@contextmanager
def runway(scratch: Path, *, policy: Path = POLICY, before: Callable[[], None] | None = None) -> Iterator[Runway]:
    """A Runway that is the writer, by `scratch/kubeconfig`; `before` is called in its process before it starts."""
    environment = {"RUNWAY_POLICY": str(policy), "KUBECONFIG": str(scratch / "kubeconfig")}
    command = ["-c", "from runway.cli.main import main; main()", "serve", "--port"]
    with _started(command, scratch / "runway.log", environment, before) as (popen, port):
        process = Runway(popen, port, scratch / "runway.log")
        wait_for(lambda: process.role() == "writer" or None, "Runway the writer", START_SECONDS)
        yield process


def kubeconfig(url: str) -> dict[str, Any]:
    """A kubeconfig for an API server without TLS."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "hostile",
        "clusters": [{"name": "hostile", "cluster": {"server": url}}],
        "users": [{"name": "hostile", "user": {}}],
        "contexts": [{"name": "hostile", "context": {"cluster": "hostile", "user": "hostile"}}],
    }


@contextmanager
def _started(
    arguments: list[str], log: Path, environment: dict[str, str], before: Callable[[], None] | None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    with log.open("wb") as file:
        popen = subprocess.Popen(
            [sys.executable, *arguments, str(port)],
            cwd=CHECKOUT,
            env={**os.environ, **environment, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'src'}"},
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=before,
        )
    try:
        yield popen, port
    finally:
        popen.terminate()
        try:
            popen.wait(15)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait(5)


def _answers(process: Process, path: str) -> bool | None:
    try:
        return process.get(path, seconds=2).status_code == 200 or None
    except httpx2.TransportError:
        return None
