"""Runway as a separate process: uvicorn on a loopback port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx2

from runway.cli.main import HTTP_PROTOCOL, SHUTDOWN_SECONDS
from testbed.ports import ReservedPort
from testbed.waiting import TimedOut, wait_for

CHECKOUT = Path(__file__).resolve().parents[1]
UVICORN_PROTOCOL = (f"--http={HTTP_PROTOCOL}", "--ws=none")
"""The uvicorn options for the protocol that limits the bytes of a client."""
STOP_SECONDS = 30.0


class ServerFailed(Exception):
    """Runway did not start; the message contains the end of its log."""


class Server:
    """One Runway on one port; it can start again after `stop` or `kill`. A context manager."""

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._last_role: str | None = None
        self._claim = ReservedPort()
        self._port = self._claim.number
        # A fixed identity: after a restart it acquires its own Lease at once.
        instance = {"RUNWAY_INSTANCE": f"demo-{self._port}"}
        self._environment = {**os.environ, **instance, **(environment or {})}
        self.url = f"http://127.0.0.1:{self._port}"
        self.lease = ("runway-writer", self._environment.get("RUNWAY_LEASE_NAMESPACE", "default"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._claim.release()

    @property
    def pid(self) -> int | None:
        """The ID of the running process, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def launch(self) -> None:
        """Start it without waiting for readiness."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "uvicorn", "main:app", "--host=127.0.0.1", f"--port={self._port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *UVICORN_PROTOCOL, "--no-access-log", f"--timeout-graceful-shutdown={SHUTDOWN_SECONDS}"],
                cwd=CHECKOUT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Start it and wait until it is the leader. Raises ServerFailed, also if another Runway stays the leader."""
        self.launch()
        try:
            wait_for(self._ready, "Runway ready")
        except TimedOut as error:
            reader = "; it only reads: another Runway is the leader" if self._last_role == "reader" else ""
            raise ServerFailed(f"{error}{reader}\n{self.log_tail()}") from error

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL if it still runs after the timeout."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL, which has the effect of a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        return f"The end of {self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def role(self) -> str | None:
        """Return the role in /readyz, `writer` or `reader`; None while it is not ready."""
        answer = httpx2.get(f"{self.url}/readyz", timeout=2, trust_env=False)
        return str(answer.json()["role"]) if answer.status_code == 200 else None

    def _ready(self) -> bool | None:
        if self.pid is None:
            raise ServerFailed(f"Runway has exited\n{self.log_tail()}")
        try:
            self._last_role = self.role()
            return self._last_role == "writer" or None
        except httpx2.TransportError:
            return None
