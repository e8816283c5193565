"""Hostile bytes at Runway: responses, memory, and service to other clients."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import MIB, Process, read_all, serving

HOST = b"Host: runway"
TENANT = b"X-Tenant-ID: vision"
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
UPGRADE = b"Connection: Upgrade"
SPEC = json.dumps(
    {"image": "runway.local/busybox:1", "command": ["true"], "resources": {"cpu": "100m", "memory": "64Mi"}}
).encode()
SLEEPER = SPEC.replace(b'["true"]', b'["sleep", "600"]')
UVICORN_IDLE_SECONDS = 5.0
"""Its default, which `Bounds.idle_seconds` replaces."""
END_SECONDS = 60.0
"""No connection of BYTES would end without the bounds of `tests.fuzz.served.BOUNDS`, of at most 5 s each."""


def head(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((line + b" HTTP/1.1", *fields, b"", b""))


def get(path: bytes, *fields: bytes) -> bytes:
    return head(b"GET " + path, HOST, *fields)


def post(body: bytes, *fields: bytes) -> bytes:
    return head(b"POST /v1/jobs", HOST, JSON, b"Content-Length: %d" % len(body), *fields) + body


def answers(received: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Return status, header fields and body of each response. Fails if the bytes are not HTTP/1.1."""
    found = []
    while received:
        first, _, received = received.partition(b"\r\n\r\n")
        line, *fields = first.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z '-]+", line)
        assert status is not None, line
        headers = {name.lower(): value for name, _, value in (field.partition(b": ") for field in fields)}
        length = int(headers.get(b"content-length", b"0"))
        assert len(received) >= length, "the body is cut off"
        found.append((int(status[1]), headers, received[:length]))
        received = received[length:]
    return found


def only_answer(received: bytes) -> tuple[int, dict[bytes, bytes], Any]:
    ((status, headers, body),) = answers(received)
    return status, headers, json.loads(body)


def problem_of(received: bytes) -> tuple[int, str]:
    status, headers, document = only_answer(received)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"].decode() == document["request_id"]
    return status, document["code"]


def is_served(server: Process) -> bool:
    return only_answer(server.send(get(b"/healthz", CLOSE)))[0] == 200


def submit(server: Process, body: bytes, *fields: bytes) -> tuple[int, dict[str, Any]]:
    status, _, document = only_answer(server.send(post(body, TENANT, CLOSE, *fields)))
    return status, document


def metric(server: Process, name: str) -> float:
    text = only_text(server.send(get(b"/metrics", CLOSE)))
    found = re.search(rf"^{name} ([0-9.e+]+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def only_text(received: bytes) -> str:
    ((status, _, body),) = answers(received)
    assert status == 200
    return body.decode()


def send_all(connection: socket.socket, piece: bytes, total: int) -> int:
    """Send `piece` until `total` bytes or the end of the connection. Return the bytes sent."""
    sent = 0
    with suppress(OSError):
        while sent < total:
            connection.sendall(piece)
            sent += len(piece)
    return sent


def hold_memory(server: Process, attack: Callable[[], object], mib: float) -> None:
    """Run an attack, and assert that the resident memory grows by less than `mib`."""
    server.reset_peak()
    start = server.memory() / MIB
    attack()
    peak, after = server.peak() / MIB, server.memory() / MIB
    print(f"\nresident memory: before {start:.0f} MiB, peak {peak:.0f} MiB, after {after:.0f} MiB")
    assert peak < start + mib
    assert is_served(server)
    assert server.faults() == []


def held_open(server: Process, request: bytes, count: int, stack: ExitStack) -> list[socket.socket]:
    """Open `count` connections until `stack` ends, and send `request` on each."""
    opened = []
    for _ in range(count):
        connection = stack.enter_context(server.connect())
        with suppress(OSError):
            connection.sendall(request)
        opened.append(connection)
    return opened


# --- Trailers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trailer", [b"X-More: and more\r\n" * 3640, b"a" * 65536, b"x: y\r\n" * 10000], ids=["fields", "line", "tiny"]
)
def test_endless_trailers_take_no_memory(hostile_server: Process, trailer: bytes) -> None:
    def attack() -> None:
        with hostile_server.connect() as connection:
            connection.sendall(head(b"POST /v1/jobs", HOST, TENANT, JSON, CHUNKED) + b"1\r\n{\r\n0\r\n")
            assert send_all(connection, trailer, 200 << 20) < 20 << 20, "the socket buffers of both ends"

    hold_memory(hostile_server, attack, 8)


