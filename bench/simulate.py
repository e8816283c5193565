"""`python -m bench.simulate`: 20,000 jobs on a thousand simulated nodes.

Real: Runway, API server, etcd, Job controller, scheduler. Simulated by kwok: nodes and pods.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import yaml

from bench import report
from bench.audit import Audit, audit
from bench.kubernetes import ApiServer, delete_namespace
from bench.kwok_nodes import NODES, SIMULATION, delete_nodes, ensure_built, kwok, make_nodes
from bench.process import ROOT, Process, render_tenants
from localcluster.cluster import LocalCluster

POLICY = SIMULATION / "policy.yaml"
WORKERS = 32
SAMPLES = 10
REFUSED_PAUSE_SECONDS = 0.5
FINISH_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements at a number of accepted jobs. Milliseconds are medians."""

    accepted: int
    accepted_per_second: float
    finished_per_second: float
    resident_mb: float
    view_ms: float
    list_ms: float
    metrics_ms: float


@dataclass(slots=True)
class Load:
    """Submissions of all tenants until `jobs` are accepted."""

    jobs: int
    url: str
    accepted: list[tuple[str, str]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    cancels: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, tenants: list[str]) -> None:
        """Submit with `WORKERS` concurrent clients; pause after a rejection and do not count it."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            await asyncio.gather(
                *(self._work(session, tenants, chance) for chance in map(random.Random, range(WORKERS)))
            )
            await asyncio.gather(*self.cancels)

    async def _work(self, session: aiohttp.ClientSession, tenants: list[str], chance: random.Random) -> None:
        while len(self.accepted) < self.jobs:
            tenant = chance.choice(tenants)
            headers = {"X-Tenant-ID": tenant}
            async with session.post(f"{self.url}/v1/jobs", json=_spec(chance), headers=headers) as answer:
                body = await answer.json()
            self.answers["accepted" if answer.status == 201 else body["code"]] += 1
            if answer.status != 201:
                await asyncio.sleep(float(answer.headers.get("Retry-After", REFUSED_PAUSE_SECONDS)))
                continue
            self.accepted.append((tenant, body["id"]))
            if chance.random() < 0.03:
                cancel = asyncio.create_task(self._cancel(session, tenant, body["id"], chance.uniform(0, 6)))
                self.cancels.add(cancel)

    async def _cancel(self, session: aiohttp.ClientSession, tenant: str, job: str, after: float) -> None:
        await asyncio.sleep(after)
        async with session.delete(f"{self.url}/v1/jobs/{job}", headers={"X-Tenant-ID": tenant}) as answer:
            self.answers[f"cancel {answer.status}"] += 1


def _spec(chance: random.Random) -> dict[str, Any]:
    kind = chance.choices(list(NODES), [count for count, _ in NODES.values()])[0]
    gpus = chance.choices((1, 2, 4), (5, 3, 2))[0]
    return {
        "image": "runway.local/fails:1" if chance.random() < 0.05 else "runway.local/busybox:1",
        "command": ["train"],
        "resources": {"cpu": "1", "memory": "4Gi", "gpu": gpus, "gpu_type": kind},
        "timeout_seconds": 3600,
    }


async def _samples(load: Load, process: Process) -> AsyncIterator[Sample]:
    """Yield a sample after each tenth of the jobs."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        then, accepted, finished = time.monotonic(), 0, 0
        for step in range(1, SAMPLES + 1):
            while len(load.accepted) < step * load.jobs // SAMPLES:  # noqa: ASYNC110 (a poll is enough for a sample)
                await asyncio.sleep(0.05)
            now, count = time.monotonic(), await _finished(session, load.url)
            tenant, job = random.choice(load.accepted)  # noqa: S311 (any job will do)
            headers = {"X-Tenant-ID": tenant}
            yield Sample(
                accepted=len(load.accepted),
                accepted_per_second=(len(load.accepted) - accepted) / (now - then),
                finished_per_second=(count - finished) / (now - then),
                resident_mb=process.memory()[0],
                view_ms=await _median(session, f"{load.url}/v1/jobs/{job}", headers, 21),
                list_ms=await _median(session, f"{load.url}/v1/jobs?limit=50", headers, 11),
                metrics_ms=await _median(session, f"{load.url}/metrics", {}, 5),
            )
            then, accepted, finished = now, len(load.accepted), count


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> str:
    async with session.get(url, headers=headers) as answer:
        answer.raise_for_status()
        return await answer.text()


