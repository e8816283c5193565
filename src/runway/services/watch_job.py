"""The event stream of a job: its view after each change, until it is finished.

The stream is level-triggered: a slow or reconnecting reader gets the current view, and misses the views between. It
never misses the final view. So a reader needs no queue, and a new process needs no state of the old one.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from runway.jobs.models import JobView
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

HEARTBEAT_SECONDS: Final = 15.0  # A heartbeat keeps proxies from closing a silent stream, and detects dead clients.

RECORD_WAIT_SECONDS: Final = 10.0
"""Maximum wait for the record of a finished job, which adds the log excerpt and the cost to the view."""

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class JobUpdated:
    """A view as JSON. The id is its hash, so every process sends the same one."""

    id: str
    document: bytes
    over: bool

    @classmethod
    def of(cls, view: JobView) -> JobUpdated:
        document = _encoder.encode(view)
        return cls(hashlib.sha256(document).hexdigest()[:32], document, view.is_finished)


@dataclass(frozen=True, slots=True)
class JobDeleted:
    """The Job was deleted."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has changed."""


async def watch_job(
    cluster: ClusterState, key: JobKey, last: str | None, shown: Callable[[JobView], JobView]
) -> AsyncGenerator[JobUpdated | Heartbeat | JobDeleted, None]:
    """Yield the current view, unless its id is `last`, then each change; ends with the final view or JobDeleted.

    A job finishes a moment before its record is written, and only then is its view final. `shown` removes from a view
    what the reader may not see. Raises NotReady once Runway no longer knows the state of the cluster.
    """
    read = cluster.view  # A new reader gets the current view. Those that follow a change share one.
    with cluster.subscriptions.subscribe(key) as reader:
        while True:
            cluster.require_synced()
            view, read = read(key), cluster.shared_view
            if view is None:
                yield JobDeleted()
                return
            seen = JobUpdated.of(shown(view))
            if seen.id != last:
                last = seen.id
                yield seen
            if seen.over:
                if cluster.has_final_record(key) or not await reader.wait(RECORD_WAIT_SECONDS):
                    return
                continue
            while not await reader.wait(HEARTBEAT_SECONDS):
                cluster.require_synced()
                yield Heartbeat()
