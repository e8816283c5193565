"""Measure from a submission to a running container, beside `kubectl create` and a raw create of the same manifest.

The three take turns, one job at a time. Each time ends when one watch of pods reports that the container is running.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import aiohttp

from bench.kubernetes import NAMESPACE, ApiServer, watch
from bench.load import Target
from bench.many_jobs import Latency
from bench.submit import SPEC, raw_target, runway_target
from localcluster.cluster import LocalCluster

LONG_SPEC: Final[dict[str, Any]] = SPEC | {"command": ["sleep", "3"]}
"""The kubelet looks for new states once a second, so a shorter container might never be reported as running."""
RUNNING_SECONDS: Final = 60.0
SEEN_SECONDS: Final = 0.01
MAX_PAUSE_SECONDS: Final = 1.0
"""A random pause before each start, so that a start is not in phase with the kubelet's look."""

Create = Callable[[], Awaitable[str]]
"""Create a job, and return its name."""


async def measure_starts(cluster: LocalCluster, api: ApiServer, runway_url: str, samples: int) -> dict[str, Latency]:
    """Start `samples` jobs in each way; return the times until their containers run."""
    raw = await raw_target(api, runway_url, LONG_SPEC)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls)) as kubernetes,
        aiohttp.ClientSession() as runway,
    ):
        ways: dict[str, Callable[[], Create]] = {
            "Runway": lambda: _request(runway, runway_target(runway_url, LONG_SPEC)),
            "raw create": lambda: _request(kubernetes, raw),
            "kubectl create": lambda: _kubectl(cluster, raw.body().decode()),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        running: dict[str, float] = {}
        watching = asyncio.create_task(_watch_running(kubernetes, api, running))
        chance = random.Random(8)  # noqa: S311 (not a secret)
        try:
            for _ in range(samples + 1):
                for way, prepare in ways.items():
                    await asyncio.sleep(chance.uniform(0, MAX_PAUSE_SECONDS))
                    took[way].append(await _start(prepare(), running))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    found = {way: Latency.of(seconds[1:]) for way, seconds in took.items()}  # The first opens the connections.
    print(
        f"start, {samples} samples: "
        + "; ".join(f"{way} p50 {one.p50:.0f} ms, p99 {one.p99:.0f} ms" for way, one in found.items()),
        flush=True,
    )
    return found


async def _start(create: Create, running: dict[str, float]) -> float:
    """Return the seconds from the start of the creation until the container runs."""
    began = time.perf_counter()
    name = await create()
    async with asyncio.timeout(RUNNING_SECONDS):
        while name not in running:  # noqa: ASYNC110 (set by another task of this loop)
            await asyncio.sleep(SEEN_SECONDS)
    return running[name] - began


async def _watch_running(kubernetes: aiohttp.ClientSession, api: ApiServer, running: dict[str, float]) -> None:
    """Add the time when the container of each job is first reported as running, by the job's name."""
    async with aclosing(watch(kubernetes, f"{api.url}/api/v1/namespaces/{NAMESPACE}/pods")) as events:
        async for event in events:
            now, pod = time.perf_counter(), event["object"]
            if any("running" in status["state"] for status in pod["status"].get("containerStatuses", ())):
                running.setdefault(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"], now)


def _request(client: aiohttp.ClientSession, target: Target) -> Create:
    body = target.body()

    async def create() -> str:
        async with client.post(target.url, data=body, headers=target.headers) as answer:
            document = await answer.json()
            if answer.status != target.status:
                raise RuntimeError(f"{target.url} answered {answer.status}: {document}")
        return str(document["id"] if "id" in document else document["metadata"]["name"])

    return create


def _kubectl(cluster: LocalCluster, manifest: str) -> Create:
    async def create() -> str:
        printed = await asyncio.to_thread(cluster.kubectl, "create", "-f", "-", "-o", "name", stdin=manifest)
        return printed.strip().rpartition("/")[2]

    return create
