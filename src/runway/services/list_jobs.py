"""Pages of jobs, newest first: nobody else is held up, however many jobs there are and however few match."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from runway.controllers.sync import Observer
from runway.jobs.view import JobState
from runway.state.job_store import JobKey

MAX_JOBS_SCANNED: Final = 5000
"""Jobs that are looked at in one go; a look takes under a microsecond."""

Place = tuple[datetime, JobKey]
"""Where a job stands in the order of jobs."""


@dataclass(frozen=True, slots=True)
class Page:
    """The jobs of a page; `after` is where the next one begins, None where there is nothing further to look at.

    With few matches a page may hold less than was asked for, or nothing, and yet have a next one: `looked_at` jobs were
    looked at.
    """

    places: list[Place]
    after: Place | None
    looked_at: int

    @property
    def keys(self) -> list[JobKey]:
        """The jobs themselves."""
        return [key for _, key in self.places]


def scan_page(
    observer: Observer,
    namespace: str | None,
    states: Collection[JobState],
    after: Place | None,
    most: int,
    *,
    look: int = MAX_JOBS_SCANNED,
) -> Page:
    """At most so many jobs after a place, of one namespace or of all, in one of these states or in any, in one go."""
    places: list[Place] = []
    last, looked_at, full = after, 0, False
    for place in islice(observer.store.newest_first(after), look + 1):
        if full or looked_at == look:
            return Page(places, last, looked_at)
        key, last, looked_at = place[1], place, looked_at + 1
        # None where it is not a job of Runway's.
        state = observer.tallies.state(key) if namespace in (None, key.namespace) else None
        if state is not None and (not states or state in states):
            places.append(place)
            full = len(places) == most
    return Page(places, None, looked_at)


async def full_page(
    observer: Observer,
    namespace: str | None,
    states: Collection[JobState],
    after: Place | None,
    most: int,
    *,
    look: int = MAX_JOBS_SCANNED,
) -> list[Place]:
    """As `page`, but with as many as there are, up to so many: it looks on, and all others have a turn in between."""
    found: list[Place] = []
    while True:
        part = scan_page(observer, namespace, states, after, most - len(found), look=look)
        found += part.places
        if part.after is None or len(found) == most:
            return found
        after = part.after
        await asyncio.sleep(0)
