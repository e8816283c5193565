"""`python -m bench.simulate`: 20,000 jobs through Runway on a thousand simulated nodes, and what grows meanwhile.

Real: Runway, API server, etcd, Job controller, scheduler. Simulated, by kwok: the nodes, and what pods do on them.
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
SETTLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What stood when so many jobs had been accepted. Milliseconds are medians."""

    accepted: int
    accepted_per_second: float
    over_per_second: float
    resident_mb: float
    view_ms: float
    list_ms: float
    metrics_ms: float


@dataclass(slots=True)
class Load:
    """Submissions of all tenants until so many are accepted."""

    jobs: int
    url: str
    accepted: list[tuple[str, str]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    cancels: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, tenants: list[str]) -> None:
        """Submit with `WORKERS` at once; a refusal is followed by a pause, not counted as a job."""
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
    """A sample after each tenth of the jobs."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        then, accepted, over = time.monotonic(), 0, 0
        for step in range(1, SAMPLES + 1):
            while len(load.accepted) < step * load.jobs // SAMPLES:  # noqa: ASYNC110 (a poll is enough for a sample)
                await asyncio.sleep(0.05)
            now, ended = time.monotonic(), await _over(session, load.url)
            tenant, job = random.choice(load.accepted)  # noqa: S311 (any job will do)
            headers = {"X-Tenant-ID": tenant}
            yield Sample(
                accepted=len(load.accepted),
                accepted_per_second=(len(load.accepted) - accepted) / (now - then),
                over_per_second=(ended - over) / (now - then),
                resident_mb=process.memory()[0],
                view_ms=await _median(session, f"{load.url}/v1/jobs/{job}", headers, 21),
                list_ms=await _median(session, f"{load.url}/v1/jobs?limit=50", headers, 11),
                metrics_ms=await _median(session, f"{load.url}/metrics", {}, 5),
            )
            then, accepted, over = now, len(load.accepted), ended


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> str:
    async with session.get(url, headers=headers) as answer:
        answer.raise_for_status()
        return await answer.text()


async def _median(session: aiohttp.ClientSession, url: str, headers: dict[str, str], times: int) -> float:
    """Milliseconds of this GET, the median of so many."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        await _get(session, url, headers)
        took.append((time.perf_counter() - started) * 1e3)
    return statistics.median(took)


async def _over(session: aiohttp.ClientSession, url: str) -> int:
    lines = (await _get(session, f"{url}/metrics", {})).splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("runway_jobs_finished_total{")))


async def _settled(url: str, jobs: int) -> float:
    """Seconds until all jobs are over and no tenant holds anything. Raises RuntimeError after `SETTLE_SECONDS`."""
    began = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while time.monotonic() - began < SETTLE_SECONDS:
            held = [tenant["used"]["gpu"] + tenant["reserved"]["gpu"] for tenant in await _quota(session, url)]
            if sum(held) == 0 and await _over(session, url) >= jobs:
                return time.monotonic() - began
            await asyncio.sleep(0.5)
    raise RuntimeError(f"not all jobs were over {SETTLE_SECONDS:.0f} s after the last was accepted")


async def _quota(session: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    async with session.get(f"{url}/v1/quota") as answer:
        tenants: list[dict[str, Any]] = (await answer.json())["tenants"]
        return tenants


async def simulate(api: ApiServer, process: Process, jobs: int) -> tuple[list[Sample], Load, Audit]:
    """Run it all, printing a line a sample."""
    tenants = list(yaml.safe_load(POLICY.read_text())["tenants"])
    load, samples = Load(jobs, process.url), []
    print("\n".join(HEAD), flush=True)
    async with audit(api) as told:
        submitting = asyncio.create_task(load.run(tenants))
        try:
            async for sample in _samples(load, process):
                samples.append(sample)
                print(_row(sample), flush=True)
            await submitting
        finally:
            submitting.cancel()
        print(f"all over {await _settled(process.url, jobs):.0f} s after the last was accepted", flush=True)
    return samples, load, told


def limits() -> dict[str, int]:
    """The GPUs that each tenant of the simulation may hold."""
    return {name: tenant["quota"]["gpu"] for name, tenant in yaml.safe_load(POLICY.read_text())["tenants"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md as it is")
    asked = parser.parse_args()
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
            samples, load, told = asyncio.run(simulate(api, process, asked.jobs))
    finally:
        print("removing what was made", flush=True)
        asyncio.run(remove(api))
    most, allowed = told.most_held(), limits()
    beyond = {tenant: held for tenant, held in most.items() if held > allowed[tenant]}
    at_limit = sum(most[tenant] == allowed[tenant] for tenant in most)
    print(f"answers: {dict(load.answers)}; tenants that reached their quota: {at_limit}; beyond it: {beyond or 'none'}")
    if not asked.no_write:
        said = f"{at_limit} of {len(most)} tenants reached their quota, {len(beyond)} went beyond it."
        part = "\n".join([*HEAD, *map(_row, samples), "", said])
        version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        report.write({"simulation": part}, f"Kubernetes {version}")
    if beyond:
        sys.exit("a tenant held more than its quota")


async def remove(api: ApiServer) -> None:
    """Let Kubernetes remove nodes, jobs and namespaces."""
    await delete_nodes(api)
    tenants = yaml.safe_load(POLICY.read_text())["tenants"].values()
    await asyncio.gather(*(delete_namespace(api, tenant["namespace"]) for tenant in tenants))


HEAD = (
    "| accepted | accepted/s | over/s | resident MB | one job ms | list ms | metrics ms |",
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def _row(sample: Sample) -> str:
    return (
        f"| {sample.accepted} | {sample.accepted_per_second:.0f} | {sample.over_per_second:.0f} "
        f"| {sample.resident_mb:.0f} | {sample.view_ms:.1f} | {sample.list_ms:.1f} | {sample.metrics_ms:.1f} |"
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
