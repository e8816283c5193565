"""Servers and the command line as processes on loopback ports."""

from __future__ import annotations

import json
import os
import signal
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

from testbed.ports import ReservedPort
from testbed.waiting import GUARD_SECONDS, wait_for

CHECKOUT = Path(__file__).parents[2]
POLICY = CHECKOUT / "config" / "policy.local.yaml"
CLI = [sys.executable, "-c", "from runway.cli.main import main; main()"]
FULL = os.environ.get("HOSTILE_FULL") == "1"
"""`HOSTILE_FULL=1 pytest tests/hostile` runs the long form of some tests: minutes instead of one minute."""
LONGEST_ANSWER_SECONDS = 1.0 if FULL else 10.0
"""For a response to other clients during an attack. The long form needs an idle machine."""
MIB = 1 << 20


@dataclass(slots=True)
class Process:
    """A server process of this test run. Memory is in bytes."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory(self) -> int:
        """Return the resident memory."""
        return resident_memory(self.popen.pid)

    def peak(self) -> int:
        """Return the maximum of the resident memory, since the start or `reset_peak`."""
        return resident_memory(self.popen.pid, "VmHWM")

    def reset_peak(self) -> None:
        """https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html"""
        Path(f"/proc/{self.popen.pid}/clear_refs").write_text("5", encoding="ascii")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.popen.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str, tenant: str | None = None, seconds: float = GUARD_SECONDS) -> httpx2.Response:
        headers = {"X-Tenant-ID": tenant} if tenant else {}
        return httpx2.get(self.url + path, headers=headers, timeout=seconds, trust_env=False)

    def succeeds(self, path: str) -> bool | None:
        """Return True if the path responds with 200, else None."""
        try:
            return self.get(path, seconds=2).status_code == 200 or None
        except httpx2.TransportError:
            return None

    def connect(self, seconds: float = GUARD_SECONDS) -> socket.socket:
        """Open a connection whose calls time out after `seconds`."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def send(self, request: bytes) -> bytes:
        """Send bytes, and return what the server sends until it closes the connection."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process meanwhile, so that it meets all that happens at once."""
        self.popen.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.popen.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.popen.send_signal(signal.SIGCONT)

    def faults(self) -> list[dict[str, Any]]:
        """Return the errors, those of uvicorn too, and 500 responses in the log."""
        whole = self.log.read_text(encoding="utf-8").split("\n")[:-1]  # The last line may be incomplete.
        lines = [json.loads(line) for line in whole if line[:1] == "{"]
        lines += [{"level": "error", "event": line} for line in whole if line.startswith("ERROR:")]
        return [line for line in lines if line["level"] in ("error", "critical") or line.get("status") == 500]


@dataclass(slots=True)
class Runway(Process):
    """A Runway process on `tests.hostile.apiserver`."""

    def role(self) -> str | None:
        """Return the role in `/readyz`, or None if the process is not ready."""
        try:
            answer = self.get("/readyz")
        except httpx2.TransportError:
            return None
        return str(answer.json()["role"]) if answer.status_code == 200 else None

    def submit(self, *command: str, tenant: str = "vision") -> str:
        """Submit a job, wait until it runs, and return its id."""
        spec = {
            "image": "runway.local/busybox:1",
            "command": list(command),
            "resources": {"cpu": "100m", "memory": "32Mi"},
        }
        headers = {"X-Tenant-ID": tenant}
        answer = httpx2.post(f"{self.url}/v1/jobs", json=spec, headers=headers, timeout=GUARD_SECONDS, trust_env=False)
        assert answer.status_code == 201, answer.text
        job = str(answer.json()["id"])
        wait_for(lambda: self.get(f"/v1/jobs/{job}").json()["state"] == "running" or None, "job running")
        return job

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def environment(self) -> dict[str, str]:
        """Return the environment of a command line for this process."""
        return {**os.environ, "RUNWAY_URL": self.url, "RUNWAY_TENANT": "vision", "TERM": "xterm-256color"}


def resident_memory(pid: int, name: str = "VmRSS") -> int:
    """Return a size in `/proc/PID/status`, 0 for a zombie."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def read_all(connection: socket.socket) -> bytes:
    """Return the bytes until the end of the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_cli(
    *arguments: str, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end. `before` runs in its process first."""
    return subprocess.run(
        [*CLI, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
        preexec_fn=before,
    )


@contextmanager
def serving(scratch: Path, **bounds: float) -> Iterator[Process]:
    """Start Runway on a fake cluster. `bounds` override `tests.fuzz.served.BOUNDS`."""
    arguments = ["-m", "tests.fuzz.served", "PORT", json.dumps(bounds)]
    with _started(arguments, scratch / "runway.log", {}) as (popen, port):
        process = Process(popen, port, scratch / "runway.log")
        wait_for(lambda: process.succeeds("/readyz"), "Runway ready")
        yield process


@contextmanager
def api_server(scratch: Path) -> Iterator[Process]:
    """Start the API server, and write `scratch/kubeconfig`."""
    with _started(["-m", "tests.hostile.apiserver", "PORT"], scratch / "apiserver.log", {}) as (popen, port):
        process = Process(popen, port, scratch / "apiserver.log")
        (scratch / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(process.url)))
        wait_for(lambda: process.succeeds("/version"), "API server")
        yield process


@contextmanager
def runway(scratch: Path, *, policy: Path = POLICY, before: Callable[[], None] | None = None) -> Iterator[Runway]:
    """Start Runway on `scratch/kubeconfig`, and wait until it leads. `before` runs in its process first."""
    environment = {"RUNWAY_POLICY": str(policy), "KUBECONFIG": str(scratch / "kubeconfig")}
    arguments = [*CLI[1:], "serve", "--port", "PORT"]
    with _started(arguments, scratch / "runway.log", environment, before) as (popen, port):
        process = Runway(popen, port, scratch / "runway.log")
        wait_for(lambda: process.role() == "writer" or None, "Runway to lead")
        yield process


def kubeconfig(url: str) -> dict[str, Any]:
    """Return a kubeconfig for an API server without TLS."""
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
    arguments: list[str], log: Path, environment: dict[str, str], before: Callable[[], None] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run Python with a free port for the argument `PORT`, and stop it at the end."""
    claim = ReservedPort()
    port = claim.number
    with log.open("wb") as file:
        popen = subprocess.Popen(
            [sys.executable, *(str(port) if argument == "PORT" else argument for argument in arguments)],
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
            popen.wait(GUARD_SECONDS)
        claim.release()
