"""Bounds on the bytes, time and memory of one client connection.

docs/operations.md ("Memory") adds up what all clients together can make Runway hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 64 << 10
"""Bytes of a request line with its header fields, of a trailer section, and of chunk framing beyond the body.

As with an AWS load balancer. https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html
"""
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
"""Bytes that Runway reads and drops after it refused a request: an immediate close resets the connection.

https://www.rfc-editor.org/rfc/rfc9112#section-9.6
"""
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
"""Seconds, except TCP_USER_TIMEOUT in milliseconds, TCP_KEEPCNT in probes and TCP_NOTSENT_LOWAT in unsent bytes.

They detect a lost peer within 2 minutes. https://man7.org/linux/man-pages/man7/tcp.7.html
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds that a test may change. Times are seconds."""

    head_seconds: float = 20.0
    """From the start of the connection, or the first byte after a response, until a head is complete."""
    request_seconds: float = 25.0
    """From a complete head until the rest of the request. Above `body.BODY_SECONDS`, whose end gets a response."""
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
        """Return the maximum number of client sockets."""
        return self.max_connections + self.max_leaving
