"""A thousand simulated nodes with kwok as their kubelet.

SIMULATED: no pod runs. API server, etcd, Job controller and scheduler are real.
https://kwok.sigs.k8s.io/
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from bench.kubernetes import ApiServer
from localcluster import go, paths
from localcluster.cluster import LocalCluster

SIMULATION = Path(__file__).parent / "simulation"
NODES: Mapping[str, tuple[int, dict[str, str]]] = {
    "a10g": (500, {"cpu": "48", "memory": "192Gi", "nvidia.com/gpu": "4"}),
    "l40s": (300, {"cpu": "48", "memory": "384Gi", "nvidia.com/gpu": "4"}),
    "h100": (200, {"cpu": "192", "memory": "2048Gi", "nvidia.com/gpu": "8"}),
}
"""The number of nodes and the capacity per node of each GPU type."""

BUILD_SECONDS = 1200


def ensure_built() -> Path:
    """Build the pinned kwok from source, once, and return its path. Raises LocalClusterError."""
    pinned = hashlib.sha256(b"".join((SIMULATION / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()
    binary = paths.build_cache() / f"kwok-{pinned[:12]}"
    if not binary.exists():
        print("bench: building kwok once (about 2 minutes on 2 cores)", flush=True)
        unfinished = binary.with_suffix(".unfinished")
        go.build(SIMULATION, ["sigs.k8s.io/kwok/cmd/kwok"], unfinished, timeout=BUILD_SECONDS)
        unfinished.rename(binary)
    return binary


@contextlib.contextmanager
def kwok(cluster: LocalCluster, log: Path) -> Iterator[None]:
    """Run kwok for the nodes of `make_nodes`.

    kwok sends no heartbeats, which are a load for a thousand nodes, so the node controller gets a long grace period.
    The Job controller syncs 50 Jobs concurrently: with the default of five, only a dozen a second would finish.
    """
    command = [
        str(ensure_built()),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={SIMULATION / 'stages.yaml'}",
        "--manage-nodes-with-label-selector=type=kwok",
        "--v=WARN",
    ]
    # kwok's client prefers streaming lists, which need etcd 3.4.25 or later.
    environment = {**os.environ, "KUBE_FEATURE_WatchListClient": "false"}
    controllers = cluster.component("kube-controller-manager")
    controllers.stop()
    controllers.with_options("--node-monitor-grace-period=6h", "--concurrent-job-syncs=50").start()
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)
        controllers.stop()
        controllers.start()


async def make_nodes(api: ApiServer) -> None:
    """Create the nodes of `NODES`, ready at once."""
    nodes = [
        _node(f"{kind}-{number:03d}", kind, has) for kind, (count, has) in NODES.items() for number in range(count)
    ]
    url, at_once = f"{api.url}/api/v1/nodes", asyncio.Semaphore(16)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls)) as session:

        async def make(node: dict[str, Any]) -> None:
            async with at_once:
                async with session.post(url, json=node) as answer:
                    answer.raise_for_status()
                # A create ignores the status, so a patch sets it.
                headers = {"Content-Type": "application/merge-patch+json"}
                where = f"{url}/{node['metadata']['name']}/status"
                async with session.patch(where, json={"status": node["status"]}, headers=headers) as answer:
                    answer.raise_for_status()

        await asyncio.gather(*(make(node) for node in nodes))


async def delete_nodes(api: ApiServer) -> None:
    """Delete the nodes of `make_nodes`."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls)) as session,
        session.delete(f"{api.url}/api/v1/nodes", params={"labelSelector": "type=kwok"}) as answer,
    ):
        answer.raise_for_status()


def _node(name: str, kind: str, has: Mapping[str, str]) -> dict[str, Any]:
    capacity = {**has, "pods": "110", "ephemeral-storage": "1000Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok", "simulated": kind, "kubernetes.io/hostname": name}},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated", "message": "kwok"}],
        },
    }
