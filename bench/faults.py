"""The faults of the soak."""

from __future__ import annotations

import asyncio
import json

from localcluster.cluster import LocalCluster

FREEZE_SECONDS = 4.0


async def freeze(cluster: LocalCluster) -> None:
    """Freeze the API server for a while."""
    await asyncio.sleep(10)
    api_server = cluster.component("kube-apiserver")
    api_server.freeze()
    try:
        await asyncio.sleep(FREEZE_SECONDS)
    finally:
        api_server.thaw()


async def delete_a_pod(cluster: LocalCluster) -> None:
    """Delete a running pod of Runway, if there is one."""
    selector = "app.kubernetes.io/managed-by=runway"
    found = await asyncio.to_thread(
        cluster.kubectl,
        "get",
        "pods",
        "-A",
        f"--selector={selector}",
        "--field-selector=status.phase=Running",
        "-o=json",
    )
    pods = json.loads(found)["items"]
    if pods:
        where = pods[0]["metadata"]
        command = (
            "delete",
            "pod",
            where["name"],
            f"--namespace={where['namespace']}",
            "--wait=false",
            "--ignore-not-found",
        )
        await asyncio.to_thread(cluster.kubectl, *command)
