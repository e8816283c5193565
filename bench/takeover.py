"""Measure the time without a leader after its SIGTERM or SIGKILL."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

from bench.process import Process
from localcluster.cluster import LocalCluster


@dataclass(frozen=True, slots=True)
class Takeover:
    """Seconds until the second process is the leader, over `samples` takeovers."""

    how: str
    samples: int
    shortest: float
    longest: float


def takeovers(cluster: LocalCluster, samples: int) -> list[Takeover]:
    """Stop the leader repeatedly and measure the takeover by the second process."""
    found = []
    for how, number in (("stopped (SIGTERM)", signal.SIGTERM), ("killed (SIGKILL)", signal.SIGKILL)):
        took = [_one(cluster, number) for _ in range(samples)]
        found.append(Takeover(how, samples, min(took), max(took)))
        print(f"takeover, {how}: {min(took):.1f} to {max(took):.1f} s of {samples}", flush=True)
    return found


def _one(cluster: LocalCluster, number: signal.Signals) -> float:
    with Process(cluster.kubeconfig, instance="bench-a", port=8018) as first:
        first.wait_for("writer")
        # Started after the first is the leader: with two concurrent starts, either could become the leader.
        with Process(cluster.kubeconfig, instance="bench-b", port=8019) as second:
            second.wait_for("reader")
            first.end(number)
            ended = time.monotonic()
            second.wait_for("writer")
            return time.monotonic() - ended
