"""Pages of jobs, newest first, at a cost that has a bound, however many jobs there are and however few match."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from runway.cluster.store import Key
from runway.flow.observe import Observer
from runway.jobs.view import State

LOOKED_AT: Final = 5000
"""Jobs that are looked at for one page; a look takes under a microsecond."""

Place = tuple[datetime, Key]
"""Where a job stands in the order of jobs."""


@dataclass(frozen=True, slots=True)
class Page:
    """The jobs of a page; `after` is where the next one begins, None where there is nothing further to look at.

    With few matches a page may hold less than was asked for, or nothing, and yet have a next one: `looked_at` jobs were
    looked at.
    """

    keys: list[Key]
    after: Place | None
    looked_at: int


def page(
    observer: Observer,
    namespace: str | None,
    states: Collection[State],
    after: Place | None,
    most: int,
    *,
    look: int = LOOKED_AT,
) -> Page:
    """At most so many jobs after a place, of one namespace or of all, in one of these states or in any."""
    keys: list[Key] = []
    last, looked_at = after, 0
    for place in islice(observer.store.newest_first(after), look + 1):
        if len(keys) == most or looked_at == look:
            return Page(keys, last, looked_at)
        key, last, looked_at = place[1], place, looked_at + 1
        if namespace in (None, key.namespace) and _matches(observer.state(key), states):
            keys.append(key)
    return Page(keys, None, looked_at)


def _matches(state: State | None, states: Collection[State]) -> bool:
    """Whether it is a job of Runway's, and in one of these states; none means any."""
    return state is not None and (not states or state in states)