def test_rejected_trailers_get_a_problem_before_any_response(hostile_server: Process) -> None:
    request = head(b"POST /v1/jobs", HOST, TENANT, JSON, CHUNKED) + b"2\r\n{}\r\n0\r\n"
    assert problem_of(hostile_server.send(request + b"a: b\r\n" * 130)) == (400, "malformed_request")


def test_rejected_trailers_close_the_connection_after_a_response(hostile_server: Process) -> None:
    with hostile_server.connect() as connection:
        connection.sendall(head(b"GET /healthz", HOST, CHUNKED) + b"1\r\na\r\n0\r\n")
        received = connection.recv(1000)
        send_all(connection, b"a: b\r\n", 6 * 130)
        assert only_answer(received + read_all(connection))[0] == 200


def test_tenant_in_a_trailer_is_ignored(hostile_server: Process) -> None:
    body = b"%x\r\n" % len(SPEC) + SPEC + b"\r\n0\r\n"
    request = head(b"POST /v1/jobs", HOST, JSON, CHUNKED, CLOSE) + body + b"X-Tenant-ID: vision\r\n\r\n"
    assert problem_of(hostile_server.send(request)) == (400, "tenant_required")


def test_small_trailers_are_ignored(hostile_server: Process) -> None:
    body = b"%x\r\n" % len(SPEC) + SPEC + b"\r\n0\r\nX-Checksum: 1\r\nX-Tenant-ID: speech\r\n\r\n"
    first = head(b"POST /v1/jobs", HOST, TENANT, JSON, CHUNKED) + body
    (status, _, created), (healthy, _, _) = answers(hostile_server.send(first + get(b"/healthz", CLOSE)))
    assert (status, json.loads(created)["tenant"], healthy) == (201, "vision", 200)


@pytest.mark.parametrize(
    "chunk", [b"1;" + b"e" * 60_000 + b"\r\na\r\n", b"1;x=y;z=12345\r\na\r\n"], ids=["long", "many"]
)
def test_endless_chunk_extensions_are_rejected(hostile_server: Process, chunk: bytes) -> None:
    with hostile_server.connect() as connection:
        connection.sendall(head(b"GET /healthz", HOST, CHUNKED))
        assert send_all(connection, chunk * 8, 50 << 20) < 10 << 20, "the socket buffers of both ends"
    assert is_served(hostile_server)


# --- Heads ------------------------------------------------------------------------------------------------------------


def test_more_than_128_header_fields_are_rejected(hostile_server: Process) -> None:
    fields = [b"a%d: b" % number for number in range(126)]
    assert only_answer(hostile_server.send(get(b"/healthz", CLOSE, *fields)))[0] == 200
    assert problem_of(hostile_server.send(get(b"/healthz", CLOSE, *fields, b"c: d"))) == (400, "malformed_request")


def test_unfinished_heads_take_no_memory(hostile_server: Process) -> None:
    def attack() -> None:
        with ExitStack() as stack:
            held_open(hostile_server, b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 127, 190, stack)

    hold_memory(hostile_server, attack, 20)


