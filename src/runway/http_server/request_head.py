"""Validation of a request head against HTTP/1.1. Pure functions.

https://www.rfc-editor.org/rfc/rfc9112 and https://www.rfc-editor.org/rfc/rfc9110
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import httptools

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|(?:[-\w.~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
_MAX_HOST_BYTES: Final = 255 + len(":65535")
"""DNS names have at most 255 bytes."""


def head_fault(method: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> str | None:
    """Return why the head is invalid, as the detail of a problem, or None."""
    if version not in ("1.0", "1.1"):
        return f"the version is HTTP/{version}; Runway supports HTTP/1.1"
    if method == b"CONNECT":
        return "the method is CONNECT; Runway is not a proxy"
    if version == "1.0" and any(name == b"transfer-encoding" for name, _ in fields):
        return "HTTP/1.0 has no Transfer-Encoding; send Content-Length"
    if version == "1.1" and any(name == b"upgrade" and not is_ignored_upgrade(value) for name, value in fields):
        return "Upgrade is not supported, WebSockets included; follow a job with GET /v1/jobs/{id}/events"
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1:
        return f"{len(hosts)} Host headers; send one"
    if not hosts:
        return None if version == "1.0" else "the Host header is missing"
    return None if is_valid_host(hosts[0]) else "the Host header is not a host name or address with an optional port"


def is_ignored_upgrade(value: bytes) -> bool:
    """Return whether an Upgrade header offers only protocols that Runway ignores.

    Java's HttpClient and `curl --http2` offer h2c, Apache HttpClient offers TLS, each with ordinary requests.
    https://www.rfc-editor.org/rfc/rfc9110#section-7.8
    """
    return all(offer.strip().lower().partition(b"/")[0] in (b"h2c", b"tls") for offer in value.split(b","))


def is_valid_host(value: bytes) -> bool:
    """Return whether a Host header is `uri-host[:port]` (RFC 9112, section 3.2)."""
    found = _HOST.fullmatch(value) if len(value) <= _MAX_HOST_BYTES else None
    if found is None or int(found[2] or 0) > 65_535:
        return False
    if found[1] is not None:
        try:
            ipaddress.IPv6Address(found[1].decode("ascii"))
        except ValueError:
            return False
    return True


def origin_form(target: bytes) -> bytes:
    """Return path and query of a target, which may be an absolute URL. Raises httptools.HttpParserInvalidURLError."""
    if target.startswith(b"/") or target == b"*":
        return target
    url = httptools.parse_url(target)
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
