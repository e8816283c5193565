"""Where a submission's time goes: Runway's CPU time by stage from samples of its stacks, and a flame graph of them.

The in-process share is what Runway itself adds to a submission: everything from the first byte of a request until the
answer begins, without the wait for the API server. It is taken from Runway's own histograms.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench import flame
from bench.load import measure
from bench.process import PORT, Process
from bench.submit import runway_target

STAGES: dict[str, tuple[str, ...]] = {
    "log": ("structlog.",),
    "the watch tells of it": ("runway.controllers.sync.Observer._follow", "runway.controllers.job_recorder."),
    "create: send, receive, decode": ("runway.kube.client.Kubernetes.create_job", "aiohttp."),
    "take in: store, ledger": ("runway.services.submit.Submitter._confirm_created",),
    "build: manifest": ("runway.services.submit.Submitter._manifest",),
    "respond: view, JSON": (
        "runway.services.submit.Submitter._answer",
        "runway.api.jobs._json",
        "starlette.responses.",
    ),
    "parse: body, specification": ("runway.api.body.", "runway.jobs.spec.read_draft"),
    "admit: policy, price, rate, quota": ("runway.services.submit.Submitter._submit",),
    "framework: routing, headers, parameters": ("fastapi.", "starlette."),
    "server: HTTP": ("uvicorn.protocols.",),
}
LOOP = "event loop"
"""The stage of a stack is the first of these that has a function in it; the rest is the event loop."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Milliseconds of CPU time of each stage of one submission, and the in-process share of its time, on the mean."""

    submissions: int
    cpu: dict[str, float]
    in_process: float


async def _run(process: Process, submissions: int) -> tuple[float, float]:
    """Submit, with samples taken; returns the seconds of CPU time and of in-process time that it took."""
    target = runway_target(process.url)
    await measure(target, 200, 1)
    outside, spent = await _sums(process.url), process.cpu_seconds()
    process.tell(signal.SIGUSR1)
    await measure(target, submissions, 1)
    spent, outside = process.cpu_seconds() - spent, await _sums(process.url) - outside
    process.tell(signal.SIGUSR1)
    return spent, outside


def _written(file: Path) -> Counter[str]:
    deadline = time.monotonic() + 10
    while not file.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the samples were not written")
        time.sleep(0.05)
    return Counter(json.loads(file.read_text()))


async def _sums(url: str) -> float:
    """Seconds of all submissions so far, without their creates."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/metrics") as answer:
        text = await answer.text()
    seconds = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "runway_http_request_seconds_sum" and sample.labels["method"] == "POST":
                seconds += sample.value
            elif sample.name == "runway_submission_seconds_sum" and sample.labels["stage"] == "create":
                seconds -= sample.value
    return seconds


def stages(kubeconfig: Path, submissions: int, image: Path) -> Stages:
    """Run a Runway whose stacks are sampled, submit to it one at a time, and draw the flame graph."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "stacks.json"
        with Process(kubeconfig, command=[sys.executable, "-m", "bench.sampled", str(file), str(PORT)]) as process:
            process.wait_for("writer")
            spent, in_process = asyncio.run(_run(process, submissions))
            stacks = _written(file)
    image.parent.mkdir(parents=True, exist_ok=True)
    flame.draw(stacks, image, "CPU time of Runway, one submission at a time", "uvicorn.server.Server.run")
    by_stage = Counter[str]()
    for stack, samples in stacks.items():
        by_stage[_stage(stack)] += samples
    each = spent * 1e3 / submissions / stacks.total()
    cpu = {stage: by_stage[stage] * each for stage in (*STAGES, LOOP)}
    found = Stages(submissions, cpu, in_process * 1e3 / submissions)
    print(
        f"stages: in process {found.in_process:.2f} ms of a submission; CPU {sum(cpu.values()):.2f} ms: "
        + ", ".join(f"{stage} {spent:.2f}" for stage, spent in cpu.items()),
        flush=True,
    )
    return found


def _stage(stack: str) -> str:
    names = stack.split(";")
    for stage, starts in STAGES.items():
        if any(name.startswith(starts) for name in names):
            return stage
    return LOOP
