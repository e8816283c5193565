"""What a job used of what it was given, and what that tells of it. Pure: from figures that were measured elsewhere.

None always means unknown, never 0: no source, no sample yet, or a figure that cannot be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from runway.jobs.annotations import SpecView
from runway.jobs.diagnosis.codes import Failure
from runway.quantity import parse_bytes, parse_cpu

THROTTLED_RATIO: Final = 0.25
"""From here on throttling is worth a word: a quarter of the time that the job could have run, it was held back."""
THROTTLED_PERIODS: Final = 50
"""So many CPU periods, 5 s of wanting to run, are needed for that word: starting any container is throttled too."""
MAX_FIGURE: Final = 2.0**63
MEMORY_RATIO: Final = 0.9
"""From here on memory is worth a word: the next input that is a tenth larger can end the job."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job's last attempt used, and the memory peak of all its attempts.

    `cpu_cores` is the mean since the container started. `memory_bytes` is the working set: what the kernel cannot
    simply drop. `throttled_ratio` is the part of the CPU periods (100 ms each) in which the limit held the job back;
    periods in which it did not run at all do not count. `gpu_utilisation` is the mean of its GPUs. Ratios are from 0 to
    1, and `cpu_periods` says of how many periods. `sampled_at` is when CPU was measured last.
    """

    cpu_seconds: float | None = None
    cpu_cores: float | None = None
    cpu_limit_cores: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    throttled_ratio: float | None = None
    cpu_periods: int | None = None
    gpu_utilisation: float | None = None
    sampled_at: datetime | None = None

    @property
    def measured(self) -> bool:
        """Whether anything is known beyond the limits."""
        figures = (self.cpu_seconds, self.memory_bytes, self.memory_peak_bytes, self.throttled_ratio)
        return any(figure is not None for figure in (*figures, self.gpu_utilisation))

    @property
    def is_possible(self) -> bool:
        """Whether the figures, which were read from an annotation, are within what a machine can have."""
        figures = (
            self.cpu_seconds, self.cpu_cores, self.cpu_limit_cores, self.memory_bytes, self.memory_peak_bytes,
            self.memory_limit_bytes, self.throttled_ratio, self.cpu_periods, self.gpu_utilisation,
        )  # fmt: skip
        return all(figure is None or 0 <= figure <= MAX_FIGURE for figure in figures)

    @property
    def memory_ratio(self) -> float | None:
        """The memory peak as a part of the limit."""
        if self.memory_peak_bytes is None or not self.memory_limit_bytes:
            return None
        return min(self.memory_peak_bytes / self.memory_limit_bytes, 1.0)


class Figure(StrEnum):
    """What is measured of one pod."""

    CPU_SECONDS = "cpu_seconds"
    CPU_SAMPLED_AT = "cpu_sampled_at"
    """Seconds since the epoch."""
    CPU_PERIODS = "cpu_periods"
    CPU_PERIODS_THROTTLED = "cpu_periods_throttled"
    MEMORY = "memory"
    MEMORY_PEAK = "memory_peak"
    """The largest working set of any sample."""
    MEMORY_MOST = "memory_most"
    """The most that was ever charged to the pod, by the kernel's own count: what lay between two samples, but also the
    page cache, which the kernel drops when it needs the memory."""
    CACHE_PEAK = "cache_peak"
    """The largest page cache of any sample."""
    GPU_PERCENT = "gpu_percent"


Figures = Mapping[Figure, float]


def usage_of(spec: SpecView | None, last: Figures, started_at: datetime | None, all_pods: Iterable[Figures]) -> Usage:
    """The usage of a job, from the figures of its last attempt, when that one's container started, and of all."""
    seconds, sampled_at = _figure(last, Figure.CPU_SECONDS), _moment(_figure(last, Figure.CPU_SAMPLED_AT))
    peaks = [peak for pod in all_pods if (peak := _memory_peak(pod)) is not None]
    periods, percent = _figure(last, Figure.CPU_PERIODS), _figure(last, Figure.GPU_PERCENT)
    return replace(
        limits_of(spec),
        cpu_seconds=seconds,
        cpu_cores=_mean(seconds, started_at, sampled_at),
        memory_bytes=_whole(_figure(last, Figure.MEMORY)),
        memory_peak_bytes=_whole(max(peaks, default=None)),
        throttled_ratio=_ratio(_figure(last, Figure.CPU_PERIODS_THROTTLED), periods),
        cpu_periods=_whole(periods),
        gpu_utilisation=None if percent is None else min(percent / 100, 1.0),
        sampled_at=None if seconds is None else sampled_at,
    )


def limits_of(spec: SpecView | None) -> Usage:
    """The usage of a job of which nothing was measured: its limits, as far as they are known."""
    if spec is None:
        return Usage()
    try:
        cpu, memory = parse_cpu(spec.resources.cpu) / 1000, parse_bytes(spec.resources.memory)
    except ValueError:
        return Usage()  # An annotation that was changed by hand.
    return Usage(cpu_limit_cores=cpu, memory_limit_bytes=memory)


def findings(usage: Usage) -> tuple[str, ...]:
    """What the figures say that its owner should hear, in plain words."""
    found = []
    enough = usage.cpu_periods is not None and usage.cpu_periods >= THROTTLED_PERIODS
    if enough and usage.throttled_ratio is not None and usage.throttled_ratio >= THROTTLED_RATIO:
        found.append(f"throttled in {usage.throttled_ratio:.0%} of its CPU periods: raise resources.cpu")
    ratio = usage.memory_ratio
    if ratio is not None and ratio >= MEMORY_RATIO:
        found.append(f"memory peaked at {ratio:.0%} of its limit")
    return tuple(found)


def with_usage(failure: Failure, usage: Usage) -> Failure:
    """The verdict, with the usage as evidence and a sentence in the hint, where the job was throttled or near OOM."""
    found = findings(usage)
    if not found:
        return failure
    evidence = {
        "throttled_ratio": None if usage.throttled_ratio is None else f"{usage.throttled_ratio:.2f}",
        "memory_peak_bytes": usage.memory_peak_bytes,
        "memory_limit_bytes": usage.memory_limit_bytes,
    }
    known = {name: str(value) for name, value in evidence.items() if value is not None}
    return replace(failure, hint="; ".join((failure.hint, *found)), evidence=failure.evidence | known)


def _figure(figures: Figures, name: Figure) -> float | None:
    """A figure, unless there is none or it is not one that can be."""
    value = figures.get(name)
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _memory_peak(figures: Figures) -> float | None:
    """The most memory that a pod needed: at least what a sample has seen.

    The kernel's own high-water mark knows more than the samples, but counts the page cache too, and a job that writes a
    large file is not near its limit: so the most cache that was seen is taken off. Cache that came and went between two
    samples is not seen, and counts as memory.
    """
    sampled, most = _figure(figures, Figure.MEMORY_PEAK), _figure(figures, Figure.MEMORY_MOST)
    cache = _figure(figures, Figure.CACHE_PEAK)
    needed = most - cache if most is not None and cache is not None else None
    # What ran needed some: 0 was sampled before it began.
    return max((value for value in (sampled, needed) if value), default=None)


def _mean(seconds: float | None, started_at: datetime | None, sampled_at: datetime | None) -> float | None:
    if seconds is None or started_at is None or sampled_at is None:
        return None
    elapsed = (sampled_at - started_at).total_seconds()
    # Kubernetes tells the start in whole seconds: over less than one the mean would be anything.
    return seconds / elapsed if elapsed >= 1 else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(part / whole, 1.0)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _moment(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
