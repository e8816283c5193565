"""`make bench`: run every measurement on the local cluster, print it, and write it into docs/performance.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench import report
from bench.submit import ApiServer, delete_namespace, submit_pairs
from localcluster.cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[1]
PORT = 8017
URL = f"http://127.0.0.1:{PORT}"
FROZEN = ("kube-controller-manager", "kube-scheduler")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="requests a run")
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md as it is")
    asked = parser.parse_args()
    cluster = LocalCluster.default()
    api = ApiServer.from_kubeconfig(cluster.kubeconfig)
    try:
        with _runway(cluster), _frozen(cluster):
            pairs = asyncio.run(submit_pairs(api, URL, asked.requests))
    finally:
        print("bench: removing what was made", flush=True)
        asyncio.run(delete_namespace(api))
    if not asked.no_write:
        version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        report.write(ROOT / "docs" / "performance.md", pairs, asked.requests, version)
        print("bench: written to docs/performance.md")


@contextlib.contextmanager
def _runway(cluster: LocalCluster) -> Iterator[None]:
    """Runway under the bench's own policy, for as long as it is needed."""
    environment = {
        **os.environ,
        "RUNWAY_POLICY": str(ROOT / "bench" / "policy.yaml"),
        "KUBECONFIG": str(cluster.kubeconfig),
    }
    rendered = subprocess.run(
        [str(Path(sys.executable).with_name("runway")), "tenants", "render"],
        env=environment,
        check=True,
        capture_output=True,
    )
    cluster.kubectl("apply", "-f", "-", stdin=rendered.stdout.decode())
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(PORT), "--no-access-log"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_ready(process)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_ready(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{URL}/readyz", timeout=2).close()  # noqa: S310 (our own loopback address)
            return
        time.sleep(0.1)
    raise RuntimeError("Runway did not become ready within 30 s")


@contextlib.contextmanager
def _frozen(cluster: LocalCluster) -> Iterator[None]:
    """The Job controller and the scheduler stand still, so that a created Job costs nothing but its create."""
    components = [cluster.component(name) for name in FROZEN]
    for component in components:
        component.freeze()
    try:
        yield
    finally:
        for component in components:
            component.thaw()


main()
