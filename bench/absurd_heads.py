"""Requests that no client library sends, and the statuses with which a server refuses each."""

from __future__ import annotations

from typing import Final

HEADS: Final[tuple[tuple[bytes, frozenset[int]], ...]] = tuple(
    (head, frozenset(statuses))
    for head, *statuses in (
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 140 + b"\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 400),
        (b"BREW /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"TRACE /v1/jobs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
        (b"PUT /v1/jobs HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /%00%ff%2e%2e%2f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/jobs/../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/jobs/%F0%9F%9A%80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/jobs?cursor=%ff%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 422),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: A B\r\nConnection: close\r\n\r\n", 400),
    )
)
