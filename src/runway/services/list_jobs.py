"""Pages of jobs, newest first, in bounded steps that let other requests run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from runway.jobs.annotations import LABEL_NAME
from runway.jobs.models import JobState
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

MAX_JOBS_SCANNED = 5000  # Jobs that one step scans; a job takes one to three microseconds.

Place = tuple[datetime, JobKey]
"""The position of a job in the order of all jobs."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs of a list: of one namespace, in any of these states, of exactly this name. None and () match all.

    `search` is a part of the name, or the start of the id, with or without `rw-`; in any case.
    """

    namespace: str | None = None
    states: Collection[JobState] = ()
    name: str | None = None
    id_prefix: str = ""
    search: str = ""

    def matches(self, cluster: ClusterState, key: JobKey) -> bool:
        """Return whether Runway created the job and it fits. O(1)."""
        if self.namespace not in (None, key.namespace) or not key.name.startswith(self.id_prefix):
            return False
        # The state is None if Runway did not create the job.
        state = cluster.stats.state(key)
        return state is not None and (not self.states or state in self.states) and self._fits_name(cluster, key)

    def _fits_name(self, cluster: ClusterState, key: JobKey) -> bool:
        if self.name is None and not self.search:
            return True
        job = cluster.job(key)
        name = "" if job is None else job.metadata.labels.get(LABEL_NAME, "")
        if self.name not in (None, name):
            return False
        search = self.search.lower()
        return search in name.lower() or key.name.startswith((search, f"rw-{search}"))


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
    cluster: ClusterState, wanted: JobFilter, after: Place | None, most: int, max_scanned: int = MAX_JOBS_SCANNED
) -> Page:
    """Return at most `most` matching jobs after a position, in one step."""
    places: list[Place] = []
    last, looked_at, full = after, 0, False
    for place in islice(cluster.store.newest_first(after, wanted.namespace), max_scanned + 1):
        if full or looked_at == max_scanned:
            return Page(places, last, looked_at)
        last, looked_at = place, looked_at + 1
        if wanted.matches(cluster, place[1]):
            places.append(place)
            full = len(places) == most
    return Page(places, None, looked_at)


async def full_page(
    cluster: ClusterState, wanted: JobFilter, after: Place | None, most: int, max_scanned: int = MAX_JOBS_SCANNED
) -> list[Place]:
    """Scan until the page is full or no job is left. Yields to the event loop between steps."""
    found: list[Place] = []
    while True:
        part = scan_page(cluster, wanted, after, most - len(found), max_scanned)
        found += part.places
        if part.after is None or len(found) == most:
            return found
        after = part.after
        await asyncio.sleep(0)
