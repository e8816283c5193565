"""Measure the start with many Jobs in the cluster, until Runway is the leader."""

from __future__ import annotations

import copy
import json
import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.kubernetes import NAMESPACE, ApiServer
from bench.load import Target, measure
from bench.process import URL, frozen, runway
from bench.submit import SPEC
from localcluster.cluster import LocalCluster


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds from the process's start until it is the leader, with `jobs` Jobs and without."""

    jobs: int
    seconds: float
    seconds_without_jobs: float
    list_seconds: float


async def fill(api: ApiServer, jobs: int) -> None:
    """Create `jobs` Jobs directly in the API server. A running Runway renders their manifest."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{URL}/v1/jobs?dry_run=true", json=SPEC, headers={"X-Tenant-ID": "bench"}) as answer,
    ):
        manifest = (await answer.json())["manifest"]

    def body() -> bytes:
        job = copy.deepcopy(manifest)
        name = f"rw-{uuid.uuid4().hex[:20]}"
        job["metadata"]["name"] = name
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            labels["runway.internal/job"] = name
        return json.dumps(job).encode()

    url = f"{api.url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    await measure(Target(url, {"Content-Type": "application/json"}, body, api.tls), jobs, 16)


def starts(cluster: LocalCluster, count: int) -> float:
    """Return the median of `count` starts in seconds."""
    took = []
    for _ in range(count):
        with runway(cluster) as seconds:
            took.append(seconds)
    return sorted(took)[count // 2]


def restart(cluster: LocalCluster, without: float, jobs: int, list_seconds: float) -> Restart:
    """Measure starts with the Jobs of `fill`."""
    with frozen(cluster, "kube-controller-manager", "kube-scheduler"):
        found = Restart(jobs, starts(cluster, 3), without, list_seconds)
    print(
        f"restart with {found.jobs} Jobs: {found.seconds:.2f} s until leader "
        f"({found.seconds_without_jobs:.2f} s without Jobs; list alone {found.list_seconds:.2f} s)",
        flush=True,
    )
    return found


async def time_list(api: ApiServer) -> float:
    """Return the seconds for fetching all Jobs, page by page, without decoding: the lower bound of a start."""
    import time

    started, query = time.monotonic(), {"limit": "500"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls)) as session:
        while True:
            async with session.get(f"{api.url}/apis/batch/v1/jobs", params=query) as answer:
                page: Any = json.loads(await answer.read())
            if not page["metadata"].get("continue"):
                return time.monotonic() - started
            query["continue"] = page["metadata"]["continue"]
