"""A job in a line or a few: a row of a list, what was accepted, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.text import Text

from runway.cli.output import show_state
from runway.cli.text import safe, show_age, show_usd
from runway.cli.views.problems import Say
from runway.cli.views.tables import Column
from runway.cli.wire import Cost, Excerpt, Failure, JobView, attempts_begun

LAST_WORDS_LINES: Final = 10

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
    """The columns and rows of a list; with the tenant where it is of several."""
    heads = list(WIDE_COLUMNS if wide else JOB_COLUMNS)
    rows = [wide_row(view, now) if wide else job_row(view, now) for view in views]
    if tenants:
        heads.insert(1, TENANT_COLUMN)
        for row, view in zip(rows, views, strict=True):
            row.insert(1, view["tenant"])
    return heads, rows


def job_row(view: JobView, now: datetime) -> list[object]:
    """A job under `JOB_COLUMNS`; the cost is what it came to, or at most can come to."""
    return [
        view["id"],
        view["name"],
        show_state(view["state"]),
        _why(view),
        show_age(view["created_at"], now),
        view["spec"]["resources"]["gpu"] if view["spec"] else None,
        _price(view["cost"]),
    ]


def wide_row(view: JobView, now: datetime) -> list[object]:
    """A job under `WIDE_COLUMNS`."""
    node = view["attempts"][-1]["node"] if view["attempts"] else None
    image = view["spec"]["image"] if view["spec"] else None
    return [*job_row(view, now), attempts_begun(view), node, view["created_at"], image]


def show_submitted(say: Say, view: JobView, *, replayed: bool) -> None:
    """A job that was just accepted: its id, state and price."""
    cost = view["cost"]
    told = (
        f"{show_usd(cost['hourly'])} {cost['currency']} an hour, at most {show_usd(cost['ceiling'])} "
        f"({cost['rate_card']})"
        if cost
        else ""
    )
    say(Text(safe(view["id"]), "bold"), show_state(view["state"]), told, hang=2)
    if replayed:
        say("This idempotency key was used before: this is its first job, nothing new was submitted.", style="yellow")


def show_outcome(say: Say, view: JobView) -> None:
    """How a job ended: its state and cost, and where it failed what happened, what to do, and its last words."""
    cost = f"({_price(view['cost'])} USD)" if view["cost"] else ""
    say(Text(safe(view["id"]), "bold"), show_state(view["state"]), cost)
    if view["failure"] is not None:
        show_failure(say, view["failure"])
        if view["excerpt"] is not None:
            show_excerpt(say, view["excerpt"], LAST_WORDS_LINES)


def show_failure(say: Say, failure: Failure) -> None:
    """What happened, who has to act, what to do."""
    again = "may succeed if repeated" if failure["retryable"] else "will not succeed by being repeated"
    head = Text.assemble("  ", (safe(failure["code"]), "bold red"), f" ({safe(failure['category'])}; {again})")
    say(head)
    say(f"  {failure['message']}", hang=2)
    if failure["hint"]:
        say(f"  hint: {failure['hint']}", style="green", hang=8)


def show_excerpt(say: Say, excerpt: Excerpt, lines: int | None = None) -> None:
    """The kept end of a log, or the last lines of it."""
    kept = excerpt["text"].splitlines()
    shown = kept if lines is None else kept[-lines:]
    say(f"The end of the log of {excerpt['pod']}", style="bold", hang=2)
    if excerpt["truncated"] or len(shown) < len(kept):
        say("  …", style="dim")
    for line in shown:
        say(f"  {line}")


def _price(cost: Cost | None) -> str:
    """What a job came to, or `max` and what it can come to."""
    if cost is None:
        return ""
    return f"max {cost['ceiling']}" if cost["actual"] is None else cost["actual"]


def _why(view: JobView) -> str:
    if view["failure"] is not None:
        return view["failure"]["code"]
    return ", ".join(condition["code"] for condition in view["conditions"])
