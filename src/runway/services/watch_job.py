"""A job's views, one for each change, until it is over: what the event stream sends.

It is built on states, not on a history: whoever is slow, or comes back after a break, is given the view as it is now,
and views between are left out. The last one, which is for good, never is. So a reader needs no queue here, and a new
process needs no memory of the old one.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from runway.controllers.sync import Observer
from runway.jobs.view import JobView
from runway.state.job_store import JobKey

HEARTBEAT_SECONDS: Final = 15.0
"""After so long without a change a sign of life is sent: proxies close what is silent, and a dead client shows."""

RECORD_WAIT_SECONDS: Final = 10.0
"""How long is waited for the record of a job that is over: with it the view gains the end of the log and the cost."""

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class JobUpdated:
    """A view as JSON. The id depends on that alone, so it is the same in every process."""

    id: str
    document: bytes
    over: bool

    @classmethod
    def of(cls, view: JobView) -> JobUpdated:
        """The view as it is sent."""
        document = _encoder.encode(view)
        return cls(hashlib.sha256(document).hexdigest()[:32], document, view.state.is_finished)


@dataclass(frozen=True, slots=True)
class JobDeleted:
    """The Job was deleted: nothing more is known of it."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has changed."""


async def watch_job(
    observer: Observer, key: JobKey, last: str | None, shown: Callable[[JobView], JobView]
) -> AsyncGenerator[JobUpdated | Heartbeat | JobDeleted, None]:
    """The view as it is now, unless its id is `last`; then each change; ends with the view that is for good, or Gone.

    A job is finished a moment before its record is written, and only then is its view final. `shown` makes of a view
    what its reader may see.

    Raises NotReady where Runway no longer knows the state of the cluster.
    """
    with observer.subscribe(key) as reader:
        while True:
            observer.require_synced()
            view = observer.view(key)
            if view is None:
                yield JobDeleted()
                return
            seen = JobUpdated.of(shown(view))
            if seen.id != last:
                last = seen.id
                yield seen
            if seen.over:
                if observer.has_final_record(key) or not await reader.wait(RECORD_WAIT_SECONDS):
                    return
                continue
            while not await reader.wait(HEARTBEAT_SECONDS):
                observer.require_synced()
                yield Heartbeat()
