"""When the GPUs of a job are idle. Unknown is never idle."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.gpu_idle import GpuFigure, GpuFigures, IdleGpus, early_seconds, judge

HOUR, EARLY = 3600, 900
PEAK, SLOTS, EARLY_PEAK, EARLY_SLOTS, AGE = GpuFigure


def gpu(
    peak: float = 0, slots: float = 60, early_peak: float = 0, early_slots: float = 15, age: float = 15
) -> GpuFigures:
    return {PEAK: peak, SLOTS: slots, EARLY_PEAK: early_peak, EARLY_SLOTS: early_slots, AGE: age}


def judged(*figures: GpuFigures, gpus: int | None = None, cancels: bool = False) -> IdleGpus | None:
    number = len(figures) if gpus is None else gpus
    return judge(list(figures), number, below_percent=5, for_seconds=HOUR, cancels=cancels)


def test_gpus_below_the_limit_for_the_whole_time_are_idle() -> None:
    found = judged(gpu(peak=3), gpu(peak=0))
    assert found == IdleGpus(2, 2, 3, HOUR, 5, is_full=True, cancels_after=None)
    assert found.message == "all 2 GPUs of the job had a utilisation of at most 3 % for 1h (the limit is 5 %)"
    assert found.evidence == {"gpus": "2", "peak_percent": "3", "below_percent": "5", "for_seconds": "3600"}


def test_one_sample_at_the_limit_makes_a_gpu_busy() -> None:
    found = judged(gpu(peak=5, early_peak=5), gpu(peak=0))
    assert found is not None
    assert (found.idle, found.gpus, found.is_full) == (1, 2, True)
    assert found.message.startswith("1 of 2 GPUs of the job")
    assert judged(gpu(peak=5, early_peak=5)) is None


def test_condition_comes_long_before_the_end_and_names_it() -> None:
    found = judged(gpu(peak=90, early_peak=0), cancels=True)
    assert found is not None
    assert (found.seconds, found.is_full) == (EARLY, False)
    assert found.message == (
        "the GPU of the job had a utilisation of at most 0 % for 15m (the limit is 5 %); Runway ends the job after 1h"
    )
    assert "ends the job" not in judged(gpu(), gpu(peak=90, early_peak=90), cancels=True).message  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("figures", "gpus"),
    [
        ((), 0),
        ((), 1),
        ((gpu(),), 2),  # A GPU without a series.
        ((gpu(), gpu()), 1),  # More series than GPUs.
        ((gpu(slots=53, early_slots=13),), 1),
        ((gpu(), gpu(slots=53, early_slots=13)), 2),
        ((gpu(age=151),), 1),
        ((gpu(age=-3600),), 1),
        ((gpu(age=math.inf),), 1),
        ((gpu(peak=-1, early_peak=-1),), 1),
        ((gpu(peak=1e300, early_peak=101),), 1),
        ((gpu(peak=math.nan, early_peak=math.nan),), 1),
        ((gpu(slots=1e9, early_slots=1e9),), 1),  # More samples than minutes.
        ((gpu(slots=math.nan, early_slots=math.nan),), 1),
        (({PEAK: 0.0, SLOTS: 60.0},), 1),  # No age.
        (({AGE: 1.0},), 1),
    ],
)
def test_missing_stale_and_absurd_figures_are_unknown(figures: tuple[GpuFigures, ...], gpus: int) -> None:
    assert judged(*figures, gpus=gpus) is None


def test_nine_tenths_of_the_minutes_suffice() -> None:
    assert judged(gpu(slots=54)) is not None
    found = judged(gpu(slots=53))
    assert found is not None
    assert not found.is_full


AROUND_THE_LIMITS = {
    PEAK: (0.0, 4.9, 5.0),
    SLOTS: (53.0, 54.0, 61.0, 62.0),
    EARLY_PEAK: (0.0, 4.9, 5.0),
    EARLY_SLOTS: (13.0, 14.0, 16.0, 17.0),
    AGE: (0.0, 150.0, 151.0),
}
FIGURES = st.fixed_dictionaries(
    {name: st.sampled_from(values) for name, values in AROUND_THE_LIMITS.items()}
) | st.dictionaries(st.sampled_from(GpuFigure), st.floats(), max_size=5)


@given(st.lists(FIGURES, max_size=2), st.integers(0, 2) | st.none())
def test_no_gpu_is_idle_without_complete_figures(figures: list[dict[GpuFigure, float]], gpus: int | None) -> None:
    gpus = len(figures) if gpus is None else gpus
    found = judged(*figures, gpus=gpus)
    if found is None:
        return
    assert len(figures) == gpus == found.gpus
    peak, slots = (PEAK, SLOTS) if found.is_full else (EARLY_PEAK, EARLY_SLOTS)
    assert all(each[AGE] <= 150 and each[slots] >= found.seconds / 60 * 0.9 for each in figures)
    assert sum(each[peak] < 5 for each in figures) == found.idle > 0


@pytest.mark.parametrize(
    ("policy", "early"), [(60, 60), (300, 300), (1200, 300), (1250, 300), (3600, 900), (86400, 21600)]
)
def test_condition_appears_after_a_quarter_of_the_time_but_at_least_five_minutes(policy: int, early: int) -> None:
    assert early_seconds(policy) == early
