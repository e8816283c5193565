"""How much of a submission is Runway's: POST /v1/jobs beside raw Job creates on the same API server.

The Job controller and the scheduler are frozen in both, so that nothing else works on the two cores; the same number of
workers sends the same number of requests; both Jobs are alike in size, since the raw one is Runway's own manifest.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.kubernetes import NAMESPACE, ApiServer
from bench.load import Measured, Target, measure

RAW_LABEL = "runway-bench/raw"
CONCURRENCIES = (1, 8, 32)

SPEC: dict[str, Any] = {
    "image": "runway.local/busybox:1",
    "command": ["true"],
    "resources": {"cpu": "100m", "memory": "32Mi"},
    "timeout_seconds": 600,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """The same load on the API server and on Runway."""

    concurrency: int
    raw: Measured
    runway: Measured


async def submit_pairs(api: ApiServer, runway_url: str, requests: int) -> list[Pair]:
    """Measure at each concurrency: raw, Runway, raw, Runway; the better of the two runs of each counts.

    Two runs in turn, since a shared machine slows down for seconds at a time, and would slow only one of the two.
    """
    raw = await _raw_target(api, runway_url)
    runway = Target(
        f"{runway_url}/v1/jobs", {"Content-Type": "application/json", "X-Tenant-ID": "bench"}, lambda: _body(SPEC)
    )
    await measure(runway, 50, 8)
    await measure(raw, 50, 8)
    pairs = []
    for concurrency in CONCURRENCIES:
        count = max(100, requests // 4) if concurrency == 1 else requests
        runs = [(await measure(raw, count, concurrency), await measure(runway, count, concurrency)) for _ in range(2)]
        best_raw = max((run[0] for run in runs), key=lambda measured: measured.per_second)
        best_runway = max((run[1] for run in runs), key=lambda measured: measured.per_second)
        pairs.append(Pair(concurrency, best_raw, best_runway))
        print(
            f"submit, {concurrency:2d} at once: raw {best_raw.per_second:6.0f}/s p50 {best_raw.p50:6.2f} ms; "
            f"Runway {best_runway.per_second:6.0f}/s p50 {best_runway.p50:6.2f} ms; "
            f"{best_runway.per_second / best_raw.per_second:.2f} of raw",
            flush=True,
        )
    return pairs


async def _raw_target(api: ApiServer, runway_url: str) -> Target:
    """Creates of the very manifest that Runway renders, each under a name of its own."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{runway_url}/v1/jobs?dry_run=true", json=SPEC, headers={"X-Tenant-ID": "bench"}) as answer,
    ):
        manifest = (await answer.json())["manifest"]
    manifest["metadata"]["labels"] = {RAW_LABEL: "1"}
    manifest["spec"]["template"]["metadata"]["labels"] = {RAW_LABEL: "1"}

    def body() -> bytes:
        manifest["metadata"]["name"] = f"raw-{uuid.uuid4().hex[:20]}"
        return json.dumps(manifest).encode()

    url = f"{api.url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    return Target(url, {"Content-Type": "application/json"}, body, api.tls)


def _body(spec: dict[str, Any]) -> bytes:
    return json.dumps(spec).encode()
