"""Judge from measured utilisation whether the GPUs of a job are idle. Pure.

Unknown is never idle: the job's state is unknown unless each of its GPUs has a sample in nine tenths of the minutes of
the window, and a recent one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runway.text import show_duration

SLOT_SECONDS: Final = 60
"""A minute of the window with a sample counts as measured, so Prometheus must scrape at least once a minute."""
MIN_COVERAGE: Final = 0.9
MAX_SAMPLE_AGE_SECONDS: Final = 150.0
"""Age of the newest sample beyond which a series is stale: the GPU may be in use again."""
EARLY_SHARE: Final = 4
"""The condition appears after this part of the policy's time: a quarter."""
MIN_EARLY_SECONDS: Final = 300


class GpuFigure(StrEnum):
    """A figure that Prometheus has of one GPU: over the policy's time, over its first part, and now."""

    PEAK = "peak"
    """The highest utilisation of any sample, in percent."""
    SLOTS = "slots"
    """The minutes with a sample."""
    EARLY_PEAK = "early_peak"
    EARLY_SLOTS = "early_slots"
    AGE = "age"
    """Seconds since the newest sample."""


GpuFigures = Mapping[GpuFigure, float]


@dataclass(frozen=True, slots=True)
class IdleGpus:
    """Idle GPUs of a job: each was below `limit_percent` for `seconds`. `is_full`: that is the policy's whole time."""

    gpus: int
    """The GPUs of the job."""
    idle: int
    peak_percent: float
    """The highest utilisation of any idle GPU."""
    seconds: int
    limit_percent: int
    is_full: bool
    cancels_after: int | None
    """Seconds after which Runway ends the job; None if it only reports."""

    @property
    def message(self) -> str:
        whole = self.idle == self.gpus
        of = (
            f"{'the GPU' if self.gpus == 1 else f'all {self.gpus} GPUs'}"
            if whole
            else f"{self.idle} of {self.gpus} GPUs"
        )
        text = (
            f"{of} of the job had a utilisation of at most {self.peak_percent:.0f} % for {show_duration(self.seconds)} "
            f"(the limit is {self.limit_percent} %)"
        )
        if whole and self.cancels_after is not None:
            text += f"; Runway ends the job after {show_duration(self.cancels_after)}"
        return text

    @property
    def evidence(self) -> dict[str, str]:
        return {
            "gpus": str(self.gpus),
            "peak_percent": f"{self.peak_percent:.0f}",
            "below_percent": str(self.limit_percent),
            "for_seconds": str(self.seconds),
        }


def early_seconds(for_seconds: int) -> int:
    """Return the idle time after which the condition appears, in whole minutes."""
    return min(for_seconds, max(MIN_EARLY_SECONDS, for_seconds // EARLY_SHARE) // SLOT_SECONDS * SLOT_SECONDS)


def judge(
    figures: list[GpuFigures], gpus: int, *, below_percent: int, for_seconds: int, cancels: bool
) -> IdleGpus | None:
    """Return the idle GPUs of a job with this number of GPUs; None if none is idle, or if it is unknown."""
    if gpus == 0 or len(figures) != gpus or any(_age(each) > MAX_SAMPLE_AGE_SECONDS for each in figures):
        return None
    early = early_seconds(for_seconds)
    for peak, slots, seconds in (
        (GpuFigure.PEAK, GpuFigure.SLOTS, for_seconds),
        (GpuFigure.EARLY_PEAK, GpuFigure.EARLY_SLOTS, early),
    ):
        peaks = [_percent(each, peak) if _is_covered(each, slots, seconds) else None for each in figures]
        known = [value for value in peaks if value is not None]
        idle = [value for value in known if value < below_percent]
        if len(known) == gpus and idle:
            after = for_seconds if cancels else None
            return IdleGpus(gpus, len(idle), max(idle), seconds, below_percent, seconds == for_seconds, after)
    return None


def _percent(figures: GpuFigures, name: GpuFigure) -> float | None:
    value = figures.get(name)
    return value if value is not None and math.isfinite(value) and 0 <= value <= 100 else None


def _is_covered(figures: GpuFigures, name: GpuFigure, seconds: int) -> bool:
    slots, expected = figures.get(name, 0.0), seconds / SLOT_SECONDS
    return MIN_COVERAGE * expected <= slots <= expected + 1


def _age(figures: GpuFigures) -> float:
    age = figures.get(GpuFigure.AGE, math.inf)
    return age if age >= -SLOT_SECONDS else math.inf
