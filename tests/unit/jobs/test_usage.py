"""Usage of a job from samples: unknown values and findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Category, FailureCode
from runway.jobs.models import Failure, Usage
from runway.jobs.usage import PodFigure, PodFigures, findings, limits_of, usage_of, with_usage
from tests.support.builders import START, job, moment, spec

MIB = 1 << 20
ADMITTED = spec_of(job(admitted=spec(cpu=100, memory=64 * MIB)))
LIMITS = Usage(cpu_limit_cores=0.1, memory_limit_bytes=64 * MIB)


def usage(*pods: PodFigures) -> Usage:
    """Return the usage of a job with these attempts; the last one started at `START`."""
    return usage_of(ADMITTED, pods[-1], START, pods)


def test_job_without_samples_has_only_limits() -> None:
    assert usage({}) == LIMITS
    assert not usage({}).measured


def test_job_created_outside_runway_has_no_limits() -> None:
    assert limits_of(None) == Usage()


def test_cpu_is_the_mean_from_container_start_to_sample() -> None:
    sampled = moment(20)
    found = usage({PodFigure.CPU_SECONDS: 2.0, PodFigure.CPU_SAMPLED_AT: sampled.timestamp()})

    assert (found.cpu_seconds, found.cpu_cores, found.sampled_at) == (2.0, 0.1, sampled)
    assert found.measured


@pytest.mark.parametrize("after", [-5.0, 0.0, 0.5])
def test_cpu_mean_is_unknown_within_the_first_second(after: float) -> None:
    found = usage({PodFigure.CPU_SECONDS: 0.05, PodFigure.CPU_SAMPLED_AT: moment(after).timestamp()})

    assert (found.cpu_seconds, found.cpu_cores) == (0.05, None)


@pytest.mark.parametrize(
    ("throttled", "periods", "ratio"),
    [(87, 100, 0.87), (0, 100, 0.0), (0, 0, None), (None, 100, None), (5, None, None), (101, 100, 1.0)],
)
def test_throttled_ratio_is_unknown_without_cpu_periods(
    throttled: float | None, periods: float | None, ratio: float | None
) -> None:
    given = {PodFigure.CPU_PERIODS_THROTTLED: throttled, PodFigure.CPU_PERIODS: periods}

    found = usage({name: value for name, value in given.items() if value is not None})
    assert (found.throttled_ratio, found.cpu_periods) == (ratio, periods)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_impossible_sample_is_unknown(value: float) -> None:
    assert usage(dict.fromkeys(PodFigure, value)) == LIMITS


@pytest.mark.parametrize(
    ("sampled", "most", "cache", "peak"),
    [
        (10 * MIB, 40 * MIB, 0, 40 * MIB),  # a spike between two samples
        (10 * MIB, 64 * MIB, 60 * MIB, 10 * MIB),  # a large file was written
        (10 * MIB, 64 * MIB, None, 10 * MIB),
        (10 * MIB, None, 5 * MIB, 10 * MIB),
        (None, 40 * MIB, 0, 40 * MIB),
        (None, 40 * MIB, None, None),
        (0, None, None, None),  # sampled before the process began
        (0, 5 * MIB, 5 * MIB, None),
    ],
)
def test_memory_peak_includes_spikes_and_excludes_page_cache(
    sampled: int | None, most: int | None, cache: int | None, peak: int | None
) -> None:
    given = {PodFigure.MEMORY_PEAK: sampled, PodFigure.MEMORY_MOST: most, PodFigure.CACHE_PEAK: cache}

    assert usage({name: value for name, value in given.items() if value is not None}).memory_peak_bytes == peak


def test_peak_covers_all_attempts_and_other_values_the_last() -> None:
    first: PodFigures = {PodFigure.MEMORY_PEAK: 60 * MIB, PodFigure.CPU_SECONDS: 9.0, PodFigure.MEMORY: 50 * MIB}
    found = usage(first, {PodFigure.MEMORY_PEAK: 20 * MIB, PodFigure.MEMORY: 15 * MIB})

    assert found.memory_peak_bytes == 60 * MIB
    assert (found.memory_bytes, found.cpu_seconds) == (15 * MIB, None)


def test_gpu_utilisation_is_a_ratio() -> None:
    assert usage({PodFigure.GPU_PERCENT: 35.0}).gpu_utilisation == 0.35
    assert usage({PodFigure.GPU_PERCENT: 35.0}).measured


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"throttled_ratio": 0.87}, ["throttled in 87% of its CPU periods: raise resources.cpu"]),
        ({"throttled_ratio": 0.25}, ["throttled in 25% of its CPU periods: raise resources.cpu"]),
        ({"throttled_ratio": 0.24}, []),
        ({"throttled_ratio": 0.57, "cpu_periods": 7}, []),  # a container that was started, and then slept
        ({"throttled_ratio": 0.57, "cpu_periods": None}, []),
        ({"throttled_ratio": None}, []),
        ({"memory_peak_bytes": 62 * MIB}, ["memory peaked at 97% of its limit"]),
        ({"memory_peak_bytes": 65 * MIB}, ["memory peaked at 100% of its limit"]),
        ({"memory_peak_bytes": 57 * MIB}, []),
        ({"memory_peak_bytes": 62 * MIB, "memory_limit_bytes": None}, []),
        ({"memory_peak_bytes": None}, []),
    ],
)
def test_findings_start_at_quarter_throttled_and_90_percent_memory(figures: dict[str, Any], words: list[str]) -> None:
    assert list(findings(replace(LIMITS, **{"cpu_periods": 100, **figures}))) == words


FAILURE = Failure(
    FailureCode.EXIT_NONZERO, Category.USER, False, "exit code 1", "look at the log", {"exit_code": "1"}
)  # fmt: skip


def test_failure_includes_throttling_and_memory_findings() -> None:
    found = with_usage(FAILURE, replace(LIMITS, throttled_ratio=0.871, cpu_periods=100, memory_peak_bytes=62 * MIB))

    assert found.hint == (
        "look at the log; throttled in 87% of its CPU periods: raise resources.cpu; memory peaked at 97% of its limit"
    )
    assert found.evidence == {
        "exit_code": "1",
        "throttled_ratio": "0.87",
        "memory_peak_bytes": str(62 * MIB),
        "memory_limit_bytes": str(64 * MIB),
    }
    assert FAILURE.evidence == {"exit_code": "1"}
    assert replace(found, hint=FAILURE.hint, evidence=FAILURE.evidence) == FAILURE


@pytest.mark.parametrize("code", [FailureCode.OOM_KILLED, FailureCode.OOM_CHILD_SUSPECTED])
def test_failure_by_memory_gets_no_hint_about_cpu(code: FailureCode) -> None:
    failure = replace(FAILURE, code=code, hint="raise resources.memory")
    throttled = replace(LIMITS, throttled_ratio=0.87, cpu_periods=100, memory_peak_bytes=64 * MIB)
    assert with_usage(failure, throttled) == failure


@pytest.mark.parametrize("sampled", [{}, {PodFigure.MEMORY_PEAK: 41.0 * MIB, PodFigure.MEMORY_MOST: 41.0 * MIB}])
def test_out_of_memory_kill_means_that_the_peak_is_the_limit(sampled: PodFigures) -> None:
    found = usage_of(ADMITTED, sampled, START, [sampled], out_of_memory=True)
    assert found.memory_peak_bytes == found.memory_limit_bytes == 64 * MIB


def test_zero_memory_or_cpu_time_is_a_sample_from_before_the_start() -> None:
    """Unknown is never 0: 6 of 28 short jobs showed memory 0 without a time."""
    found = usage({PodFigure.MEMORY: 0.0, PodFigure.CPU_SECONDS: 0.0, PodFigure.CPU_SAMPLED_AT: 1e9})
    assert found == LIMITS


@pytest.mark.parametrize("unremarkable", [Usage(), LIMITS, replace(LIMITS, throttled_ratio=0.1, cpu_periods=99)])
def test_failure_is_unchanged_without_findings(unremarkable: Usage) -> None:
    assert with_usage(FAILURE, unremarkable) == FAILURE
