"""All connections of one server: how many there are, and which gives way. Every operation is O(1).

A connection is in one of three states: `busy` owes an answer, `idle` owes none, `leaving` was refused and lingers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from runway.http_server.bounds import READ_BYTES, Bounds


class Connection(Protocol):
    """What the table needs of a connection."""

    def abort(self, reason: str) -> None:
        """Close it at once."""


class ConnectionTable:
    """The connections of one server, and the buffer that they read into one after the other."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._open: set[Connection] = set()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._leaving: OrderedDict[Connection, None] = OrderedDict()
        self._stalled: OrderedDict[Connection, int] = OrderedDict()
        self._stalled_bytes = 0
        self.buffer = memoryview(bytearray(READ_BYTES))

    def admit(self, connection: Connection) -> bool:
        """Take a new, idle connection in. Return False where all are in use.

        At the limit the connection that is idle for longest gives way, or else the one whose client has not read for
        longest.
        """
        if len(self._open) >= self._bounds.max_connections:
            if not self._idle and not self._stalled:
                return False
            longest = next(iter(self._idle or self._stalled))
            self._abort(longest, "a new connection needs its place, and it waits for its client for longest")
        self._open.add(connection)
        self._idle[connection] = None
        return True

    def mark_busy(self, connection: Connection) -> None:
        """Record that the connection owes an answer."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Connection) -> None:
        """Record that the connection owes no answer, from now on."""
        if connection in self._open:
            self._idle[connection] = None

    def mark_leaving(self, connection: Connection) -> None:
        """Record that the connection lingers. Beyond `max_leaving` the one that does so for longest is aborted."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._leaving[connection] = None
        if len(self._leaving) > self._bounds.max_leaving:
            self._abort(next(iter(self._leaving)), "too many refused connections linger")

    def mark_stalled(self, connection: Connection, size: int) -> None:
        """Record a paused write buffer. Beyond `max_stalled_bytes` those paused for longest are aborted."""
        self._stalled[connection] = size
        self._stalled_bytes += size
        while self._stalled_bytes > self._bounds.max_stalled_bytes:
            self._abort(next(iter(self._stalled)), "the clients that do not read hold too much memory together")

    def mark_flowing(self, connection: Connection) -> None:
        """Record that the client reads again."""
        self._stalled_bytes -= self._stalled.pop(connection, 0)

    def remove(self, connection: Connection) -> None:
        """Forget a connection, whatever its state."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._leaving.pop(connection, None)
        self.mark_flowing(connection)

    def _abort(self, connection: Connection, reason: str) -> None:
        self.remove(connection)
        connection.abort(reason)
