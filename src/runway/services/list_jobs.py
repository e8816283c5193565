"""Pages of jobs, newest first, in bounded steps that let other requests run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from runway.jobs.models import JobState
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

MAX_JOBS_SCANNED = 5000  # Jobs that one step scans; a job takes under a microsecond.

Place = tuple[datetime, JobKey]
"""The position of a job in the order of all jobs."""


@dataclass(frozen=True, slots=True)
class Page:
    """The jobs of a page, perhaps fewer than requested; the next one begins after `after`, None on the last page."""

    places: list[Place]
    after: Place | None
    looked_at: int

    @property
    def keys(self) -> list[JobKey]:
        return [key for _, key in self.places]


def scan_page(
    cluster: ClusterState,
    namespace: str | None,
    states: Collection[JobState],
    after: Place | None,
    most: int,
    max_scanned: int = MAX_JOBS_SCANNED,
) -> Page:
    """Return at most `most` jobs after a position, of one namespace or all, in these states or any, in one step."""
    places: list[Place] = []
    last, looked_at, full = after, 0, False
    for place in islice(cluster.store.newest_first(after), max_scanned + 1):
        if full or looked_at == max_scanned:
            return Page(places, last, looked_at)
        key, last, looked_at = place[1], place, looked_at + 1
        # The state is None if Runway did not create the job.
        state = cluster.stats.state(key) if namespace in (None, key.namespace) else None
        if state is not None and (not states or state in states):
            places.append(place)
            full = len(places) == most
    return Page(places, None, looked_at)


async def full_page(
    cluster: ClusterState,
    namespace: str | None,
    states: Collection[JobState],
    after: Place | None,
    most: int,
    max_scanned: int = MAX_JOBS_SCANNED,
) -> list[Place]:
    """Scan until the page is full or no job is left. Yields to the event loop between steps."""
    found: list[Place] = []
    while True:
        part = scan_page(cluster, namespace, states, after, most - len(found), max_scanned)
        found += part.places
        if part.after is None or len(found) == most:
            return found
        after = part.after
        await asyncio.sleep(0)
