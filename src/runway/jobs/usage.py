"""Compute the resource usage of a job from measured figures. Pure.

None means unknown, never 0: no source, no sample yet, or an impossible figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.models import Failure, SpecView, Usage
from runway.quantity import parse_bytes, parse_cpu

THROTTLED_RATIO: Final = 0.25  # The minimum of a finding: the job was throttled in a quarter of its CPU periods.
THROTTLED_PERIODS: Final = 50
"""The minimum CPU periods of that finding (5 s): the start of any container is throttled too."""
MEMORY_RATIO: Final = 0.9  # The minimum of a finding: an input that is a tenth larger can end the job.


_OUT_OF_MEMORY: Final = frozenset({FailureCode.OOM_KILLED, FailureCode.OOM_CHILD_SUSPECTED})


class PodFigure(StrEnum):
    """A figure that Prometheus has of one pod."""

    CPU_SECONDS = "cpu_seconds"
    CPU_SAMPLED_AT = "cpu_sampled_at"
    """Seconds since the epoch."""
    CPU_PERIODS = "cpu_periods"
    CPU_PERIODS_THROTTLED = "cpu_periods_throttled"
    MEMORY = "memory"
    MEMORY_PEAK = "memory_peak"
    """The largest working set of any sample."""
    MEMORY_MOST = "memory_most"
    """The kernel's own peak: it includes peaks between two samples, and reclaimable page cache."""
    CACHE_PEAK = "cache_peak"
    """The largest page cache of any sample."""
    GPU_PERCENT = "gpu_percent"


PodFigures = Mapping[PodFigure, float]


def usage_of(
    spec: SpecView | None,
    last: PodFigures,
    started_at: datetime | None,
    all_pods: Iterable[PodFigures],
    *,
    out_of_memory: bool = False,
) -> Usage:
    """Combine the figures of the last attempt, the start of its container, and the memory peaks of all attempts.

    `out_of_memory`: the kernel killed a process of an attempt, so the peak is the limit. Samples are older.
    """
    # A process needs memory and CPU time: 0 is a sample from before its start.
    seconds = _figure(last, PodFigure.CPU_SECONDS) or None
    sampled_at = _moment(_figure(last, PodFigure.CPU_SAMPLED_AT))
    peaks = [peak for pod in all_pods if (peak := _memory_peak(pod)) is not None]
    limits = limits_of(spec)
    if out_of_memory and limits.memory_limit_bytes is not None:
        peaks.append(limits.memory_limit_bytes)
    periods, throttled = _figure(last, PodFigure.CPU_PERIODS), _figure(last, PodFigure.CPU_PERIODS_THROTTLED)
    percent = _figure(last, PodFigure.GPU_PERCENT)
    return replace(
        limits,
        cpu_seconds=seconds,
        cpu_cores=_mean(seconds, started_at, sampled_at),
        memory_bytes=_whole(_figure(last, PodFigure.MEMORY) or None),
        memory_peak_bytes=_whole(max(peaks, default=None)),
        throttled_ratio=min(throttled / periods, 1.0) if periods and throttled is not None else None,
        cpu_periods=_whole(periods),
        gpu_utilisation=None if percent is None else min(percent / 100, 1.0),
        sampled_at=None if seconds is None else sampled_at,
    )


def limits_of(spec: SpecView | None) -> Usage:
    """Return the usage of an unmeasured job: its limits."""
    if spec is None:
        return Usage()
    try:
        cpu, memory = parse_cpu(spec.resources.cpu) / 1000, parse_bytes(spec.resources.memory)
    except ValueError:
        return Usage()  # Somebody edited the annotation.
    return Usage(cpu_limit_cores=cpu, memory_limit_bytes=memory)


def findings(usage: Usage) -> tuple[str, ...]:
    """List the findings for the owner in plain words."""
    found = []
    enough = usage.cpu_periods is not None and usage.cpu_periods >= THROTTLED_PERIODS
    if enough and usage.throttled_ratio is not None and usage.throttled_ratio >= THROTTLED_RATIO:
        found.append(f"throttled in {usage.throttled_ratio:.0%} of its CPU periods: raise resources.cpu")
    ratio = usage.memory_ratio
    if ratio is not None and ratio >= MEMORY_RATIO:
        found.append(f"memory peaked at {ratio:.0%} of its limit")
    return tuple(found)


def with_usage(failure: Failure, usage: Usage) -> Failure:
    """Add the usage to the evidence and the hint if the job was throttled or near its memory limit.

    A failure by memory is unchanged: its message has the limit, and more CPU does not prevent it.
    """
    found = findings(usage)
    if not found or failure.code in _OUT_OF_MEMORY:
        return failure
    evidence = {
        "throttled_ratio": None if usage.throttled_ratio is None else f"{usage.throttled_ratio:.2f}",
        "memory_peak_bytes": usage.memory_peak_bytes,
        "memory_limit_bytes": usage.memory_limit_bytes,
    }
    known = {name: str(value) for name, value in evidence.items() if value is not None}
    return replace(failure, hint="; ".join((failure.hint, *found)), evidence=failure.evidence | known)


def _figure(figures: PodFigures, name: PodFigure) -> float | None:
    value = figures.get(name)
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _memory_peak(figures: PodFigures) -> float | None:
    """Return the peak memory need of a pod: at least the largest sample.

    The kernel's peak includes peaks between samples, but also the page cache, so this subtracts the largest cache.
    """
    sampled, most = _figure(figures, PodFigure.MEMORY_PEAK), _figure(figures, PodFigure.MEMORY_MOST)
    cache = _figure(figures, PodFigure.CACHE_PEAK)
    needed = most - cache if most is not None and cache is not None else None
    # A process needs memory: 0 is a sample from before its start.
    return max((value for value in (sampled, needed) if value), default=None)


def _mean(seconds: float | None, started_at: datetime | None, sampled_at: datetime | None) -> float | None:
    if seconds is None or started_at is None or sampled_at is None:
        return None
    elapsed = (sampled_at - started_at).total_seconds()
    # Kubernetes reports the start in whole seconds, so a mean over less than one second is meaningless.
    return seconds / elapsed if elapsed >= 1 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _moment(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
