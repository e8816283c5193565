"""The quota bars of the overview, and the usage figures of a job page."""

from __future__ import annotations

from runway.admission.quota import TenantQuota
from runway.console.job_page import figures_of
from runway.console.overview_page import bars_of
from runway.jobs.models import Usage
from runway.jobs.resources import ResourceVector as Vector


def test_bar_shows_used_terminating_and_reserved_side_by_side() -> None:
    account = TenantQuota(
        Vector(4, 0, 0, 10), used=Vector(2, 0, 0, 2), reserved=Vector(1, 0, 0, 1), terminating=Vector(1, 0, 0, 1)
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


def test_bar_of_lowered_quota_is_full_and_ends_at_the_limit() -> None:
    gpu = bars_of(TenantQuota(Vector(2, 1000, 1 << 30, 5), used=Vector(3), terminating=Vector(1)))[0]
    assert (gpu.full, gpu.used) == (True, "3")
    assert sum(part.width for part in gpu.parts) == 100


def test_unknown_usage_differs_from_zero_usage() -> None:
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
