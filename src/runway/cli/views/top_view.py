"""The tables of `runway top`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from runway.api.models import TenantQuotaView
from runway.cli.output import show_state
from runway.cli.views.job_views import cost_so_far
from runway.cli.views.tables import RESOURCES, Column, bar, lay_out, resource_usage, show_amount
from runway.jobs.models import JobView, Usage
from runway.jobs.usage import MEMORY_RATIO, THROTTLED_RATIO
from runway.text import show_between, show_bytes, show_ratio

BAR_WIDTH: Final = 8
NARROW: Final = 100
"""In fewer columns there are no bars."""

UNKNOWN: Final = Text("unknown", "dim")

_JOBS: Final = [
    Column(title="JOB"),
    Column(title="NAME", shrink=True, drop_priority=4),
    Column(title="STATE", drop_priority=1),
    Column(title="AGE", right=True, drop_priority=6),
    Column(title="CPU", right=True),
    Column(title="THROTTLED", right=True),
    Column(title="MEMORY", right=True),
    Column(title="GPU", right=True, drop_priority=3),
    Column(title="USD", right=True, drop_priority=5),
    Column(title="WHY", shrink=True, drop_priority=7),
]
_TENANT: Final = Column(title="TENANT", drop_priority=2)


@dataclass(frozen=True, slots=True)
class Frame:
    """The state at one time. `usage` has an entry for each running job, None where it is unknown."""

    at: datetime
    tenants: list[TenantQuotaView]
    jobs: list[JobView]
    more: bool
    usage: dict[str, Usage | None]


def quota_lines(frame: Frame, width: int | None, encoding: str) -> list[Text]:
    """Return a line for each tenant: the used and reserved part of each limit."""
    bars = width is None or width >= NARROW
    heads = [Column(title="TENANT"), *(Column(title=resource.upper()) for resource in RESOURCES)]
    rows = [
        [quota.tenant, *(_quota(quota, resource, encoding, bars=bars) for resource in RESOURCES)]
        for quota in frame.tenants
    ]
    return lay_out(heads, rows, width=width)


def job_lines(frame: Frame, width: int | None, height: int | None, *, tenants: bool) -> list[Text]:
    """Return a line for each job, at most `height` lines; with `tenants` each line names the tenant."""
    if not frame.jobs:
        return [Text("No active jobs.", "dim")]
    heads, rows = list(_JOBS), [_job(view, frame) for view in frame.jobs]
    if tenants:
        heads.insert(1, _TENANT)
        for row, view in zip(rows, frame.jobs, strict=True):
            row.insert(1, view.tenant)
    lines = lay_out(heads, rows, width=width)
    left_out = 0 if height is None else max(0, len(lines) - max(height - 1, 2))
    if not left_out and not frame.more:
        return lines
    more = f"{left_out} more" if left_out else "more"
    return [*lines[: len(lines) - left_out], Text(f"… {more}; `runway ls` lists them")]


def _quota(quota: TenantQuotaView, resource: str, encoding: str, *, bars: bool) -> Text:
    amounts = resource_usage(quota, resource)
    taken = amounts.used + amounts.reserved
    style = "" if taken < amounts.limit else "red" if amounts.limit else "dim"
    figures = Text(f"{show_amount(resource, taken)}/{show_amount(resource, amounts.limit)}", style)
    return bar(amounts, BAR_WIDTH, encoding).append(" ").append_text(figures) if bars else figures


def _job(view: JobView, frame: Frame) -> list[object]:
    spent = cost_so_far(view, frame.at)
    figures: Sequence[object] = ("", "", "", "")
    if view.id in frame.usage:
        figures = _usage(frame.usage[view.id] or Usage(), view.spec.resources.gpu if view.spec else 0)
    return [
        view.id,
        view.name,
        show_state(view.state),
        show_between(view.created_at, frame.at),
        *figures,
        None if spent is None else f"{spent:f}",
        ", ".join(condition.code for condition in view.conditions),
    ]


def _usage(usage: Usage, gpus: int) -> Sequence[object]:
    """Return CPU, throttling, memory and GPU of a running job."""
    cores, limit, throttled = usage.cpu_cores, usage.cpu_limit_cores, usage.throttled_ratio
    return (
        UNKNOWN if cores is None else f"{cores:.2f}{'' if limit is None else f'/{limit:g}'}",
        UNKNOWN if throttled is None else Text(f"{throttled:.0%}", "red" if throttled >= THROTTLED_RATIO else ""),
        _memory(usage.memory_bytes, usage.memory_limit_bytes),
        _gpu(usage.gpu_utilisation, gpus),
    )


def _memory(amount: int | None, limit: int | None) -> Text:
    if amount is None:
        return UNKNOWN
    style = "red" if limit and amount >= MEMORY_RATIO * limit else ""
    return Text(show_bytes(amount) + (f"/{show_bytes(limit)}" if limit else ""), style)


def _gpu(utilisation: float | None, gpus: int) -> Text:
    """Return the number of GPUs and their utilisation."""
    if not gpus:
        return Text("-", "dim")
    return Text(f"{gpus} ").append_text(UNKNOWN if utilisation is None else Text(show_ratio(utilisation)))
