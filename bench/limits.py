"""Measure the admission of a submission by number of jobs, with every limit of a tenant.

Each number of jobs has a fake API server and a Runway with the limits on GPU types, spending and budget, and another
pair without them. They take turns, so that a slow machine slows all. A tenth of the jobs are unfinished. A refusal
takes time for each of these: it names the first and counts all that use the quota.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import yaml

from bench.fake_apiserver import DOCUMENT, FakeApiServer
from bench.load import Measured, Target, measure
from bench.many_jobs import ROUNDS, until_idle
from bench.process import POLICY, Process
from bench.submit import middle
from runway.policy import load_policy

FIRST_PORT: Final = 8031
SUBMISSIONS: Final = 200
"""Submissions in a round. Each accepted one adds a job."""
REFUSED: Final = 403
LIMITS: Final[dict[str, Any]] = {"gpu_types": {"a10g": 100_000}, "disk": "1000Ti", "usd_per_hour": "1000000"}
BUDGET: Final = {"usd": "80", "hours": 24}
"""Enough for 50,000 jobs of the fake API server, and too little for the largest possible job."""
GPU_POOL: Final = {
    "instance_type": "g5.12xlarge", "hourly_usd": "5.672", "cpu": "48", "memory": "192Gi", "gpu": 4, "gpu_type": "a10g",
}  # fmt: skip
JOB: Final = DOCUMENT | {
    "resources": {"cpu": "100m", "memory": "64Mi", "gpu": 1},
    "timeout_seconds": 30,
    "grace_period_seconds": 1,
}
LARGEST_JOB: Final = JOB | {"resources": {"cpu": "16", "memory": "128Gi", "gpu": 4}, "timeout_seconds": 86_400}
"""It exceeds the budget."""


@dataclass(slots=True)
class Admission:
    """The rounds of one kind of submission with `jobs` jobs, and the CPU seconds of Runway in all of them."""

    jobs: int
    what: str
    target: Target
    process: Process
    rounds: list[Measured] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def figures(self) -> tuple[float, float, float]:
        """The p50 and p99 of a submission, and its CPU time with the watch event of its job, in milliseconds."""
        cpu = self.cpu * 1e3 / (len(self.rounds) * SUBMISSIONS)
        return middle(one.p50 for one in self.rounds), middle(one.p99 for one in self.rounds), cpu

    async def measure(self) -> None:
        """Add a round."""
        before = self.process.cpu_seconds()
        self.rounds.append(await measure(self.target, SUBMISSIONS, 1))
        self.cpu += self.process.cpu_seconds() - before


async def measure_limits(numbers: Sequence[int]) -> list[list[Admission]]:
    """Measure accepted submissions without and with the limits, and refused ones, at each number of jobs."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = [
            await _admissions(stack, scratch / str(place), jobs, FIRST_PORT + 2 * place)
            for place, jobs in enumerate(numbers)
        ]
        in_turn = list(chain.from_iterable(found))
        for one in in_turn:
            await measure(one.target, SUBMISSIONS, 1)
        for _ in range(ROUNDS):
            for one in in_turn:
                await one.measure()
    for one in in_turn:
        p50, p99, cpu = one.figures
        print(f"limits, {one.jobs} jobs, {one.what}: p50 {p50:.2f}, p99 {p99:.2f}, CPU {cpu:.2f} ms", flush=True)
    return found


async def _admissions(stack: AsyncExitStack, scratch: Path, jobs: int, port: int) -> list[Admission]:
    without, limited = [
        await _serve(stack, scratch / name, policy, jobs, port + place)
        for place, (name, policy) in enumerate((("without", _policy()), ("limited", _limited(_policy()))))
    ]
    return [
        Admission(jobs, "accepted, without these limits", _target(without, JOB, 201), without),
        Admission(jobs, "accepted", _target(limited, JOB, 201), limited),
        Admission(jobs, "refused", _target(limited, LARGEST_JOB, REFUSED), limited),
    ]


async def _serve(stack: AsyncExitStack, folder: Path, policy: dict[str, Any], jobs: int, port: int) -> Process:
    """Start a fake API server and a Runway; wait until it has listed the jobs."""
    file = _write(policy, folder)
    kubeconfig = await stack.enter_async_context(FakeApiServer(load_policy(file), jobs, JOB).serve(folder))
    process = stack.enter_context(Process(kubeconfig, port=port, policy=file))
    await asyncio.to_thread(process.wait_for, "writer")
    await until_idle(process)
    return process


def _write(policy: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True)
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(policy))
    return file


def _policy() -> dict[str, Any]:
    """Return the bench's policy with GPUs."""
    policy: dict[str, Any] = yaml.safe_load(POLICY.read_text())
    policy["pools"]["a10g"] = GPU_POOL
    policy["tenants"]["bench"]["quota"]["gpu"] = 100_000
    return policy


def _limited(policy: dict[str, Any]) -> dict[str, Any]:
    tenant = policy["tenants"]["bench"]
    tenant["quota"] |= LIMITS
    tenant["budget"] = BUDGET
    return policy


def _target(process: Process, job: dict[str, Any], status: int) -> Target:
    headers = {"Content-Type": "application/json", "X-Tenant-ID": "bench"}
    return Target(f"{process.url}/v1/jobs", headers, lambda: json.dumps(job).encode(), status=status)
