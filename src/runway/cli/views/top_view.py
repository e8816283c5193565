"""What `runway top` shows of one look at Runway. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from runway.cli.output import show_state
from runway.cli.text import show_age, show_bytes
from runway.cli.views.job_metrics import cost_so_far
from runway.cli.views.quota_bar import RESOURCES, bar, resource_usage, show_amount
from runway.cli.views.tables import Column, lay_out
from runway.cli.wire import JobView, TenantQuota, Usage

BAR_WIDTH: Final = 8
NARROW: Final = 100
"""In fewer columns than these there is no room for bars."""
THROTTLED: Final = 0.25
"""From here on throttling is worth a colour, as it is worth a word to Runway."""
MEMORY_TIGHT: Final = 0.9

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
    """One look. `usage` has an entry for each job that runs, None where it is not known."""

    at: datetime
    tenants: list[TenantQuota]
    jobs: list[JobView]
    more: bool
    usage: dict[str, Usage | None]


def quota_lines(frame: Frame, width: int | None, encoding: str) -> list[Text]:
    """A line a tenant: of each resource what is used or reserved, of the limit."""
    bars = width is None or width >= NARROW
    heads = [Column(title="TENANT"), *(Column(title=resource.upper()) for resource in RESOURCES)]
    rows = [
        [entry["tenant"], *(_quota(entry, resource, encoding, bars=bars) for resource in RESOURCES)]
        for entry in frame.tenants
    ]
    return lay_out(heads, rows, width=width)


def job_lines(frame: Frame, width: int | None, height: int | None, *, several: bool) -> list[Text]:
    """A line a job, at most `height` lines; with the tenant where jobs are of several."""
    if not frame.jobs:
        return [Text("Nothing runs or waits.", "dim")]
    heads, rows = list(_JOBS), [_job(view, frame) for view in frame.jobs]
    if several:
        heads.insert(1, _TENANT)
        for row, view in zip(rows, frame.jobs, strict=True):
            row.insert(1, view["tenant"])
    lines = lay_out(heads, rows, width=width)
    left_out = 0 if height is None else max(0, len(lines) - max(height - 1, 2))
    if not left_out and not frame.more:
        return lines
    return [
        *lines[: len(lines) - left_out],
        Text(f"… {left_out or ''} more; `runway ls` lists them".replace("  ", " ")),
    ]


def _quota(entry: TenantQuota, resource: str, encoding: str, *, bars: bool) -> Text:
    amounts = resource_usage(entry, resource)
    taken, limit = (show_amount(resource, part) for part in (amounts.used + amounts.reserved, amounts.limit))
    style = "" if amounts.used + amounts.reserved < amounts.limit else "red" if amounts.limit else "dim"
    figures = Text(f"{taken}/{limit}", style)
    return bar(amounts, BAR_WIDTH, encoding).append(" ").append_text(figures) if bars else figures


def _job(view: JobView, frame: Frame) -> list[object]:
    spent = cost_so_far(view, frame.at)
    figures: Sequence[object] = ("", "", "", "")
    if view["id"] in frame.usage:
        gpus = view["spec"]["resources"]["gpu"] if view["spec"] else 0
        figures = _usage(frame.usage[view["id"]], gpus)
    return [
        view["id"],
        view["name"],
        show_state(view["state"]),
        show_age(view["created_at"], frame.at),
        *figures,
        None if spent is None else f"{spent:f}",
        ", ".join(condition["code"] for condition in view["conditions"]),
    ]


def _usage(usage: Usage | None, gpus: int) -> Sequence[object]:
    """CPU, throttling, memory and GPU of a job that runs."""
    if usage is None:
        return UNKNOWN, UNKNOWN, UNKNOWN, _gpu(None, gpus)
    cores, limit = usage["cpu_cores"], usage["cpu_limit_cores"]
    return (
        UNKNOWN if cores is None else f"{cores:.2f}{'' if limit is None else f'/{limit:g}'}",
        _ratio(usage["throttled_ratio"], THROTTLED),
        _memory(usage),
        _gpu(usage["gpu_utilisation"], gpus),
    )


def _memory(usage: Usage) -> Text:
    amount, limit = usage["memory_bytes"], usage["memory_limit_bytes"]
    if amount is None:
        return UNKNOWN
    style = "red" if limit and amount >= MEMORY_TIGHT * limit else ""
    return Text(show_bytes(amount) + (f"/{show_bytes(limit)}" if limit else ""), style)


def _ratio(ratio: float | None, bad: float) -> Text:
    return UNKNOWN if ratio is None else Text(f"{ratio:.0%}", "red" if ratio >= bad else "")


def _gpu(ratio: float | None, gpus: int) -> Text:
    """How many GPUs, and how busy they are."""
    if not gpus:
        return Text("-", "dim")
    return Text(f"{gpus} ").append_text(UNKNOWN if ratio is None else Text(f"{ratio:.0%}"))
