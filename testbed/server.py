"""Runway as a process of its own, served by uvicorn on a loopback port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx2

from runway.cli.commands.serve import HTTP_PROTOCOL
from testbed.ports import Port
from testbed.waiting import TimedOut, wait_for

CHECKOUT = Path(__file__).resolve().parents[1]
PROTOCOL = (f"--http={HTTP_PROTOCOL}", "--ws=none")
"""uvicorn's options for the protocol that bounds what a client may send."""
READY_SECONDS = 30.0
STOP_SECONDS = 10.0


class ServerFailed(Exception):
    """Runway did not start; the message holds the end of its log."""


class Server:
    """One Runway on one port. It can be started again after it was stopped or killed. A context manager."""

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._last_role: str | None = None
        self._claim = Port()
        self._port = self._claim.number
        # Under one name all its life, so that it takes its own Lease back at once when it is started again.
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
        """The running process, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def launch(self) -> None:
        """Start it, without waiting until it is ready."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "uvicorn", "main:app", "--host=127.0.0.1", f"--port={self._port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                # Open log streams may not hold up the end for longer than this.
                [*command, *PROTOCOL, "--no-access-log", "--timeout-graceful-shutdown=3"],
                cwd=CHECKOUT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Start it and wait until it is the writer. Raises ServerFailed, also where another Runway stays the writer."""
        self.launch()
        try:
            wait_for(self._ready, "Runway ready", READY_SECONDS)
        except TimedOut as error:
            reader = "; it only reads, since another Runway is the writer" if self._last_role == "reader" else ""
            raise ServerFailed(f"{error}{reader}\n{self.log_end()}") from error

    def stop(self) -> None:
        """SIGTERM, then SIGKILL: by its own pid, and only if it still runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def log_end(self) -> str:
        """The last lines of its log."""
        return f"The end of {self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def role(self) -> str | None:
        """What /readyz says that it is, writer or reader; None where it is not ready."""
        answer = httpx2.get(f"{self.url}/readyz", timeout=2, trust_env=False)
        return str(answer.json()["role"]) if answer.status_code == 200 else None

    def _ready(self) -> bool | None:
        if self.pid is None:
            raise ServerFailed(f"Runway has ended\n{self.log_end()}")
        try:
            self._last_role = self.role()
            return self._last_role == "writer" or None
        except httpx2.TransportError:
            return None
