"""A request's head: is it acceptable HTTP/1.1. Pure functions.

https://www.rfc-editor.org/rfc/rfc9112 and https://www.rfc-editor.org/rfc/rfc9110
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

import httptools

Fields = list[tuple[bytes, bytes]]

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|(?:[-\w.~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
_MAX_PORT: Final = 65_535
_MAX_HOST_BYTES: Final = 255 + len(":65535")
"""A longer name is none that DNS can resolve."""
_IGNORED_UPGRADES: Final = (b"h2c", b"tls")
"""Protocols that clients offer with ordinary requests, and that a server may ignore (RFC 9110, section 7.8).

Java's HttpClient and `curl --http2` offer h2c, Apache HttpClient TLS.
"""


def head_fault(method: bytes, version: str, fields: Fields) -> str | None:
    """Return why a head is refused, for the caller to read; None where it is acceptable."""
    if version not in ("1.0", "1.1"):
        return f"the version is HTTP/{version}; HTTP/1.1 is spoken here"
    if method == b"CONNECT":
        return "CONNECT is not possible: this is not a proxy"
    hosts = []
    for name, value in fields:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding" and version == "1.0":
            return "Transfer-Encoding is not possible in HTTP/1.0; send Content-Length"
        elif name == b"upgrade" and version == "1.1" and not is_ignored_upgrade(value):
            return "Upgrade is not possible: there are no WebSockets; follow a job by GET /v1/jobs/{id}/events"
    return _fault_of_hosts(hosts, version)


def _fault_of_hosts(hosts: list[bytes], version: str) -> str | None:
    if len(hosts) > 1:
        return f"the Host header is sent {len(hosts)} times; once is enough"
    if not hosts:
        return None if version == "1.0" else "the Host header is missing"
    return None if is_valid_host(hosts[0]) else "the Host header is not a host name or address with an optional port"


def is_ignored_upgrade(value: bytes) -> bool:
    """Say whether an Upgrade header offers only protocols that are ignored."""
    return all(offer.strip().lower().partition(b"/")[0] in _IGNORED_UPGRADES for offer in value.split(b","))


def is_valid_host(value: bytes) -> bool:
    """Say whether a Host header is `uri-host[:port]` (RFC 9112, section 3.2)."""
    return len(value) <= _MAX_HOST_BYTES and _matches_host(value)


@lru_cache(256)
def _matches_host(value: bytes) -> bool:
    found = _HOST.fullmatch(value)
    if found is None or int(found[2] or 0) > _MAX_PORT:
        return False
    if found[1] is None:
        return True
    try:
        ipaddress.IPv6Address(found[1].decode("ascii"))
    except ValueError:
        return False
    return True


def origin_form(target: bytes) -> bytes:
    """Return path and query of a request target, which may be an absolute URL (RFC 9112, section 3.2.2).

    Raises httptools.HttpParserInvalidURLError.
    """
    if target.startswith(b"/") or target == b"*":
        return target
    url = httptools.parse_url(target)
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
