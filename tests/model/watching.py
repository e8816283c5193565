"""One watch as a process has it open: its events come late, twice, not at all, or from further back again."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from runway.errors import AmbiguousOutcome
from runway.kube.client import WATCH_SECONDS
from tests.support.fake_cluster import Json, event_line

if TYPE_CHECKING:
    from tests.model.wire import Wire

BOOKMARK_SECONDS: Final = 60.0


class Watch:
    """Reads the API server's history from a version on. Each event passes alone, in its own turn of the loop."""

    def __init__(self, wire: Wire, kind: str, version: int, idle: float) -> None:
        self._wire = wire
        self._api = wire.api
        self._kind = kind
        self._idle = idle
        self._events = wire.api.server.history[kind]
        self._next = bisect_right(self._events, version, key=lambda event: event[0])
        self._opened = self._heard = wire.api.loop.time()
        self._waiter: asyncio.Future[None] | None = None
        self.broken = False
        """The connection is reset."""
        self.closed = False
        """The API server ends the watch in good order."""
        self.expired = False
        """The API server says that the version has become too old."""
        self.twice = False
        """The next event comes twice."""

    def trouble(self, what: str, much: float) -> None:
        """`again`: so many events are told once more, in their order; the rest are the fields above."""
        match what:
            case "again":
                self._next = max(0, self._next - math.ceil(much))
            case "twice":
                self.twice = True
            case "break":
                self.broken = True
            case "close":
                self.closed = True
            case "expire":
                self.expired = True
        self.wake()

    def wake(self) -> None:
        """Look again: something has changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def lines(self) -> AsyncGenerator[bytes, None]:  # noqa: C901 (one branch a trouble)
        """The lines of this watch until it ends. Raises Ambiguous where the connection breaks or nothing is heard."""
        while True:
            await self._wire.sleep(0)
            now = self._api.loop.time()
            if self.broken or self._api.server.down:
                raise AmbiguousOutcome("the connection to the Kubernetes API broke: reset")
            if now - self._heard >= self._idle:
                raise AmbiguousOutcome(f"the Kubernetes API sent nothing for {self._idle:g} s")
            if not self._wire.may_speak(self._kind):
                await self._until(self._heard + self._idle)
            elif self.expired:
                yield b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n'
            elif self.closed or now - self._opened >= WATCH_SECONDS:
                return
            elif self._next < len(self._events):
                due = self._api.written[self._events[self._next][0]] + self._wire.lags[self._kind]
                if due > now:
                    await self._until(due)
                    continue
                for line in self._take():
                    self._heard = now
                    yield line
            elif now - self._heard >= BOOKMARK_SECONDS:
                self._heard = now
                yield event_line("BOOKMARK", {"metadata": {"resourceVersion": str(self._api.server.version)}})
            else:
                await self._until(self._heard + BOOKMARK_SECONDS)

    def _take(self) -> list[bytes]:
        """The next event: its line, twice, or not at all."""
        _, type_, item = self._events[self._next]
        self._next += 1
        wire = self._wire
        if wire.losing[self._kind]:
            wire.losing[self._kind] -= 1
            self._lose(item)
            return []
        if type_ != "DELETED":
            wire.note(item)
        line = event_line(type_, item)
        twice, self.twice = self.twice, False
        return [line, line] if twice else [line]

    def _lose(self, item: Json) -> None:
        self._wire.told.lost.add(item["metadata"]["uid"])
        self._api.lost_events += 1

    async def _until(self, moment: float) -> None:
        """Wait for the moment, or for `wake`."""
        loop = self._api.loop
        self._waiter = loop.create_future()
        timer = loop.call_at(max(moment, loop.time()), self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
