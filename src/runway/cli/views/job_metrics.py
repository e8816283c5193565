"""What a job's view tells of time and money at a moment. Pure; None means unknown."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation

from runway.cli.text import parse_moment
from runway.cli.wire import JobView


def deadline_of(view: JobView) -> datetime | None:
    """When the job's whole life ends, counted from its acceptance."""
    created = parse_moment(view["created_at"])
    if created is None or view["spec"] is None:
        return None
    try:
        return created + timedelta(seconds=view["spec"]["timeout_seconds"])
    except OverflowError:
        return None


def elapsed_seconds(view: JobView, now: datetime) -> float | None:
    """Seconds since the job was accepted, until it was over."""
    created = parse_moment(view["created_at"])
    if created is None:
        return None
    return max(0.0, ((parse_moment(view["finished_at"]) or now) - created).total_seconds())


def cost_so_far(view: JobView, now: datetime) -> Decimal | None:
    """What the job has cost: what the server says once it is over, and until then a reckoning by its own rule.

    `hourly` for the time from when each pod was bound to its node until its container ended. Attempts that the view
    leaves out are not known.
    """
    cost = view["cost"]
    if cost is None or view["attempts_left_out"]:
        return None
    try:
        if cost["actual"] is not None:
            return Decimal(cost["actual"])
        hourly = Decimal(cost["hourly"])
    except InvalidOperation:
        return None
    seconds = 0.0
    for attempt in view["attempts"]:
        bound = parse_moment(attempt["bound_at"])
        if bound is not None:
            ended = parse_moment(attempt["finished_at"]) or now
            seconds += max(0.0, (ended - bound).total_seconds())
    return (hourly * Decimal(seconds) / 3600).quantize(Decimal("0.000001"))
