"""All connections of one server, and which of them to close at a bound.

Every operation is O(1). A connection is in one of three states:

- `busy`: Runway owes a response.
- `idle`: Runway owes no response.
- `leaving`: Runway sent the last response and lingers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from runway.http_server.bounds import READ_BYTES, Bounds


class Abortable(Protocol):
    """A connection that the table can close."""

    def abort(self, reason: str) -> None:
        """Close at once."""


class ConnectionTable:
    """The connections of one server, and the one buffer that all of them read into."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._open: set[Abortable] = set()
        # Each dictionary holds the oldest entry first.
        self._idle: OrderedDict[Abortable, None] = OrderedDict()
        self._leaving: OrderedDict[Abortable, None] = OrderedDict()
        self._stalled: OrderedDict[Abortable, int] = OrderedDict()
        self._stalled_bytes = 0
        self.buffer = memoryview(bytearray(READ_BYTES))

    def admit(self, connection: Abortable) -> bool:
        """Add a new, idle connection. Return False if all connections are busy and their clients read.

        At the bound, abort the longest idle connection, or else the one whose client has not read for longest.
        """
        if len(self._open) >= self._bounds.max_connections:
            if not self._idle and not self._stalled:
                return False
            oldest = next(iter(self._idle or self._stalled))
            self._abort(oldest, "replaced by a new connection: this one waited for its client for longest")
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def mark_busy(self, connection: Abortable) -> None:
        """Record that Runway owes a response."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Abortable) -> None:
        """Record that Runway owes no response."""
        if connection in self._open:
            self._idle[connection] = None

    def mark_leaving(self, connection: Abortable) -> None:
        """Record that the connection lingers. Beyond `max_leaving`, abort the one that lingers for longest."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._leaving[connection] = None
        if len(self._leaving) > self._bounds.max_leaving:
            self._abort(next(iter(self._leaving)), "too many connections linger")

    def mark_stalled(self, connection: Abortable, size: int) -> None:
        """Record a paused write buffer. Beyond `max_stalled_bytes`, abort those paused for longest."""
        self._stalled[connection] = size
        self._stalled_bytes += size
        while self._stalled_bytes > self._bounds.max_stalled_bytes:
            self._abort(next(iter(self._stalled)), "too many bytes wait for clients that do not read")

    def mark_flowing(self, connection: Abortable) -> None:
        """Record that the client reads again."""
        self._stalled_bytes -= self._stalled.pop(connection, 0)

    def remove(self, connection: Abortable) -> None:
        """Remove a connection in any state."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._leaving.pop(connection, None)
        self.mark_flowing(connection)

    def _abort(self, connection: Abortable, reason: str) -> None:
        self.remove(connection)
        connection.abort(reason)
