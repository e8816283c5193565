"""Run Runway as a process, by default with the bench's policy and default settings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from localcluster.cluster import LocalCluster
from testbed.server import UVICORN_PROTOCOL

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "bench" / "policy.yaml"
PORT = 8017
URL = f"http://127.0.0.1:{PORT}"


class Process:
    """One Runway. `settings` are environment variables. A context manager that starts and stops it."""

    def __init__(
        self,
        kubeconfig: Path,
        instance: str = "bench",
        port: int = PORT,
        policy: Path = POLICY,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable,
            "-m",
            "uvicorn",
            "main:app",
            "--port",
            str(port),
            "--no-access-log",
            *UVICORN_PROTOCOL,
        ]
        self._environment = {
            **os.environ,
            "RUNWAY_POLICY": str(policy),
            "RUNWAY_INSTANCE": instance,
            "KUBECONFIG": str(kubeconfig),
            **settings,
        }

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> None:
        """Send this signal and wait until the process has exited."""
        self._process.send_signal(number)
        self._process.wait(timeout=30)

    def cpu_seconds(self) -> float:
        """Return the user and system CPU time of the process."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[float, float]:
        """Return current and peak resident memory in MB (10^6 bytes)."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
        return sizes["VmRSS"] * 1024 / 1e6, sizes["VmHWM"] * 1024 / 1e6

    def wait_for(self, role: str) -> None:
        """Wait until /readyz reports this role, `writer` or `reader`. Raises RuntimeError after two minutes."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._role() == role:
                return
            time.sleep(0.02)
        raise RuntimeError(f"Runway at {self.url} did not become {role} within 120 s")

    def open_files(self) -> int:
        """Count the open descriptors of the process, including connections."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def _role(self) -> str | None:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:  # noqa: S310 (our own loopback address)
                return str(json.load(answer)["role"])
        except OSError:  # Not listening yet, or busy with its lists.
            return None


@contextlib.contextmanager
def runway(cluster: LocalCluster) -> Iterator[float]:
    """Run a Runway and wait until it is the leader; yield the seconds from its start until then."""
    with Process(cluster.kubeconfig) as process:
        process.wait_for("writer")
        yield time.monotonic() - process.started


def render_tenants(cluster: LocalCluster, policy: Path = POLICY) -> None:
    """Apply the namespaces of a policy's tenants."""
    environment = {**os.environ, "RUNWAY_POLICY": str(policy)}
    command = [str(Path(sys.executable).parent / "runway"), "tenants", "render"]
    rendered = subprocess.run(command, env=environment, check=True, capture_output=True)
    cluster.kubectl("apply", "-f", "-", stdin=rendered.stdout.decode())


@contextlib.contextmanager
def frozen(cluster: LocalCluster, *names: str) -> Iterator[None]:
    """Freeze these components until the context exits."""
    components = [cluster.component(name) for name in names]
    for component in components:
        component.freeze()
    try:
        yield
    finally:
        for component in components:
            component.thaw()