UPGRADES = {
    "WebSocket": (UPGRADE, b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
    "WebSocket without a key": (UPGRADE, b"Upgrade: websocket"),
    "without Connection": (b"Upgrade: websocket",),
    "another protocol": (UPGRADE, b"Upgrade: foo/2"),
    "h2c and another": (UPGRADE, b"Upgrade: h2c, websocket"),
}


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("case", UPGRADES, ids=str)
def test_upgrade_is_rejected_and_closes_the_connection(hostile_server: Process, case: str, method: bytes) -> None:
    request = head(method + b" /v1/jobs", HOST, TENANT, JSON, b"Content-Length: 2", *UPGRADES[case]) + b"{}"
    received = hostile_server.send(request)
    assert problem_of(received) == (400, "malformed_request")
    assert only_answer(received)[1][b"connection"] == b"close"


@pytest.mark.parametrize("offer", [b"h2c", b"H2C", b"TLS/1.2, TLS/1.3"])
def test_upgrade_offer_of_ordinary_clients_is_ignored(hostile_server: Process, offer: bytes) -> None:
    """Java's HttpClient and `curl --http2` send h2c with every plain request, Apache HttpClient TLS."""
    fields = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + offer, b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    status, headers, _ = only_answer(hostile_server.send(post(SPEC, TENANT, *fields)))
    assert (status, headers[b"connection"]) == (201, b"close")
    status, headers, _ = only_answer(hostile_server.send(get(b"/healthz", *fields)))
    assert (status, headers[b"connection"]) == (200, b"close")


def test_connect_is_rejected(hostile_server: Process) -> None:
    request = head(b"CONNECT runway:443", b"Host: runway:443")
    assert problem_of(hostile_server.send(request)) == (400, "malformed_request")


def test_connections_with_upgrade_all_close(hostile_server: Process) -> None:
    with ExitStack() as stack:
        request = get(b"/v1/jobs", UPGRADE, b"Upgrade: websocket")
        for connection in held_open(hostile_server, request, 600, stack):
            with suppress(ConnectionResetError):
                assert problem_of(read_all(connection)) == (400, "malformed_request")
    assert is_served(hostile_server)


HOSTS: dict[bytes, int] = {
    b"Host: runway": 200,
    b"Host: runway.example:8000": 200,
    b"Host: 127.0.0.1:0": 200,
    b"Host: [::1]:8000": 200,
    b"Host: [::ffff:127.0.0.1]": 200,
    b"Host: run%20way": 200,
    b"Host:": 400,
    b"Host: \t ": 400,
    b"Host: :80": 400,
    b"Host: runway:65536": 400,
    b"Host: runway:-1": 400,
    b"Host: runway:80:80": 400,
    b"Host: run way": 400,
    b"Host: runway/path": 400,
    b"Host: user@runway": 400,
    b"Host: [::1": 400,
    b"Host: [::1]x": 400,
    b"Host: [1.2.3.4]": 400,
    b"Host: ::1": 400,
    b"Host: run\xfcway": 400,
    b"Host: a\r\nHost: a": 400,
    b"X-Forwarded-Host: runway": 400,
}


@pytest.mark.parametrize("fields", HOSTS, ids=repr)
def test_host_is_one_name_or_address_with_an_optional_port(hostile_server: Process, fields: bytes) -> None:
    received = hostile_server.send(head(b"GET /healthz", CLOSE, fields))
    assert only_answer(received)[0] == HOSTS[fields]
    if HOSTS[fields] == 400:
        assert problem_of(received) == (400, "malformed_request")


def test_http_1_0_needs_no_host(hostile_server: Process) -> None:
    assert only_answer(hostile_server.send(b"GET /healthz HTTP/1.0\r\n\r\n"))[0] == 200
    assert problem_of(hostile_server.send(b"GET /healthz HTTP/2.0\r\n\r\n")) == (400, "malformed_request")


def test_http_1_0_ignores_upgrade(hostile_server: Process) -> None:
    """A server must ignore the offer: https://www.rfc-editor.org/rfc/rfc9110#section-7.8"""
    upgrade = b"GET /healthz HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    assert only_answer(hostile_server.send(upgrade))[0] == 200


def test_http_1_0_gets_no_100_continue(hostile_server: Process) -> None:
    fields = (TENANT, JSON, b"Expect: 100-continue", b"Content-Length: %d" % len(SPEC))
    request = b"\r\n".join((b"POST /v1/jobs HTTP/1.0", *fields, b"", SPEC))
    assert hostile_server.send(request).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("target", [b"http://runway/healthz", b"http://other:80/healthz?", b"HTTP://[::1]/healthz"])
def test_absolute_form_target_is_served_by_its_path(hostile_server: Process, target: bytes) -> None:
    assert only_answer(hostile_server.send(get(target, CLOSE)))[0] == 200


def test_absolute_form_target_without_path_is_the_root(hostile_server: Process) -> None:
    assert b"<html" in only_text(hostile_server.send(get(b"http://runway", CLOSE, b"Accept: text/html"))).encode()


def test_options_of_the_whole_server_lists_all_methods(hostile_server: Process) -> None:
    """Load balancers probe a server so: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.7"""
    (answer,) = answers(hostile_server.send(head(b"OPTIONS *", HOST, CLOSE)))
    assert (answer[0], answer[1][b"allow"], answer[2]) == (204, b"GET, HEAD, POST, DELETE, OPTIONS", b"")


def test_spaces_around_header_values_are_stripped(hostile_server: Process) -> None:
    first = submit(hostile_server, SPEC, b"Idempotency-Key: one key")
    second = submit(hostile_server, SPEC, b"Idempotency-Key: \t one key \t ")
    assert (first[0], second[0]) == (201, 200)
    assert first[1]["id"] == second[1]["id"]
    assert submit(hostile_server, SPEC, b"Idempotency-Key:  \t ")[0] == 422
    assert only_answer(hostile_server.send(post(SPEC, b"X-Tenant-ID: vision \t", CLOSE)))[0] == 201
    for tenant in (b"X-Tenant-ID: vi sion", b"X-Tenant-ID: vision\xa0", b"X-Tenant-ID : vision", b"X-Tenant-ID: a, b"):
        assert hostile_server.send(post(SPEC, tenant, CLOSE)).startswith(b"HTTP/1.1 400 ")


# --- Pipelining -------------------------------------------------------------------------------------------------------


def test_pipelined_responses_keep_the_order_of_requests(hostile_server: Process) -> None:
    requests = [get(b"/nowhere/%d" % number) for number in range(16)]
    found = answers(hostile_server.send(b"".join(requests) + get(b"/healthz", CLOSE)))
    assert [status for status, _, _ in found] == [404] * 16 + [200]
    assert all(f"/nowhere/{number}" in json.loads(found[number][2])["detail"] for number in range(16))


def test_malformed_request_gets_its_problem_after_earlier_responses(hostile_server: Process) -> None:
    (first, _, _), (second, _, _), (third, _, body) = answers(
        hostile_server.send(get(b"/healthz") + get(b"/nowhere") + b"no HTTP\r\n\r\n")
    )
    assert (first, second, third) == (200, 404, 400)
    assert json.loads(body)["code"] == "malformed_request"


def test_endless_pipelining_takes_no_memory(hostile_server: Process) -> None:
    def attack() -> None:
        with ExitStack() as stack:
            tiny = head(b"GET /openapi.json", b"Host:a")
            for connection in held_open(hostile_server, tiny * (262144 // len(tiny)), 100, stack):
                with suppress(ConnectionResetError):
                    while connection.recv(65536):
                        pass

    hold_memory(hostile_server, attack, 60)


def test_stream_ends_when_its_client_disconnects_with_a_queued_request(hostile_server: Process) -> None:
    _, job = submit(hostile_server, SLEEPER)
    with hostile_server.connect() as connection:
        connection.sendall(get(b"/v1/jobs/" + job["id"].encode() + b"/events", TENANT) + get(b"/healthz"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert metric(hostile_server, "runway_open_streams") == 1
    wait_for(lambda: metric(hostile_server, "runway_open_streams") == 0 or None, "the stream has ended")
    assert hostile_server.faults() == []


# --- Clients that close their sending side ----------------------------------------------------------------------------


def half_closed(server: Process, request: bytes) -> bytes:
    """Send a request, close the sending side, and return all that the server sends.

    The server is frozen meanwhile, or it may answer a short request before the end of it arrives.
    """
    with server.connect() as connection:
        with server.frozen():
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def test_half_closed_client_gets_its_responses_in_order(hostile_server: Process) -> None:
    created, read = answers(half_closed(hostile_server, post(SPEC, TENANT) + get(b"/v1/quota", TENANT)))
    assert created[0] == 201
    assert json.loads(created[2])["tenant"] == "vision"
    assert read[0] == 200
    assert read[1][b"connection"] == b"close"


@pytest.mark.parametrize(
    "sent", [post(SPEC, TENANT)[:-5], get(b"/healthz")[:-2], b"GET /"], ids=["body", "head", "line"]
)
def test_request_cut_off_by_its_client_gets_a_problem(hostile_server: Process, sent: bytes) -> None:
    assert problem_of(half_closed(hostile_server, sent)) == (400, "malformed_request")


def test_half_closed_client_gets_the_whole_log(hostile_server: Process) -> None:
    _, job = submit(hostile_server, SLEEPER)
    path = b"/v1/jobs/" + job["id"].encode()
    wait_for(lambda: b" 200 " in hostile_server.send(get(path + b"/logs", CLOSE))[:20] or None, "a log")
    received = half_closed(hostile_server, b"GET " + path + b"/logs HTTP/1.0\r\n\r\n")
    assert received.endswith(b"\r\n\r\n2026-11-24T08:00:00.000000000Z hello\n")


@pytest.mark.parametrize("path", [b"/events", b"/logs?follow=true"])
def test_half_closed_client_does_not_keep_a_stream(hostile_server: Process, path: bytes) -> None:
    """A client that has gone closes its side too, and would keep the stream of its tenant until the next line."""
    _, job = submit(hostile_server, SLEEPER)
    half_closed(hostile_server, get(b"/v1/jobs/" + job["id"].encode() + path, TENANT))
    assert metric(hostile_server, "runway_open_streams") == 0
    assert hostile_server.faults() == []


# --- Idle clients, and clients that do not read -----------------------------------------------------------------------


def test_idle_connections_do_not_block_a_new_client(tmp_path: Path) -> None:
    never = 10 * GUARD_SECONDS
    with serving(tmp_path, head_seconds=never, idle_seconds=never) as server, ExitStack() as stack:
        held_open(server, b"", 400, stack)
        held_open(server, b"GET / HT", 400, stack)
        assert is_served(server)
        held_open(server, b"", 100, stack)
        assert is_served(server)


def test_idle_connection_ends_after_its_own_time(tmp_path: Path) -> None:
    with serving(tmp_path, idle_seconds=0.2) as server:
        assert seconds_until_it_ends(server, get(b"/healthz"), b"") < UVICORN_IDLE_SECONDS


def test_connection_beyond_maximum_gets_503_with_retry_after(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=3) as server, ExitStack() as stack:
        _, job = submit(server, SLEEPER)
        for _ in range(3):
            stream = stack.enter_context(server.connect())
            stream.sendall(get(b"/v1/jobs/" + job["id"].encode() + b"/events", TENANT))
            assert stream.recv(1000).startswith(b"HTTP/1.1 200 ")
        received = server.send(b"")
        assert problem_of(received) == (503, "too_busy")
        assert int(only_answer(received)[1][b"retry-after"]) >= 1
        stack.close()
        wait_for(lambda: server.send(get(b"/healthz", CLOSE)).startswith(b"HTTP/1.1 200 ") or None, "a free connection")


def not_reading(server: Process, count: int, stack: ExitStack) -> None:
    """Open `count` connections that request 17 responses of about 130 KiB each, and read none."""
    for _ in range(count):
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(get(b"/openapi.json") * 17)


def test_clients_that_do_not_read_take_little_memory_and_are_disconnected(hostile_server: Process) -> None:
    def attack() -> None:
        with ExitStack() as stack:
            not_reading(hostile_server, 150, stack)
            reason = "the client did not read for"
            wait_for(lambda: hostile_server.log.read_text().count(reason) >= 150 or None, "all aborted")

    hold_memory(hostile_server, attack, 40)


def test_write_buffers_of_all_clients_that_do_not_read_are_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, max_stalled_bytes=1 << 20, stalled_seconds=30) as server, ExitStack() as stack:
        not_reading(server, 40, stack)
        wait_for(lambda: "too many bytes wait for clients" in server.log.read_text() or None, "one aborted")
        assert is_served(server)


def test_slow_bodies_of_one_tenant_do_not_block_others(hostile_server: Process) -> None:
    with ExitStack() as stack:
        slow = head(b"POST /v1/jobs", HOST, TENANT, JSON, b"Content-Length: 200000") + b"{" * 1000
        opened = held_open(hostile_server, slow, 64, stack)
        received = wait_for(
            lambda: found if (found := hostile_server.send(post(SPEC, TENANT, CLOSE)))[9:12] == b"503" else None,
            "the tenant at its bound",
        )
        assert problem_of(received) == (503, "too_busy")
        assert only_answer(hostile_server.send(post(SPEC, b"X-Tenant-ID: speech", CLOSE)))[0] == 201
        for connection in opened:
            assert read_all(connection) == b""
    wait_for(lambda: submit(hostile_server, SPEC)[0] == 201 or None, "the tenant below its bound")


@pytest.mark.parametrize("fields", [(CLOSE,), ()], ids=["close", "keep-alive"])
@pytest.mark.parametrize("mib", [1, 4, 16])
def test_client_that_sends_the_whole_body_first_can_read_the_413(
    hostile_server: Process, mib: int, fields: tuple[bytes, ...]
) -> None:
    with hostile_server.connect() as connection:
        connection.sendall(post(b" " * (mib << 20), TENANT, *fields))
        assert problem_of(read_all(connection)) == (413, "body_too_large")


def test_discarded_body_is_bounded(hostile_server: Process) -> None:
    def attack() -> None:
        with hostile_server.connect() as connection:
            connection.sendall(head(b"POST /v1/jobs", HOST, TENANT, JSON, b"Content-Length: 999999999"))
            assert send_all(connection, b" " * 65536, 200 << 20) < 60 << 20

    hold_memory(hostile_server, attack, 8)


CHUNKS = b"1\r\na\r\n"
BYTES: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "empty lines": (b"", b"\r\n"),
    "empty lines after a response": (get(b"/healthz"), b"\r\n"),
    "half a head": (b"GET / HTTP/1.1\r\nA: ", b""),
    "an endless head": (b"GET / HTTP/1.1\r\nA: ", b"a"),
    "half a head after a response": (get(b"/healthz") + b"GET /", b""),
    "a missing body": (post(SPEC, TENANT)[: -len(SPEC)], b""),
    "a missing body of GET": (get(b"/healthz", b"Content-Length: 9"), b""),
    "an endless body": (head(b"POST /v1/jobs", HOST, TENANT, JSON, CHUNKED), CHUNKS),
    "an endless body after its response": (get(b"/healthz", CHUNKED), CHUNKS),
    "an endless body after a rejection": (head(b"POST /v1/jobs", HOST, CHUNKED), CHUNKS),
    "endless trailers": (head(b"POST /v1/jobs", HOST, TENANT, JSON, CHUNKED) + b"0\r\n", b"a: b\r\n"),
    "endless trailers after the response": (get(b"/healthz", CHUNKED) + b"0\r\n", b"a: b\r\n"),
    "bytes after a rejection": (b"no HTTP\r\n\r\n", b"a"),
    "bytes after Upgrade": (get(b"/healthz", UPGRADE, b"Upgrade: websocket"), b"\0\xff"),
    "bytes after h2c": (get(b"/healthz", UPGRADE, b"Upgrade: h2c"), b"a"),
    "bytes after close": (get(b"/healthz", CLOSE), b"a"),
    "a body after Expect": (post(SPEC, TENANT, b"Expect: 100-continue")[: -len(SPEC)], b""),
    "a rejected request behind another": (get(b"/healthz") + b"no HTTP\r\n\r\n", b""),
}


def seconds_until_it_ends(server: Process, first: bytes, again: bytes) -> float:
    """Send `first`, then `again` every 0.2 s, so that the connection is never idle. Return its duration."""
    started = time.monotonic()
    with server.connect(0.2) as connection, suppress(ConnectionError):
        connection.sendall(first)
        while time.monotonic() < started + END_SECONDS:
            with suppress(TimeoutError):
                if not connection.recv(65536):
                    break
            connection.sendall(again)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def ends(hostile_server: Process) -> dict[str, float]:
    """Return the duration of each connection of BYTES. All run at the same time."""
    with ThreadPoolExecutor(len(BYTES)) as pool:
        running = {case: pool.submit(seconds_until_it_ends, hostile_server, *pair) for case, pair in BYTES.items()}
        return {case: future.result() for case, future in running.items()}


@pytest.mark.parametrize("case", BYTES, ids=str)
def test_every_connection_ends_in_time(hostile_server: Process, ends: dict[str, float], case: str) -> None:
    assert ends[case] < END_SECONDS
    assert hostile_server.faults() == []


# --- Random bytes -----------------------------------------------------------------------------------------------------

FUZZ_REQUESTS = 10
"""Of each of 40 clients."""
SEEDS: tuple[bytes, ...] = (
    get(b"/v1/jobs?limit=2", TENANT),
    post(SPEC, TENANT, b"Idempotency-Key: k"),
    head(b"POST /v1/jobs?dry_run=true", HOST, TENANT, JSON, CHUNKED) + b"2\r\n{}\r\n0\r\nA: b\r\n\r\n",
    get(b"/healthz", UPGRADE, b"Upgrade: h2c"),
    head(b"DELETE http://runway/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa", HOST, TENANT),
)
PIECES = (
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":",
    b"\0",
    b"\xff",
    b"0\r\n\r\n",
    b"HTTP/1.0",
    b"Host: a\r\n",
    CHUNKED,
    b"%ff",
    b"a" * 70_000,
)


def mutated(rng: random.Random) -> bytes:
    """Return one to three requests, each with up to three mutations."""
    sent = b""
    for _ in range(rng.randint(1, 3)):
        request = rng.choice(SEEDS)
        for _ in range(rng.randint(0, 3)):
            start = rng.randrange(len(request) + 1)
            end = min(len(request), start + rng.choice((0, 1, 1, 5, 40)))
            middle = rng.choice((b"", request[start:end] * 2, rng.randbytes(2), rng.choice(PIECES)))
            request = request[:start] + middle + request[end:]
        sent += request
    return sent + (get(b"/healthz", CLOSE) if rng.random() < 0.7 else b"")


async def _exchange(port: int, request: bytes) -> bytes:
    """Send the request in two pieces, and return all bytes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with suppress(ConnectionError):
        cut = len(request) // 2
        for piece in (request[:cut], request[cut:]):
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(END_SECONDS):
            while chunk := await reader.read(65536):
                received += chunk
    writer.close()
    return received


def test_mutated_requests_get_http_responses_and_never_500(hostile_server: Process) -> None:
    seed = int(os.environ.get("RUNWAY_FUZZ_SEED", random.randrange(2**32)))
    print(f"\nRUNWAY_FUZZ_SEED={seed}")
    rng = random.Random(seed)

    async def fuzz() -> int:
        count = 0

        async def one_after_another() -> None:
            nonlocal count
            for _ in range(FUZZ_REQUESTS):
                request = mutated(rng)
                received = await _exchange(hostile_server.port, request)
                for status, _, _ in answers(received):
                    assert status != 500, request
                count += 1

        await asyncio.gather(*[one_after_another() for _ in range(40)])
        return count

    count = asyncio.run(fuzz())
    print(f"{count} connections")
    assert count > 200
    assert hostile_server.faults() == []
