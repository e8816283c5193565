"""How much one connection may send, hold and wait: the bounds of `http.protocol`.

`worst_case_bytes` adds up the memory that all callers together can make Runway hold (docs/operations.md, "Memory").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 64 << 10
"""Bytes of a request line and its header fields, of a trailer section, and of framing in excess of the body.

As with an AWS load balancer. https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
"""
HEAD_FIELDS: Final = 128
"""Header fields of a request, and fields of a trailer section: a field costs `FIELD_BYTES` whatever its length."""
TARGET_COPIES: Final = 5
"""A byte of the request target counts this many times: it is held as it came, and decoded with up to 4 bytes each."""
PIPELINED: Final = 16
"""Requests that may wait on a connection for the answer to an earlier one."""
READ_BYTES: Final = 8 << 10
"""Bytes of one read from a socket. Every bound is checked between two reads, so this is how exact they are."""
BODY_BUFFER_BYTES: Final = 8 << 10
"""Bytes of a body that wait for the application; beyond it the connection is not read."""
DISCARDED_BYTES: Final = 32 << 20
"""Bytes of a body that nobody reads, such as one refused with 413: a client that sends first reads its answer later."""
LINGER_BYTES: Final = 1 << 20
"""Bytes read from a client whose bytes were refused. A connection closed at once is reset, and the answer lost.

https://www.rfc-editor.org/rfc/rfc9112#section-9.6
"""
WRITE_BUFFER_BYTES: Final = 32 << 10
"""Bytes of an answer that wait for the client; beyond it writing is paused."""

UNSENT_BYTES: Final = 32 << 10
"""Bytes of an answer in the kernel that TCP cannot send yet, since the client does not read (TCP_NOTSENT_LOWAT)."""
RECEIVE_BUFFER_BYTES: Final = 64 << 10
"""Receive buffer of a socket, of which Linux takes twice as much. Without a bound it takes megabytes."""

KEEPALIVE_IDLE_SECONDS: Final = 60
"""Seconds of silence before TCP asks whether the peer is still there."""
KEEPALIVE_INTERVAL_SECONDS: Final = 15
"""Seconds between two such probes."""
KEEPALIVE_PROBES: Final = 4
"""Probes without an answer after which the connection is lost."""
TCP_USER_TIMEOUT_SECONDS: Final = 60
"""Seconds that sent bytes may stay unacknowledged before the connection is lost."""

FIELD_BYTES: Final = 170
"""Memory of a header field beside its text: a tuple, two bytes objects, a place in a list (CPython 3.11)."""
REQUEST_BYTES: Final = 2000
"""Memory of a request that waits, beside its head: its ASGI scope and its cycle in the server."""
CONNECTION_BYTES: Final = 24 << 10
"""Memory of a connection with one request in progress, beside all of the above: parser, transport, task and frames."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds that a test may shorten. Times are seconds."""

    head_seconds: float = 20.0
    """From the start of the connection, or the first byte after an answer, until a head is complete."""
    request_seconds: float = 25.0
    """From a complete head until the rest of the request: longer than `body.BODY_SECONDS`, whose end gets an answer."""
    linger_seconds: float = 2.0
    """Reading from a client whose bytes were refused."""
    discard_seconds: float = 20.0
    """Reading the rest of a body on a connection that ends with the answer."""
    stalled_seconds: float = 30.0
    """How long writing may be paused because the client does not read."""
    max_connections: int = 704
    """Open connections, leaving room for calls to Kubernetes below 1024 file descriptors."""
    max_leaving: int = 64
    """Connections that linger after their last answer, beside `max_connections`. Each can hold as much."""
    max_stalled_bytes: int = 64 << 20
    """Write buffers of all connections whose writing is paused, together."""

    @property
    def max_sockets(self) -> int:
        """Sockets of clients: open connections, and those that linger."""
        return self.max_connections + self.max_leaving


def worst_case_bytes(bounds: Bounds, max_bodies: int, max_body_bytes: int) -> dict[str, int]:
    """Return the memory by its use, in bytes, while every bound is reached at once."""
    head = HEAD_BYTES + READ_BYTES + HEAD_FIELDS * FIELD_BYTES
    body = BODY_BUFFER_BYTES + 2 * READ_BYTES
    connection = head + body + PIPELINED * REQUEST_BYTES + CONNECTION_BYTES + WRITE_BUFFER_BYTES
    return {
        "connections": bounds.max_sockets * connection,
        "stalled": bounds.max_stalled_bytes,
        "bodies": max_bodies * (max_body_bytes + max_body_bytes // 8),
    }
