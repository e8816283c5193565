"""A job in a few lines: a row of a list, an accepted job, an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

from rich.text import Text

from runway.cli.output import Say, show_state
from runway.cli.views.tables import Column
from runway.jobs.cost import actual_cost
from runway.jobs.models import CostView, Excerpt, Failure, JobView
from runway.text import escape, show_between, show_usd

EXCERPT_LINES: Final = 10

JOB_COLUMNS: Final = [
    Column(title="ID"),
    Column(title="NAME", shrink=True),
    Column(title="STATE"),
    Column(title="WHY", shrink=True),
    Column(title="AGE", drop_priority=1, right=True),
    Column(title="GPU", drop_priority=3, right=True),
    Column(title="COST USD", drop_priority=2, right=True),
]
WIDE_COLUMNS: Final = [*JOB_COLUMNS, *(Column(title=title) for title in ("ATTEMPTS", "NODE", "CREATED", "IMAGE"))]
TENANT_COLUMN: Final = Column(title="TENANT", shrink=True)


def rows_of(
    views: Sequence[JobView], now: datetime, *, wide: bool, tenants: bool
) -> tuple[list[Column], list[list[object]]]:
    """Return the columns and rows of a list; with `tenants` each row names the tenant."""
    heads = list(WIDE_COLUMNS if wide else JOB_COLUMNS)
    rows = [[*_row(view, now), *(_wide_cells(view) if wide else ())] for view in views]
    if tenants:
        heads.insert(1, TENANT_COLUMN)
        for row, view in zip(rows, views, strict=True):
            row.insert(1, view.tenant)
    return heads, rows


def cost_so_far(view: JobView, now: datetime) -> Decimal | None:
    """Return the actual cost of a finished job, else the cost of its attempts until `now`; None where unknown."""
    if view.cost is None:
        return None
    try:
        if view.cost.actual is not None:
            return Decimal(view.cost.actual)
        hourly = Decimal(view.cost.hourly)
    except InvalidOperation:
        return None
    if view.attempts_left_out or view.is_finished:
        return None
    return actual_cost(hourly, [replace(attempt, finished_at=attempt.finished_at or now) for attempt in view.attempts])


def show_submitted(say: Say, view: JobView, *, replayed: bool) -> None:
    """Show a job that was accepted: its id, state and price."""
    cost = view.cost
    price = (
        f"{show_usd(cost.hourly)} {cost.currency} an hour, at most {show_usd(cost.ceiling)} ({cost.rate_card})"
        if cost
        else ""
    )
    say(Text(escape(view.id), "bold"), show_state(view.state), price, hang=2)
    if replayed:
        say("This idempotency key is already used. This is its first job; nothing new was submitted.", style="yellow")


def show_outcome(say: Say, view: JobView) -> None:
    """Show how a job ended: its state and cost, and for a failure the cause, the hint and the end of the log."""
    cost = f"({_cost(view.cost)} USD)" if view.cost else ""
    say(Text(escape(view.id), "bold"), show_state(view.state), cost)
    if view.failure is not None:
        show_failure(say, view.failure)
        if view.excerpt is not None:
            show_excerpt(say, view.excerpt, EXCERPT_LINES)


def show_failure(say: Say, failure: Failure) -> None:
    """Show the cause, the party that has to act, and the hint."""
    retryable = "retryable" if failure.retryable else "not retryable"
    say(Text.assemble("  ", (escape(failure.code), "bold red"), f" ({escape(failure.category)}; {retryable})"))
    say(f"  {failure.message}", hang=2)
    if failure.hint:
        say(f"  hint: {failure.hint}", style="green", hang=8)


def show_excerpt(say: Say, excerpt: Excerpt, lines: int | None = None) -> None:
    """Show the stored end of a log, or its last lines."""
    stored = excerpt.text.splitlines()
    shown = stored if lines is None else stored[-lines:]
    say(f"End of the log of {excerpt.pod}", style="bold", hang=2)
    if excerpt.truncated or len(shown) < len(stored):
        say("  …", style="dim")
    for line in shown:
        say(f"  {line}")


def _row(view: JobView, now: datetime) -> list[object]:
    return [
        view.id,
        view.name,
        show_state(view.state),
        view.failure.code if view.failure else ", ".join(condition.code for condition in view.conditions),
        show_between(view.created_at, now),
        view.spec.resources.gpu if view.spec else None,
        _cost(view.cost),
    ]


def _wide_cells(view: JobView) -> list[object]:
    node = view.attempts[-1].node if view.attempts else None
    created = f"{view.created_at:%Y-%m-%dT%H:%M:%SZ}" if view.created_at else None
    return [view.attempt_count, node, created, view.spec.image if view.spec else None]


def _cost(cost: CostView | None) -> str:
    """Return the actual cost, or `max` and the ceiling."""
    if cost is None:
        return ""
    return f"max {cost.ceiling}" if cost.actual is None else cost.actual
