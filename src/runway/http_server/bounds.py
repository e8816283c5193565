"""Bounds on the bytes, time, memory and number of client connections.

docs/operations.md ("Memory") adds up the memory of all clients together.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from runway.errors import ConfigurationError
from runway.settings import Settings

MAX_HEAD_BYTES: Final = 64 << 10
"""Bytes of a request line with its header fields, of a trailer section, and of chunk framing beyond the body."""
MAX_HEAD_FIELDS: Final = 128
"""Header fields of a request, and fields of a trailer section. Each field costs memory, however short it is."""
TARGET_COPIES: Final = 5
"""A byte of the request target counts this often: once raw, and up to 4 bytes for its decoded character."""
MAX_PIPELINED: Final = 16
"""Requests of one connection that wait for the response to an earlier one."""
READ_BYTES: Final = 8 << 10
"""Bytes of one read from a socket. The connection checks its bounds between two reads."""
MAX_BODY_BUFFER_BYTES: Final = 8 << 10
"""Body bytes that wait for the application. At this bound the connection stops reading."""
MAX_DISCARDED_BYTES: Final = 32 << 20
"""Bytes that Runway drops of a body it does not need, so that the client can read a 413 after it."""
MAX_LINGER_BYTES: Final = 1 << 20
"""Bytes read and dropped after a refusal, since a close resets the connection: rfc9112, section 9.6."""
MAX_WRITE_BUFFER_BYTES: Final = 32 << 10
"""Response bytes that wait for the client. Above this bound asyncio pauses writing."""
RECEIVE_BUFFER_BYTES: Final = 64 << 10
"""Receive buffer of a socket. Linux allocates twice as much; the default grows to megabytes."""
TCP_OPTIONS: Final = (
    ("TCP_KEEPIDLE", 60),
    ("TCP_KEEPINTVL", 15),
    ("TCP_KEEPCNT", 4),
    ("TCP_USER_TIMEOUT", 60_000),
    ("TCP_NOTSENT_LOWAT", 32 << 10),
)
"""They detect a lost peer within 2 minutes. https://man7.org/linux/man-pages/man7/tcp.7.html"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds that a test may change. Times are seconds."""

    head_seconds: float = 20.0
    """From the start of the connection, or the first byte after a response, until a head is complete."""
    request_seconds: float = 25.0
    """From a complete head until the rest of the request. Above `BODY_SECONDS` of the API, which is answered."""
    idle_seconds: float = 120.0
    """From a response until the next request. A request on a connection that Runway just closes gets no response.

    So it is longer than clients and load balancers keep an idle connection for reuse:
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html
    """
    linger_seconds: float = 2.0
    """For reading after a refusal."""
    discard_seconds: float = 20.0
    """For reading the rest of a body after the last response."""
    stalled_seconds: float = 30.0
    """Time that writing may be paused because the client does not read."""
    max_connections: int = 704
    """Open connections. 1024 file descriptors leave enough for calls to Kubernetes."""
    max_leaving: int = 64
    """Connections that linger after their last response, in addition to `max_connections`."""
    max_stalled_bytes: int = 64 << 20
    """Sum of the write buffers of all connections whose writing is paused."""

    @property
    def max_sockets(self) -> int:
        return self.max_connections + self.max_leaving


class Abortable(Protocol):
    def abort(self, reason: str) -> None:
        """Close at once."""


class ConnectionTable:
    """The connections of one server, and the one buffer that all of them read into. Every operation is O(1).

    `busy`: Runway owes a response. `idle`: it owes none. `leaving`: the connection lingers after its last response.
    """

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
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Abortable) -> None:
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
        self._stalled_bytes -= self._stalled.pop(connection, 0)

    def remove(self, connection: Abortable) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._leaving.pop(connection, None)
        self.mark_flowing(connection)

    def _abort(self, connection: Abortable, reason: str) -> None:
        self.remove(connection)
        connection.abort(reason)


def raise_limit(settings: Settings, connections: int) -> None:
    """Raise the limit of open files to the hard limit. Raises ConfigurationError if the hard limit is too low.

    https://man7.org/linux/man-pages/man2/getrlimit.2.html
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = 64  # For watches, logs of terminating pods, Prometheus, listening sockets, files and the event loop.
    # A stream takes one descriptor to its client and one to Kubernetes.
    required = connections + min(settings.max_streams, connections) + settings.max_in_flight + spare
    if hard != resource.RLIM_INFINITY and hard < required:
        raise ConfigurationError(
            f"the limit of open files (ulimit -Hn) is {hard}, below the required {required}: raise it, or lower "
            "RUNWAY_MAX_STREAMS or RUNWAY_MAX_IN_FLIGHT"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
