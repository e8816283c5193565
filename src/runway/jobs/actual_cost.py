"""What a job cost in the end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from runway.jobs.diagnosis.attempts import Attempt


def actual_cost(hourly: Decimal, attempts: Iterable[Attempt]) -> Decimal | None:
    """What a job's attempts cost, in USD, to a millionth: each from when it was bound to a node until it ended.

    An attempt that never got a node costs nothing. None where a time is not known: a part of a cost is not a cost.
    The times are of different machines' clocks, so an attempt may seem to end before it was bound; it costs nothing.
    """
    bound = timedelta()
    for attempt in attempts:
        if attempt.node is None:
            continue
        if attempt.bound_at is None or attempt.finished_at is None:
            return None
        bound += max(timedelta(), attempt.finished_at - attempt.bound_at)
    seconds = Fraction(bound // timedelta(microseconds=1), 1_000_000)
    return Decimal(round(Fraction(hourly) * seconds / 3600 * 1_000_000)).scaleb(-6)
