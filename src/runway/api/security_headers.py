"""Headers of every answer that tell a browser what it may do with it: by default nothing. Pure ASGI.

An answer that has one of them already keeps its own: a page has a policy that allows its own files
(`console/pages.py`).
https://www.w3.org/TR/CSP3/
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Raw, as ASGI has them. No cache may keep an answer: what it shows depends on the tenant header."""


class SecurityHeaders:
    """Adds the headers to the answers of everything inside it: routes, pages, streams and problems."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_security_headers(message.get("headers", ()))
            await send(message)

        await self.app(scope, receive, send_with_headers)


def with_security_headers(headers: Collection[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """These headers, and those of the security headers that are not among them."""
    found = dict(headers)
    return [*headers, *(header for header in SECURITY_HEADERS if header[0] not in found)]
