"""Exhaustion of file descriptors: no crash, no busy loop, and recovery."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path

import httpx2

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import FULL, POLICY, Process, Runway, api_server, free_port, kubeconfig, run_cli, runway

LIMIT = 64
CLIENTS = 200
HELD_SECONDS = 40.0 if FULL else 6.0
"""The long form outlasts the Lease and Runway's wait for a request head."""


def test_lease_is_renewed_without_busy_loop_while_descriptors_are_exhausted(tmp_path: Path) -> None:
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
        wait_for(lambda: process.role() == "writer" or None, "Runway ready again")
        wait_for(lambda: process.descriptors() <= descriptors + 2 or None, "descriptors returned")
        assert process.submit("quiet")
        assert process.faults() == []


def test_connections_to_kubernetes_recover_after_exhaustion(tmp_path: Path) -> None:
    with api_server(tmp_path) as api, runway(tmp_path) as process:
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        clients = _exhaust(process)
        httpx2.post(f"{api.url}/break", timeout=GUARD_SECONDS, trust_env=False)
        cpu = process.cpu_seconds()

        time.sleep(HELD_SECONDS)

        assert process.popen.poll() is None
        assert process.cpu_seconds() - cpu < HELD_SECONDS / 4
        for client in clients:
            client.close()
        wait_for(lambda: process.role() == "writer" or None, "Runway ready again")
        assert process.submit("quiet")
        assert process.faults() == []


def test_hard_limit_below_the_bounds_stops_the_start_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(str(kubeconfig("http://127.0.0.1:9")))

    done = run_cli(
        *("serve", "--port", str(free_port())),
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)),
        RUNWAY_POLICY=str(POLICY),
        KUBECONFIG=str(tmp_path / "kubeconfig"),
    )

    assert done.returncode == 1
    assert done.stderr.startswith(
        "runway: cannot start\nthe limit of open files (ulimit -Hn) is 64, below the required "
    )
    assert "RUNWAY_MAX_STREAMS" in done.stderr


def test_soft_limit_is_raised_to_hard_limit(tmp_path: Path) -> None:
    hard = 4096

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))

    with api_server(tmp_path), runway(tmp_path, before=limit) as process:
        assert resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def _exhaust(process: Runway) -> list[socket.socket]:
    """Open more connections than the process has descriptors."""
    clients = [socket.create_connection(("127.0.0.1", process.port), timeout=GUARD_SECONDS) for _ in range(CLIENTS)]
    wait_for(lambda: process.descriptors() >= LIMIT - 1 or None, "descriptors exhausted")
    return clients


def _lease_writes(api: Process) -> int:
    return int(api.get("/counts").json()["lease_writes"])
