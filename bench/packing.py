"""Simulate the packing of GPU pods: stranded GPUs with and without the affinity, and with and without `per_gpu`.

`python -m bench.packing` prints the table of docs/decisions/012-packing.md. It needs no cluster and is deterministic.

The scores are those of the default scheduler of Kubernetes 1.35: NodeResourcesFit (LeastAllocated, weight 1),
NodeResourcesBalancedAllocation (1) and InterPodAffinity (2), over CPU and memory. Its other scores are equal on equal
nodes. Pods that do not fit wait, and do not block later ones.
https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

NODES: Final = 8
GPUS, CPUS, GIB = 4, 46.0, 164.0  # The a10g pool of config/policy.eks.example.yaml.
JOBS: Final = 1500
SEEDS: Final = 8
MEAN_HOURS: Final = 2.0
LOAD: Final = 0.75
"""The mean number of requested GPUs as a share of the pool's."""
SIZES: Final = ((1, 0.6), (2, 0.2), (4, 0.2))
"""GPUs of a job, and the share of such jobs."""
WIDE: Final = 0.1
"""The share of 1-GPU jobs that ask for all CPUs of a node, unless `per_gpu` refuses that."""


@dataclass(frozen=True, slots=True)
class Job:
    arrives: float
    gpus: int
    cpus: float
    gib: float
    hours: float


@dataclass(slots=True)
class Node:
    gpus: int = GPUS
    cpus: float = CPUS
    gib: float = GIB
    pods: int = 0

    def fits(self, job: Job) -> bool:
        return job.gpus <= self.gpus and job.cpus <= self.cpus and job.gib <= self.gib

    def place(self, job: Job, sign: int = 1) -> None:
        self.gpus -= sign * job.gpus
        self.cpus -= sign * job.cpus
        self.gib -= sign * job.gib
        self.pods += sign


@dataclass(frozen=True, slots=True)
class Result:
    stranded: float
    """GPUs that are free while a job waits that asks for no more than all free GPUs, on average."""
    whole_node_wait: float
    """Mean wait of the jobs that need a whole node, in hours."""


Score = Callable[[Sequence[Node], Job], Sequence[float]]


def spread(nodes: Sequence[Node], job: Job) -> list[float]:
    """Score as the default scheduler without an affinity: the emptiest node wins."""
    scores = []
    for node in nodes:
        cpu, gib = (node.cpus - job.cpus) / CPUS, (node.gib - job.gib) / GIB
        scores.append(50 * (cpu + gib) + 100 * (1 - abs(cpu - gib) / 2))
    return scores


def affinity(nodes: Sequence[Node], job: Job) -> list[float]:
    """Score as the default scheduler with Runway's preferred affinity: the node with the most pods wins."""
    pods = [node.pods for node in nodes]
    low, span = min(pods), max(pods) - min(pods)
    return [
        score + (200 * (count - low) / span if span else 0)
        for score, count in zip(spread(nodes, job), pods, strict=True)
    ]


def most_allocated(nodes: Sequence[Node], _: Job) -> list[float]:
    """Score as a scheduler whose configuration packs GPUs, which EKS does not offer: the fullest node wins."""
    return [float(-node.gpus) for node in nodes]


def workload(rng: random.Random, *, per_gpu: bool) -> list[Job]:
    mean = sum(gpus * share for gpus, share in SIZES)
    rate, now, jobs = LOAD * NODES * GPUS / (mean * MEAN_HOURS), 0.0, []
    for _ in range(JOBS):
        now += rng.expovariate(rate)
        (gpus,) = rng.choices([size for size, _ in SIZES], [share for _, share in SIZES])
        cpus, gib = gpus * CPUS / GPUS * rng.uniform(0.3, 1.0), gpus * GIB / GPUS * rng.uniform(0.3, 1.0)
        if rng.random() < WIDE and gpus == 1 and not per_gpu:
            cpus = CPUS
        jobs.append(Job(now, gpus, cpus, gib, rng.expovariate(1 / MEAN_HOURS)))
    return jobs


def simulate(jobs: Sequence[Job], score: Score, rng: random.Random) -> Result:
    """Play the jobs: at each arrival and end, the scheduler tries every waiting job in order of arrival."""
    nodes, waiting, waits = [Node() for _ in range(NODES)], list[Job](), list[float]()
    ends: list[tuple[float, int, Job, Node]] = []
    arrivals, now, stranded, order = list(reversed(jobs)), 0.0, 0.0, itertools.count()
    while arrivals:
        at = min(arrivals[-1].arrives, ends[0][0] if ends else arrivals[-1].arrives)
        free = sum(node.gpus for node in nodes)
        stranded += (at - now) * free * any(job.gpus <= free for job in waiting)
        now = at
        if ends and ends[0][0] <= now:
            _, _, job, node = heapq.heappop(ends)
            node.place(job, -1)
        else:
            waiting.append(arrivals.pop())
        for job in tuple(waiting):
            fitting = [node for node in nodes if node.fits(job)]
            if not fitting:
                continue
            scores = score(fitting, job)
            best = max(scores)
            node = rng.choice([node for node, found in zip(fitting, scores, strict=True) if found >= best - 1e-9])
            node.place(job)
            waiting.remove(job)
            heapq.heappush(ends, (now + job.hours, next(order), job, node))
            if job.gpus == GPUS:
                waits.append(now - job.arrives)
    return Result(stranded / now, statistics.fmean(waits))


def measure(score: Score, *, per_gpu: bool, seeds: int = SEEDS) -> Result:
    """Return the mean over workloads that are the same for every score."""
    found = []
    for seed in range(seeds):
        jobs = workload(random.Random(seed), per_gpu=per_gpu)  # noqa: S311 (no secret)
        found.append(simulate(jobs, score, random.Random(seed)))  # noqa: S311
    stranded, waits = [each.stranded for each in found], [each.whole_node_wait for each in found]
    return Result(statistics.fmean(stranded), statistics.fmean(waits))


def table() -> str:
    lines = [
        "| scheduling | `per_gpu` | stranded GPUs of 32 | mean wait for a whole node |",
        "| --- | --- | ---: | ---: |",
    ]
    for name, score in (("default", spread), ("Runway's affinity", affinity), ("MostAllocated", most_allocated)):
        for per_gpu in (False, True):
            result = measure(score, per_gpu=per_gpu)
            bound = "on" if per_gpu else "off"
            lines.append(f"| {name} | {bound} | {result.stranded:.1f} | {result.whole_node_wait * 60:.0f} min |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
