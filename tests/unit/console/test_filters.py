"""Amounts and durations as the pages write them, and a quota as the parts of a bar."""

from __future__ import annotations

import pytest

from runway.admission.quota import Amounts, TenantQuota
from runway.console import filters
from runway.console.job_page import figures_of
from runway.console.overview_page import bars_of
from runway.jobs.usage import Usage


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0.9, "0s"), (45, "45s"), (200, "3m 20s"), (7200, "2h"), (7201, "2h"), (90_061, "1d 1h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert filters.duration(seconds) == shown


@pytest.mark.parametrize(
    ("usd", "shown"), [("0.000000", "0.00"), ("12.5", "12.50"), ("0.012500", "0.0125"), ("3", "3.00")]
)
def test_money_keeps_what_counts(usd: str, shown: str) -> None:
    assert filters.money(usd) == shown


def test_more_than_nothing_is_never_written_as_nothing() -> None:
    assert [filters.percent(ratio) for ratio in (0, 0.001, 0.01, 1)] == ["0%", "under 1%", "1%", "100%"]


def test_a_bar_has_what_is_used_what_only_terminating_pods_hold_and_what_is_reserved_side_by_side() -> None:
    account = TenantQuota(
        Amounts(4, 0, 0, 10), used=Amounts(2, 0, 0, 2), reserved=Amounts(1, 0, 0, 1), terminating=Amounts(1, 0, 0, 1)
    )
    gpu, cpu, _, jobs = bars_of(account)
    assert [(part.kind, part.left, part.width) for part in gpu.parts] == [
        ("running", 0, 25),
        ("terminating", 25, 25),
        ("reserved", 50, 25),
    ]
    assert (gpu.used, gpu.reserved, gpu.terminating, gpu.limit, gpu.full) == ("2", "1", "1", "4", False)
    assert (cpu.allowed, cpu.parts) == (False, ())
    assert (jobs.used, jobs.limit) == ("2", "10")


def test_a_quota_that_was_lowered_below_its_use_is_full_and_its_bar_ends_at_the_limit() -> None:
    gpu = bars_of(TenantQuota(Amounts(2, 1000, 1 << 30, 5), used=Amounts(3), terminating=Amounts(1)))[0]
    assert (gpu.full, gpu.used) == (True, "3")
    assert sum(part.width for part in gpu.parts) == 100


def test_usage_that_is_unknown_is_told_apart_from_usage_that_is_nothing() -> None:
    unknown = figures_of(Usage(cpu_limit_cores=0.5), gpus=1)
    assert [(figure.name, figure.value) for figure in unknown] == [
        ("CPU, mean", None),
        ("CPU periods throttled", None),
        ("Memory, last", None),
        ("Memory, peak", None),
        ("GPU, mean", None),
    ]
    nothing = figures_of(Usage(cpu_cores=0.0, cpu_limit_cores=0.5, throttled_ratio=0.0, cpu_periods=9), gpus=0)
    assert [(figure.value, figure.of, figure.ratio) for figure in nothing[:2]] == [
        ("0", "0.5 CPU", 0.0),
        ("0%", "9 periods", 0.0),
    ]
    assert len(nothing) == 4
