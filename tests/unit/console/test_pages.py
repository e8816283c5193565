"""The quota bars of the overview, and the usage figures of a job page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runway.admission.budget import BudgetAccount
from runway.admission.quota import TenantQuota, limits_of
from runway.console.job_page import figures_of
from runway.console.overview_page import bars_of
from runway.jobs.cost import Charge
from runway.jobs.models import Usage
from runway.jobs.resources import ResourceVector as Vector
from runway.policy import Budget, Quota

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


def account(quota: dict[str, object], **sums: Any) -> TenantQuota:
    return TenantQuota(limits_of(Quota.model_validate(quota)), **sums)


def test_bar_shows_used_terminating_and_reserved_side_by_side() -> None:
    quota = {"gpu": 4, "cpu": "0", "memory": "0", "jobs": 10}
    sums = {"used": Vector(2, 0, 0, 2), "reserved": Vector(1, 0, 0, 1), "terminating": Vector(1, 0, 0, 1)}
    gpu, cpu, _, jobs = bars_of(account(quota, **sums), NOW)
    assert [(part.kind, part.left, part.width) for part in gpu.parts] == [
        ("running", 0, 25),
        ("terminating", 25, 25),
        ("reserved", 50, 25),
    ]
    assert (gpu.used, gpu.reserved, gpu.terminating, gpu.limit, gpu.full) == ("2", "1", "1", "4", False)
    assert (cpu.allowed, cpu.parts) == (False, ())
    assert (jobs.used, jobs.limit) == ("2", "10")


def test_bar_of_lowered_quota_is_full_and_ends_at_the_limit() -> None:
    quota = {"gpu": 2, "cpu": "1", "memory": "1Gi", "jobs": 5}
    gpu = bars_of(account(quota, used=Vector(3), terminating=Vector(1)), NOW)[0]
    assert (gpu.full, gpu.used) == (True, "3")
    assert sum(part.width for part in gpu.parts) == 100


def test_optional_limits_and_the_budget_have_bars() -> None:
    quota = {"gpu": 2, "gpu_types": {"a10g": 2}, "cpu": "1", "memory": "1Gi", "jobs": 5, "usd_per_hour": "20"}
    used = Vector(1, gpu_types=(("a10g", 1),), usd_per_hour=5_000_000, ceiling=30_000_000)
    limited = account(quota, used=used, reserved=Vector(ceiling=10_000_000))
    limited.budget = BudgetAccount(Budget.model_validate({"usd": "100", "hours": 24}))
    limited.budget.put("rw-done", Charge(int(NOW.timestamp()), 20_000_000))
    bars = {bar.name: bar for bar in bars_of(limited, NOW)}
    assert [
        (name, bars[name].used, bars[name].reserved, bars[name].limit, [part.width for part in bars[name].parts])
        for name in ("GPU a10g", "USD an hour", "USD in 24 h")
    ] == [
        ("GPU a10g", "1", None, "2", [50]),
        ("USD an hour", "5.00", None, "20.00", [25]),
        ("USD in 24 h", "50.00", "10.00", "100.00", [50, 10]),
    ]


def test_unknown_usage_differs_from_zero_usage() -> None:
    unknown = figures_of(Usage(cpu_limit_cores=0.5, cpu_periods=0), gpus=1)
    assert [(figure.name, figure.value, figure.of) for figure in unknown] == [
        ("CPU (average)", None, "0.5 CPU"),
        ("CPU throttled", None, None),
        ("Memory (last sample)", None, None),
        ("Memory (peak)", None, None),
        ("GPU (average)", None, "1 GPU"),
    ]
    nothing = figures_of(Usage(cpu_cores=0.0, cpu_limit_cores=0.5, throttled_ratio=0.0, cpu_periods=9), gpus=0)
    assert [(figure.value, figure.of, figure.ratio) for figure in nothing[:2]] == [
        ("0", "0.5 CPU", 0.0),
        ("0%", "9 periods", 0.0),
    ]
    assert len(nothing) == 4
