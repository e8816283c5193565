"""The life of a job as moments in their order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from runway.cli.output import STATE_STYLES
from runway.cli.text import parse_moment, show_duration
from runway.cli.views.job_metrics import deadline_of
from runway.cli.wire import Attempt, JobView, is_over


class Moment(NamedTuple):
    """What happened when, and in which style it is shown."""

    time: datetime
    what: str
    style: str = ""


def timeline(view: JobView) -> list[Moment]:
    """Every moment that the view tells of, in order; the deadline among them while the job is not over."""
    return sorted(_moments(view), key=lambda moment: moment.time)


def how_it_ended(attempt: Attempt) -> str:
    """`exit code 3`, `killed by SIGKILL, exit code 137 (OOMKilled)`, `SIGTERM, exit code 143`."""
    # A process may have handled these, and ended by itself.
    killed = "" if attempt["signal"] in ("SIGTERM", "SIGINT", "SIGHUP") else "killed by "
    parts = [f"{killed}{attempt['signal']}"] if attempt["signal"] else []
    if attempt["exit_code"] is not None:
        parts.append(f"exit code {attempt['exit_code']}")
    reason = f" ({attempt['reason']})" if attempt["reason"] not in (None, "Error", "Completed") else ""
    return (", ".join(parts) or attempt["state"]) + reason


def _moments(view: JobView) -> Iterator[Moment]:
    if created := parse_moment(view["created_at"]):
        yield Moment(created, "accepted")
    several = view["attempts_left_out"] + len(view["attempts"]) > 1
    for number, attempt in enumerate(view["attempts"], start=1 + view["attempts_left_out"]):
        yield from _attempt(attempt, f"attempt {number} " if several else "")
    for condition in view["conditions"]:
        if since := parse_moment(condition["since"]):
            yield Moment(since, condition["code"], "yellow")
    if ended := parse_moment(view["finished_at"]):
        why = f": {view['failure']['code']}" if view["failure"] else ""
        yield Moment(ended, f"{view['state']}{why}", STATE_STYLES.get(view["state"], ""))
    if not is_over(view) and (deadline := deadline_of(view)):
        yield Moment(deadline, "deadline", "dim")


def _attempt(attempt: Attempt, prefix: str) -> Iterator[Moment]:
    created, bound = parse_moment(attempt["created_at"]), parse_moment(attempt["bound_at"])
    started, finished = parse_moment(attempt["started_at"]), parse_moment(attempt["finished_at"])
    if bound:
        yield Moment(bound, f"{prefix}bound to node {attempt['node']}")
    elif created:
        yield Moment(created, f"{prefix}pod created")
    if started:
        yield Moment(started, f"{prefix}started")
    if finished:
        ran = f" after {show_duration((finished - started).total_seconds())}" if started else ""
        style = "red" if attempt["state"] == "failed" else ""
        yield Moment(finished, f"{prefix}ended{ran}: {how_it_ended(attempt)}", style)
