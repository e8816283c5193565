"""Measure POST /v1/jobs against raw Job creates on the same API server.

Both use the same number of workers and requests and the same manifest, which Runway renders. The Job controller and the
scheduler are frozen, so they use none of the two cores.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.kubernetes import NAMESPACE, ApiServer
from bench.load import Measured, Target, measure
from bench.process import Process
from runway.jobs.annotations import LABEL_MANAGED_BY

CONCURRENCIES = (1, 8, 32)
SETTLE_SECONDS: Final = 0.1
"""After a round, for what follows the last submissions: their watch events."""

SPEC: dict[str, Any] = {
    "image": "runway.local/busybox:1",
    "command": ["true"],
    "resources": {"cpu": "100m", "memory": "32Mi"},
    "timeout_seconds": 600,
}


@dataclass(slots=True)
class Pair:
    """The same load on the API server and on Runway in alternating rounds of `requests` requests."""

    concurrency: int
    requests: int
    raw: list[Measured] = field(default_factory=list)
    runway: list[Measured] = field(default_factory=list)
    cpu_seconds: float = 0.0
    """The CPU time of Runway's process in its rounds."""

    @property
    def cpu(self) -> float:
        """Milliseconds of CPU time for a submission and the watch events of its Job."""
        return self.cpu_seconds * 1e3 / (self.requests * len(self.runway))

    @property
    def throughput(self) -> float:
        """The ratio of Runway's rate to the raw rate, each over all rounds.

        Now and then the API server's garbage collector uses a core for almost a second. Over all rounds, both sides
        have their share of it, unlike in a median.
        """
        return rate(self.runway) / rate(self.raw)

    def ratios(self, of: Callable[[Measured], float]) -> list[float]:
        """Return the ratio of Runway's figure to the raw figure per round, in ascending order."""
        return sorted(of(runway) / of(raw) for raw, runway in zip(self.raw, self.runway, strict=True))


@dataclass(frozen=True, slots=True)
class InProcess:
    """Mean milliseconds of a submission: time in Runway without the create call, and CPU time of the process."""

    submissions: int
    in_process: float
    cpu: float


def middle(figures: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(figures)


def rate(rounds: Iterable[Measured]) -> float:
    """Requests a second over all rounds, each of as many requests."""
    return statistics.harmonic_mean([one.per_second for one in rounds])


async def submit_pairs(api: ApiServer, process: Process, requests: int, rounds: int) -> list[Pair]:
    """Measure raw creates and Runway in alternating short rounds at each concurrency.

    A shared machine slows down for seconds, and longer rounds would slow only one of the two.
    """
    raw, runway = await raw_target(api, process.url), runway_target(process.url)
    for target in (runway, raw):
        await measure(target, 100, 8)
    pairs = []
    for concurrency in CONCURRENCIES:
        count = max(50, (requests // 4 if concurrency == 1 else requests) // rounds)
        pair = Pair(concurrency, count)
        for _ in range(rounds):
            pair.raw.append(await measure(raw, count, concurrency))
            before = process.cpu_seconds()
            pair.runway.append(await measure(runway, count, concurrency))
            await asyncio.sleep(SETTLE_SECONDS)
            pair.cpu_seconds += process.cpu_seconds() - before
        pairs.append(pair)
        rates, p50s = pair.ratios(lambda one: one.per_second), pair.ratios(lambda one: one.p50)
        print(
            f"submit, concurrency {concurrency:2d}: raw {rate(pair.raw):.0f}/s "
            f"p50 {middle(one.p50 for one in pair.raw):.2f} ms; "
            f"Runway {rate(pair.runway):.0f}/s "
            f"p50 {middle(one.p50 for one in pair.runway):.2f} ms; throughput {pair.throughput:.2f} of raw "
            f"({rates[0]:.2f} to {rates[-1]:.2f}), p50 {middle(p50s):.2f} of raw ({p50s[0]:.2f} to {p50s[-1]:.2f}); "
            f"CPU {pair.cpu:.2f} ms",
            flush=True,
        )
    return pairs


async def in_process(process: Process, submissions: int) -> InProcess:
    """Measure what Runway adds to a submission, one at a time without a pause. CPU time includes the watch events."""
    target = runway_target(process.url)
    await measure(target, 200, 1)
    seconds, cpu = await _seconds(process.url), process.cpu_seconds()
    await measure(target, submissions, 1)
    await asyncio.sleep(SETTLE_SECONDS)
    cpu_after, seconds_after = process.cpu_seconds(), await _seconds(process.url)
    found = InProcess(submissions, (seconds_after - seconds) * 1e3 / submissions, (cpu_after - cpu) * 1e3 / submissions)
    print(f"submit, in process: {found.in_process:.2f} ms per submission; CPU {found.cpu:.2f} ms", flush=True)
    return found


async def _seconds(url: str) -> float:
    """Read the seconds of all submissions without their create calls."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as answer:
        text = await answer.text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(name: str, **labels: str) -> float:
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    create = total("runway_submission_seconds_sum", stage="create")
    return total("runway_http_request_seconds_sum", method="POST") - create


def runway_target(url: str, spec: Mapping[str, Any] = SPEC) -> Target:
    """Return the target of submissions to Runway."""
    headers = {"Content-Type": "application/json", "X-Tenant-ID": "bench"}
    return Target(f"{url}/v1/jobs", headers, lambda: json.dumps(spec).encode())


async def raw_target(api: ApiServer, runway_url: str, spec: Mapping[str, Any] = SPEC) -> Target:
    """Return the target of raw creates: the manifest that Runway renders, with a new name and another manager label."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{runway_url}/v1/jobs?dry_run=true", json=spec, headers={"X-Tenant-ID": "bench"}) as answer,
    ):
        manifest = (await answer.json())["manifest"]
    for metadata in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
        metadata["labels"][LABEL_MANAGED_BY] = "nobody"

    def body() -> bytes:
        manifest["metadata"]["name"] = f"raw-{uuid.uuid4().hex[:20]}"
        return json.dumps(manifest).encode()

    url = f"{api.url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    return Target(url, {"Content-Type": "application/json"}, body, api.tls)
