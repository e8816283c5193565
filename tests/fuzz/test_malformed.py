"""Malformed requests get a problem with a request id, and cause no internal error."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

import pytest

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import Process


def _get(path: bytes, *headers: bytes) -> bytes:
    return _request(b"GET " + path, *headers)


def _post(*headers: bytes, body: bytes = b"{}") -> bytes:
    return _request(b"POST /v1/jobs", b"X-Tenant-ID: vision", b"Content-Type: application/json", *headers) + body


def _request(what: bytes, *headers: bytes) -> bytes:
    lines = (what + b" HTTP/1.1", b"Host: runway", b"Connection: close", *headers, b"", b"")
    return b"\r\n".join(lines)


NOT_HTTP = (400, "malformed_request")
CHUNKED = b"Transfer-Encoding: chunked"
HANDSHAKE = (
    b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip

REQUESTS: dict[str, tuple[bytes, tuple[int, str]]] = {
    "no HTTP at all": (b"hello\r\n\r\n", NOT_HTTP),
    "TLS": (bytes.fromhex("16030100a5010000a10303") + bytes(100), NOT_HTTP),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NOT_HTTP),
    "an unknown method": (_request(b"BREW /v1/jobs"), NOT_HTTP),
    "a path that is not ASCII": (_get(b"/v1/jobs/\xff\xfe"), NOT_HTTP),
    "a path of 300,000 letters": (_get(b"/" + b"a" * 300_000), NOT_HTTP),
    "a path that is not UTF-8": (_get(b"/v1/jobs/%ff%00"), (404, "job_not_found")),
    "a path of line breaks": (_get(b"/%0d%0aSet-Cookie:%20a=b"), (404, "not_found")),
    "a path with two slashes": (_get(b"//v1/jobs"), (404, "not_found")),
    "no path": (_request(b"GET *"), (404, "not_found")),
    "NUL in a header": (_get(b"/v1/jobs", b"X-Tenant-ID: a\0b"), NOT_HTTP),
    "a folded header": (_get(b"/v1/jobs", b"X-Tenant-ID: a\r\n b"), NOT_HTTP),
    "Latin-1 in a header": (_get(b"/v1/jobs", b"X-Tenant-ID: \xf6"), (400, "tenant_required")),
    "a header of 60 kB": (_get(b"/v1/jobs", b"X-Tenant-ID: " + b"a" * 60_000), (400, "tenant_required")),
    "headers of more than 64 kB": (_get(b"/v1/jobs", *[b"X-%d: " % n + b"a" * 600 for n in range(110)]), NOT_HTTP),
    "a negative length": (_post(b"Content-Length: -5"), NOT_HTTP),
    "two lengths": (_post(b"Content-Length: 2", b"Content-Length: 3"), NOT_HTTP),
    "a length and chunks": (_post(b"Content-Length: 2", CHUNKED, body=b"0\r\n\r\n"), NOT_HTTP),
    "a length of 23 digits": (_post(b"Content-Length: 99999999999999999999999"), NOT_HTTP),
    "a length over the bound": (_post(b"Content-Length: 999999"), (413, "body_too_large")),
    "an invalid chunk": (_post(CHUNKED, body=b"zz\r\n{}\r\n0\r\n\r\n"), NOT_HTTP),
    "two keys": (
        _post(b"Idempotency-Key: a", b"Idempotency-Key: b", b"Content-Length: 2"),
        (422, "invalid_parameter"),
    ),
    "a WebSocket": (b"\r\n".join((b"GET /v1/jobs HTTP/1.1", b"Host: a", *HANDSHAKE, b"", b"")), NOT_HTTP),
}


@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_malformed_request_gets_its_problem(served: Process, case: str) -> None:
    request, (status, code) = REQUESTS[case]
    head, _, body = served.send(request).partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    problem = json.loads(body)
    assert lines[0].split()[1] == str(status)
    assert problem["code"] == code
    assert "content-type: application/problem+json" in lines
    assert "x-content-type-options: nosniff" in lines
    assert f"x-request-id: {problem['request_id']}" in lines
    assert not any(line.startswith("set-cookie") for line in lines)
    assert served.faults() == []


@pytest.mark.parametrize(
    "head", [b"GET /v1/jobs HTTP/1.1\r\nX-Endless: ", b"GET /v1/jobs HTTP/1.1\r\n"], ids=["one", "many"]
)
def test_endless_headers_are_bounded(served: Process, head: bytes) -> None:
    piece = b"a" * 10_000 if head.endswith(b": ") else b"X-More: and more\r\n" * 500
    sent = 0
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=GUARD_SECONDS) as connection,
        suppress(ConnectionError),
    ):
        connection.sendall(head)
        while sent < 100_000_000:
            connection.sendall(piece)
            sent += len(piece)
    assert sent < 10_000_000, "the socket buffers of both ends"
    assert b"200 OK" in served.send(_get(b"/healthz"))
    assert served.faults() == []


@pytest.mark.parametrize("begun", [b"", b"GET /v1/jobs HTTP/1.1\r\nX-Tenant-ID: vi"], ids=["nothing", "half a head"])
def test_connection_without_a_whole_head_is_closed(served: Process, begun: bytes) -> None:
    assert served.send(begun) == b""


def test_connection_with_incomplete_second_head_is_closed(served: Process) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: runway\r\n\r\n"
    answer = served.send(whole + whole[:-2])
    assert answer.count(b"200 OK") == 1


def test_disconnect_within_a_body_is_not_an_error(served: Process) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=GUARD_SECONDS) as connection:
        connection.sendall(_post(b"Content-Length: 200", body=b"{"))
    wait_for(
        lambda: "client disconnected before its request was complete" in served.log.read_text(encoding="utf-8") or None,
        "Runway has noticed",
    )
    assert b"200 OK" in served.send(_get(b"/healthz"))
    assert served.faults() == []