async def _median(session: aiohttp.ClientSession, url: str, headers: dict[str, str], times: int) -> float:
    """Return the median milliseconds of `times` GETs."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        await _get(session, url, headers)
        took.append((time.perf_counter() - started) * 1e3)
    return statistics.median(took)


async def _finished(session: aiohttp.ClientSession, url: str) -> int:
    lines = (await _get(session, f"{url}/metrics", {})).splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("runway_jobs_finished_total{")))


async def _until_finished(url: str, jobs: int) -> float:
    """Return the seconds until all jobs are finished and no quota is used. Raises RuntimeError on timeout."""
    began = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while time.monotonic() - began < FINISH_SECONDS:
            usage = [tenant["used"]["gpu"] + tenant["reserved"]["gpu"] for tenant in await _quota(session, url)]
            if sum(usage) == 0 and await _finished(session, url) >= jobs:
                return time.monotonic() - began
            await asyncio.sleep(0.5)
    raise RuntimeError(f"not all jobs were finished {FINISH_SECONDS:.0f} s after the last submission")


async def _quota(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/v1/quota") as answer:
        tenants: list[dict[str, Any]] = (await answer.json())["tenants"]
        return tenants


async def simulate(api: ApiServer, process: Process, jobs: int) -> tuple[list[Sample], Load, Audit]:
    """Run the simulation and print one line per sample."""
    tenants = list(yaml.safe_load(POLICY.read_text())["tenants"])
    load, samples = Load(jobs, process.url), []
    print("\n".join(HEAD), flush=True)
    async with audit(api) as record:
        submitting = asyncio.create_task(load.run(tenants))
        try:
            async for sample in _samples(load, process):
                samples.append(sample)
                print(_row(sample), flush=True)
            await submitting
        finally:
            submitting.cancel()
        print(f"all finished {await _until_finished(process.url, jobs):.0f} s after the last submission", flush=True)
    return samples, load, record


def limits() -> dict[str, int]:
    """Return the GPU quota of each tenant of the simulation."""
    return {name: tenant["quota"]["gpu"] for name, tenant in yaml.safe_load(POLICY.read_text())["tenants"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--no-write", action="store_true", help="do not change docs/performance.md")
    arguments = parser.parse_args()
    ensure_built()
    cluster = LocalCluster.default()
    api = ApiServer.from_kubeconfig(cluster.kubeconfig)
    render_tenants(cluster, POLICY)
    try:
        with (
            kwok(cluster, ROOT / ".local" / "kwok.log"),
            Process(cluster.kubeconfig, "simulation", policy=POLICY) as process,
        ):
            asyncio.run(make_nodes(api))
            process.wait_for("writer")
            samples, load, record = asyncio.run(simulate(api, process, arguments.jobs))
    finally:
        print("deleting nodes, jobs and namespaces", flush=True)
        asyncio.run(remove(api))
    peak, quota = record.peak_usage(), limits()
    exceeded = {tenant: usage for tenant, usage in peak.items() if usage > quota[tenant]}
    at_limit = sum(peak[tenant] == quota[tenant] for tenant in peak)
    print(f"responses: {dict(load.answers)}; tenants at their quota: {at_limit}; above it: {exceeded or 'none'}")
    if not arguments.no_write:
        result = f"{at_limit} of {len(peak)} tenants reached their quota, {len(exceeded)} exceeded it."
        part = "\n".join([*HEAD, *map(_row, samples[1::2]), "", result])
        version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        report.write({"simulation": part}, f"Kubernetes {version}")
    if exceeded:
        sys.exit("a tenant exceeded its quota")


async def remove(api: ApiServer) -> None:
    """Delete nodes and namespaces with their jobs."""
    await delete_nodes(api)
    tenants = yaml.safe_load(POLICY.read_text())["tenants"].values()
    await asyncio.gather(*(delete_namespace(api, tenant["namespace"]) for tenant in tenants))


HEAD = (
    "| accepted | accepted/s | finished/s | resident MB | one job ms | list ms | metrics ms |",
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def _row(sample: Sample) -> str:
    return (
        f"| {sample.accepted} | {sample.accepted_per_second:.0f} | {sample.finished_per_second:.0f} "
        f"| {sample.resident_mb:.0f} | {sample.view_ms:.1f} | {sample.list_ms:.1f} | {sample.metrics_ms:.1f} |"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
