"""What figures say of a job: unknown stays unknown, and a word is said only where it is deserved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Category, Failure, FailureCode
from runway.jobs.usage import Figure, Figures, Usage, findings, limits_of, usage_of, with_usage
from tests.support.builders import START, job, moment, spec

MIB = 1 << 20
ADMITTED = spec_of(job(admitted=spec(cpu=100, memory=64 * MIB)))
LIMITS = Usage(cpu_limit_cores=0.1, memory_limit_bytes=64 * MIB)


def usage(*pods: Figures) -> Usage:
    """The usage of a job with these attempts, the last of which started at `START`."""
    return usage_of(ADMITTED, pods[-1], START, pods)


def test_a_job_without_samples_has_its_limits_and_nothing_else() -> None:
    assert usage({}) == LIMITS
    assert not usage({}).measured


def test_a_job_that_did_not_come_through_runway_has_no_limits() -> None:
    assert limits_of(None) == Usage()


def test_cpu_is_the_mean_from_the_start_of_the_container_to_the_sample() -> None:
    sampled = moment(20)
    found = usage({Figure.CPU_SECONDS: 2.0, Figure.CPU_SAMPLED_AT: sampled.timestamp()})

    assert (found.cpu_seconds, found.cpu_cores, found.sampled_at) == (2.0, 0.1, sampled)
    assert found.measured


@pytest.mark.parametrize("after", [-5.0, 0.0, 0.5])
def test_there_is_no_mean_over_less_than_the_second_that_kubernetes_tells_time_in(after: float) -> None:
    found = usage({Figure.CPU_SECONDS: 0.05, Figure.CPU_SAMPLED_AT: moment(after).timestamp()})

    assert (found.cpu_seconds, found.cpu_cores) == (0.05, None)


@pytest.mark.parametrize(
    ("throttled", "periods", "ratio"),
    [(87, 100, 0.87), (0, 100, 0.0), (0, 0, None), (None, 100, None), (5, None, None), (101, 100, 1.0)],
)
def test_the_throttled_ratio_is_unknown_where_no_period_was_counted(
    throttled: float | None, periods: float | None, ratio: float | None
) -> None:
    given = {Figure.CPU_PERIODS_THROTTLED: throttled, Figure.CPU_PERIODS: periods}

    found = usage({name: value for name, value in given.items() if value is not None})
    assert (found.throttled_ratio, found.cpu_periods) == (ratio, periods)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_a_figure_that_cannot_be_is_unknown(value: float) -> None:
    assert usage(dict.fromkeys(Figure, value)) == LIMITS


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
def test_the_memory_peak_holds_spikes_but_no_page_cache(
    sampled: int | None, most: int | None, cache: int | None, peak: int | None
) -> None:
    given = {Figure.MEMORY_PEAK: sampled, Figure.MEMORY_MOST: most, Figure.CACHE_PEAK: cache}

    assert usage({name: value for name, value in given.items() if value is not None}).memory_peak_bytes == peak


def test_the_peak_is_of_all_attempts_and_the_rest_of_the_last() -> None:
    first: Figures = {Figure.MEMORY_PEAK: 60 * MIB, Figure.CPU_SECONDS: 9.0, Figure.MEMORY: 50 * MIB}
    found = usage(first, {Figure.MEMORY_PEAK: 20 * MIB, Figure.MEMORY: 15 * MIB})

    assert found.memory_peak_bytes == 60 * MIB
    assert (found.memory_bytes, found.cpu_seconds) == (15 * MIB, None)


def test_gpu_utilisation_is_a_ratio() -> None:
    assert usage({Figure.GPU_PERCENT: 35.0}).gpu_utilisation == 0.35
    assert usage({Figure.GPU_PERCENT: 35.0}).measured


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
def test_words_are_said_from_a_quarter_throttled_and_nine_tenths_of_the_memory(
    figures: dict[str, Any], words: list[str]
) -> None:
    assert list(findings(replace(LIMITS, **{"cpu_periods": 100, **figures}))) == words


VERDICT = Failure(
    FailureCode.EXIT_NONZERO, Category.USER, False, "exit code 1", "look at the log", {"exit_code": "1"}
)  # fmt: skip


def test_a_verdict_says_that_the_job_was_throttled_and_near_its_memory_limit() -> None:
    told = with_usage(VERDICT, replace(LIMITS, throttled_ratio=0.871, cpu_periods=100, memory_peak_bytes=62 * MIB))

    assert told.hint == (
        "look at the log; throttled in 87% of its CPU periods: raise resources.cpu; memory peaked at 97% of its limit"
    )
    assert told.evidence == {
        "exit_code": "1",
        "throttled_ratio": "0.87",
        "memory_peak_bytes": str(62 * MIB),
        "memory_limit_bytes": str(64 * MIB),
    }
    assert VERDICT.evidence == {"exit_code": "1"}
    assert replace(told, hint=VERDICT.hint, evidence=VERDICT.evidence) == VERDICT


@pytest.mark.parametrize("unremarkable", [Usage(), LIMITS, replace(LIMITS, throttled_ratio=0.1, cpu_periods=99)])
def test_a_verdict_is_left_as_it_is_where_there_is_nothing_to_say(unremarkable: Usage) -> None:
    assert with_usage(VERDICT, unremarkable) == VERDICT
