"""Running out of file descriptors: no crash, no busy loop, and everything works again once there are some."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from testbed.waiting import wait_for
from tests.hostile.serving import FULL, POLICY, Process, Runway, api_server, free_port, kubeconfig, runway

LIMIT = 64
CLIENTS = 200
HELD_SECONDS = 40.0 if FULL else 6.0
"""The long form holds the connections until the Lease could have run out, and until Runway has closed idle ones."""


def test_without_free_descriptors_the_lease_is_kept_and_nothing_spins(tmp_path: Path) -> None:
    with api_server(tmp_path) as api, runway(tmp_path) as process:
        descriptors = process.descriptors()
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        clients = _exhaust(process)
        cpu, log, written = process.cpu_seconds(), process.log.stat().st_size, _lease_writes(api)

        time.sleep(HELD_SECONDS)

        assert process.popen.poll() is None
        assert process.cpu_seconds() - cpu < HELD_SECONDS / 4
        assert process.log.stat().st_size - log < 64 << 10
        assert _lease_writes(api) > written
        for client in clients:
            client.close()
        wait_for(lambda: process.role() == "writer" or None, "the writer answers again", 10)
        wait_for(lambda: process.descriptors() <= descriptors + 2 or None, "descriptors returned", 10)
        assert process.submit("quiet")
        assert process.faults() == []


def test_connections_to_kubernetes_that_break_meanwhile_come_back(tmp_path: Path) -> None:
    with api_server(tmp_path) as api, runway(tmp_path) as process:
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        clients = _exhaust(process)
        httpx2.post(f"{api.url}/break", timeout=5, trust_env=False)
        cpu = process.cpu_seconds()

        time.sleep(HELD_SECONDS)

        assert process.popen.poll() is None
        assert process.cpu_seconds() - cpu < HELD_SECONDS / 4
        for client in clients:
            client.close()
        wait_for(lambda: process.role() == "writer" or None, "the writer answers again", 30)
        assert process.submit("quiet")
        assert process.faults() == []


def test_a_limit_below_what_the_bounds_need_stops_the_start_by_a_message(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(str(kubeconfig("http://127.0.0.1:9")))

    done = _serve(tmp_path, (LIMIT, LIMIT))

    assert done.returncode == 1
    assert done.stderr.startswith("runway: cannot start\nthe process may have 64 open files (ulimit -Hn) and needs ")
    assert "RUNWAY_MAX_STREAMS" in done.stderr


def test_a_low_soft_limit_is_raised(tmp_path: Path) -> None:
    hard = 4096

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))

    with api_server(tmp_path), runway(tmp_path, before=limit) as process:
        assert resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def _exhaust(process: Runway) -> list[socket.socket]:
    """Connect until the process has no descriptor left, and further."""
    clients = [socket.create_connection(("127.0.0.1", process.port), timeout=5) for _ in range(CLIENTS)]
    wait_for(lambda: process.descriptors() >= LIMIT - 1 or None, "no descriptor left", 10)
    return clients


def _lease_writes(api: Process) -> int:
    return int(api.get("/counts").json()["lease_writes"])


def _serve(scratch: Path, limits: tuple[int, int]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from runway.cli.main import main; main()", "serve", "--port", str(free_port())],
        env={**os.environ, "RUNWAY_POLICY": str(POLICY), "KUBECONFIG": str(scratch / "kubeconfig")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
    )
