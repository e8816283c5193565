"""Measure the delay from a finished job to the release of its quota.

The baseline is our own watch on the same API server. For a failed job it is the event with the Job's Failed condition.
For a succeeded job it is the pod's Succeeded phase, about a second before the Job's Complete condition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.kubernetes import NAMESPACE, ApiServer, watch
from bench.process import URL

HEADERS = {"X-Tenant-ID": "bench"}


@dataclass(frozen=True, slots=True)
class QuotaRelease:
    """Milliseconds from the watch event to the release of the quota, over `samples` jobs."""

    what: str
    samples: int
    p50: float
    p99: float


@dataclass(slots=True)
class _Seen:
    reported: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)


async def measure_quota_release(api: ApiServer, *, fails: bool, jobs: int, at_once: int) -> QuotaRelease:
    """Run `jobs` short jobs through Runway, and time the release of the quota of each."""
    path = "/apis/batch/v1" if fails else "/api/v1"
    kind, finished_job = ("jobs", _job_failed) if fails else ("pods", _pod_succeeded)
    seen = _Seen()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls)) as kubernetes,
        aiohttp.ClientSession() as runway,
    ):
        watching = asyncio.create_task(
            _watch(kubernetes, f"{api.url}{path}/namespaces/{NAMESPACE}/{kind}", finished_job, seen)
        )
        try:
            for _ in range(0, jobs, at_once):
                ids = [await _submit(runway, "exit 1" if fails else "exit 0") for _ in range(at_once)]
                await _poll_until_free(runway, set(ids), seen)
                async with asyncio.timeout(30):
                    while not seen.reported.keys() >= set(ids):  # noqa: ASYNC110 (set by another task of this loop)
                        await asyncio.sleep(0.01)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    took = sorted(max(0.0, seen.free[job] - seen.reported[job]) * 1e3 for job in seen.free)
    what = "Job condition Failed" if fails else "pod phase Succeeded"
    found = QuotaRelease(what, len(took), took[len(took) // 2], took[int(len(took) * 0.99)])
    print(f"release after {what}: p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms of {found.samples}", flush=True)
    return found


async def _submit(runway: aiohttp.ClientSession, script: str) -> str:
    spec = {
        "image": "runway.local/busybox:1",
        "command": ["sh", "-c", script],
        "resources": {"cpu": "100m", "memory": "32Mi"},
        "timeout_seconds": 120,
    }
    async with runway.post(f"{URL}/v1/jobs", json=spec, headers=HEADERS) as answer:
        document = await answer.json()
        if answer.status != 201:
            raise RuntimeError(f"submit answered {answer.status}: {document}")
        return str(document["id"])


async def _poll_until_free(runway: aiohttp.ClientSession, ids: set[str], seen: _Seen) -> None:
    waiting = set(ids)
    async with asyncio.timeout(120):
        while waiting:
            async with runway.get(f"{URL}/v1/quota", headers=HEADERS) as answer:
                in_use = {holder["id"] for holder in (await answer.json())["tenants"][0]["jobs"]}
            now = time.monotonic()
            for job in waiting - in_use:
                seen.free[job] = now
            waiting &= in_use
            await asyncio.sleep(0.002)


async def _watch(
    kubernetes: aiohttp.ClientSession, url: str, finished_job: Callable[[Any], str | None], seen: _Seen
) -> None:
    async with aclosing(watch(kubernetes, url)) as events:
        async for event in events:
            name = finished_job(event["object"])
            if name is not None:
                seen.reported.setdefault(name, time.monotonic())


def _job_failed(job: Any) -> str | None:
    conditions = job.get("status", {}).get("conditions", [])
    failed = any(item["type"] == "Failed" and item["status"] == "True" for item in conditions)
    return str(job["metadata"]["name"]) if failed else None


def _pod_succeeded(pod: Any) -> str | None:
    if pod.get("status", {}).get("phase") != "Succeeded":
        return None
    return str(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
