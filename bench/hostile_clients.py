"""HTTP clients as they are in the field: old, slow, half-closed, gone, behind a proxy. Each checks its own answers.

The right answer to each request is known: a status out of a few, a whole problem document, or a body equal to the log
that the job wrote. `busy` answers, 429 and 503 with Retry-After, are right for every request.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from bench.absurd_heads import HEADS
from bench.client import ANSWER_SECONDS, SLOW_SECONDS
from bench.findings import BUSY
from bench.raw_http import SPEC, Connection, get, post_head, read_answers
from bench.stream_clients import StreamClients

MIB: Final = 1 << 20
BODY_PIECE: Final = b" " * (64 << 10)
UNREAD_BODIES: Final = (
    (b"POST /v1/jobs?dry_run=true", 413),
    (b"POST /v1/jobs?dryrun=true", 422),
    (b"PUT /v1/jobs", 405),
    (b"POST /nothing", 404),
    (b"GET /v1/quota", 200),
)
"""Requests whose large body Runway does not need, and their statuses."""
KNOWN_PATHS: Final = ("/healthz", "/readyz", "/metrics", "/v1/jobs?limit=5", "/v1/quota", "/v1/policy", "/", "/jobs")


class HostileClients(StreamClients):
    """A mix of clients, in a random order by `act`."""

    __slots__ = ()

    async def act(self, kind: str | None = None) -> None:
        """Be one client of this kind, or of the next one, and check what it gets."""
        mix = self._mix()
        name = kind or self._next(mix)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await mix[name]()
        except TimeoutError:
            self.found.wrong.append(f"{name}: no end within {ANSWER_SECONDS:g} s")
        except ValueError as error:
            self.found.wrong.append(f"{name}: {error}")
        except ConnectionError as error:
            self.found.wrong.append(f"{name}: the connection broke: {error!r}")
        self.found.answers[name] += 1

    def _next(self, mix: Iterable[str]) -> str:
        if not self.due:
            self.due = [name for name in mix if name not in self.without]
            self.chance.shuffle(self.due)
        return self.due.pop()

    def _mix(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "old client": self.old_client,
            "sends first": self.sends_first,
            "half-closed": self.half_closed,
            "half-closed stream": self.half_closed_stream,
            "slow reader": self.slow_reader,
            "slow writer": self.slow_writer,
            "stops writing": self.stops_writing,
            "vanishes": self.vanishes,
            "absurd head": self.absurd_head,
            "pipelining": self.pipelining,
            "reuse after errors": self.reuse_after_errors,
            "HEAD and OPTIONS": self.head_and_options,
            "odd target": self.odd_target,
            "odd body": self.odd_body,
            "behind a proxy": self.behind_a_proxy,
            "log with breaks": self.log_with_breaks,
            "events with breaks": self.events_with_breaks,
        }

    async def old_client(self) -> None:
        """Speak HTTP/1.0, with and without keep-alive, to a page or a log."""
        keep = self.chance.choice((b"", b"Connection: keep-alive\r\n"))
        job = self._job()
        if job is None or self.chance.random() < 0.5:
            path = self.chance.choice(KNOWN_PATHS)
            answer = await self._whole(b"GET %s HTTP/1.0\r\n%s\r\n" % (path.encode(), keep))
            self.found.expect("old client", answer, {200}, path)
        else:
            answer = await self._whole(b"GET /v1/jobs/%s/logs HTTP/1.0\r\n%s\r\n" % (job.id.encode(), keep))
            self.found.expect_log("old client", answer, job)
        self.found.check("transfer-encoding" not in answer.fields, "old client: the body has chunks")
        is_delimited = "content-length" in answer.fields or answer.fields.get("connection") == "close"
        self.found.check(is_delimited, f"old client: the end of the body is unknown: {answer.fields}")

    async def sends_first(self) -> None:
        """Send a body of 1 to 16 MiB, and only then read, as urllib does."""
        line, status = self.chance.choice(UNREAD_BODIES)
        size = self.chance.choice((1, 1, 2, 4, 16)) * MIB
        port = self.chance.choice((self.port, *self.proxies))
        is_chunked = port == self.port and self.chance.random() < 0.3
        framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % size
        piece = b"%x\r\n%s\r\n" % (len(BODY_PIECE), BODY_PIECE) if is_chunked else BODY_PIECE
        async with Connection(port) as connection:
            await connection.send(post_head(self._tenant(), framing, line=line))
            for _ in range(size // len(BODY_PIECE)):
                await connection.send(piece)
            await connection.send(b"0\r\n\r\n" if is_chunked else b"")
            answer = await connection.read_answer()
        sent = f"{line!r} with {size} bytes, chunked {is_chunked}"
        self.found.expect("sends first", answer, {status}, sent, proxied=port != self.port)

    async def half_closed(self) -> None:
        """Close the sending side after the request, or within it, and read."""
        job = self._job()
        requests: list[tuple[bytes, frozenset[int]]] = [
            (get(self.chance.choice(KNOWN_PATHS)), frozenset({200})),
            (self._dry_run(), frozenset({200})),
            (self._dry_run()[:-5], frozenset({400})),
            (b"GET /v1/jobs HTTP/1.1\r\nHo", frozenset({400})),
        ]
        if job is not None:
            requests.append((get(f"/v1/jobs/{job.id}/logs"), frozenset()))
        request, statuses = self.chance.choice(requests)
        answer = await self._whole(request, half_closed=True)
        if statuses or job is None:
            self.found.expect("half-closed", answer, statuses, repr(request[:60]))
        else:
            self.found.expect_log("half-closed", answer, job)

    async def slow_writer(self) -> None:
        """Send a request a few bytes at a time."""
        request, statuses = self.chance.choice(((get("/v1/quota"), {200}), (self._dry_run(), {200})))
        count = self.chance.randint(5, 25)
        size = -(-len(request) // count)
        pieces = [request[start : start + size] for start in range(0, len(request), size)]
        async with Connection(self.port) as connection:
            await connection.send(*pieces, pause=SLOW_SECONDS / 2 / count)
            answer = await connection.read_answer()
        self.found.expect("slow writer", answer, statuses, f"{count} pieces")

    async def stops_writing(self) -> None:
        """Send a part of a request and nothing more: the server ends the connection in time."""
        request = self.chance.choice((b"", b"GET /", get("/")[:-2], self._dry_run()[:-3]))
        async with Connection(self.port) as connection:
            await connection.send(request)
            received = await connection.read_to_end()
        for answer in read_answers(received, ended=connection.has_ended) if received else []:
            self.found.expect("stops writing", answer, {400, 408}, repr(request[:40]))

    async def vanishes(self) -> None:
        """Go away within a request or a response, with a reset or without."""
        job = self._job()
        requests = [get("/metrics"), self._dry_run(), self._dry_run()[:-9], b"GET /v1/jo"]
        if job is not None:
            requests += [get(f"/v1/jobs/{job.id}/{part}") for part in ("events", "logs?follow=true", "logs")]
        async with Connection(self.port) as connection:
            await connection.send(self.chance.choice(requests))
            if self.chance.random() < 0.5:
                await asyncio.sleep(self.chance.uniform(0, 0.2))
            connection.vanish(with_reset=self.chance.random() < 0.5)

    async def absurd_head(self) -> None:
        """Send a head that no client library sends."""
        head, statuses = self.chance.choice(HEADS)
        self.found.expect("absurd head", await self._whole(head, lenient=True), statuses, repr(head[:60]))

    async def pipelining(self) -> None:
        """Send several requests at once: the responses have the order of the requests."""
        ids = [uuid.UUID(int=self.chance.getrandbits(128)).hex for _ in range(self.chance.randint(2, 10))]
        paths = [self.chance.choice((*KNOWN_PATHS, "/nothing")) for _ in ids]
        last = len(ids) - 1
        request = b"".join(
            get(path, f"X-Request-ID: {one}", *(["Connection: close"] if number == last else []))
            for number, (path, one) in enumerate(zip(paths, ids, strict=True))
        )
        async with Connection(self.port) as connection:
            await connection.send(request)
            answers = read_answers(await connection.read_to_end(), ended=connection.has_ended)
        found = [answer.fields.get("x-request-id") for answer in answers]
        self.found.check(
            found == ids, f"pipelining: {len(ids)} requests got {len(found)} responses, or in another order"
        )
        for answer, path in zip(answers, paths, strict=False):
            self.found.expect("pipelining", answer, {404} if path == "/nothing" else {200}, path)

    async def reuse_after_errors(self) -> None:
        """Send requests on one connection, of which some get errors."""
        tenant = self._tenant()
        small = b'{"image": 1}'
        post = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: {tenant}\r\nContent-Length: {len(small)}\r\n".encode()
        )
        cases: list[tuple[bytes, set[int]]] = [
            (get("/healthz"), {200}),
            (get("/nothing"), {404}),
            (get("/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa"), {404}),
            (get("/v1/jobs?limit=x"), {422}),
            (get("/v1/quota", "X-Tenant-ID: nobody"), {403}),
            (b"DELETE /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", {405}),
            (post + b"Content-Type: application/json\r\n\r\n" + small, {422}),
            (post + b"Content-Type: text/plain\r\n\r\n" + small, {415}),
            (b"GET /v1/quota HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", {200}),
        ]
        async with Connection(self.port) as connection:
            for _ in range(self.chance.randint(3, 12)):
                request, statuses = self.chance.choice(cases)
                await connection.send(request)
                answer = await connection.read_answer()
                self.found.expect("reuse after errors", answer, statuses, repr(request[:60]))
                if answer is None or answer.fields.get("connection") == "close":
                    self.found.check(answer is not None, f"reuse after errors: closed after {request[:60]!r}")
                    return

    async def head_and_options(self) -> None:
        """HEAD has status and headers of GET, and OPTIONS the methods."""
        job = self._job()
        paths = [*KNOWN_PATHS, "/nothing"] + ([f"/v1/jobs/{job.id}"] if job else [])
        path = self.chance.choice(paths)
        got = await self._whole(get(path, "Connection: close"))
        head = await self._whole(get(path, "Connection: close", method="HEAD"), to_head=True)
        if not {got.status, head.status} & {*BUSY, 404}:  # A job may be deleted between the two.
            self.found.check(got.status == head.status, f"HEAD {path} is {head.status}, GET {got.status}")
            kinds = got.fields.get("content-type"), head.fields.get("content-type")
            self.found.check(kinds[0] == kinds[1], f"HEAD {path} has the type {kinds[1]}, GET {kinds[0]}")
        options = await self._whole(get(path, "Connection: close", method="OPTIONS"))
        if path == "/nothing":
            self.found.expect("OPTIONS", options, {404}, path)
            return
        self.found.check(options.status == 204, f"OPTIONS {path} is {options.status}")
        self.found.check(
            "GET" in options.fields.get("allow", ""), f"OPTIONS {path} allows {options.fields.get('allow')}"
        )

    async def odd_target(self) -> None:
        """A trailing slash, a repeated or unknown parameter, an absolute-form target."""
        path, statuses = self.chance.choice(
            (
                ("/v1/jobs/", {404}),
                ("/v1/quota/", {404}),
                ("//v1/jobs", {404}),
                ("/v1/jobs?limit=1&limit=2", {422}),
                ("/v1/jobs?nonsense=1", {422}),
                ("/v1/jobs?limit=%zz", {422}),
                ("http://runway.example.com/v1/jobs?limit=1", {200}),
                ("https://runway.example.com:443/v1/quota", {200}),
                ("/v1/jobs?", {200}),
            )
        )
        self.found.expect("odd target", await self._whole(get(path, "Connection: close")), statuses, path)

    async def odd_body(self) -> None:
        """Chunks of one byte, trailers, Expect, an empty chunk extension: a valid submission in another form."""
        spec = SPEC
        chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in spec)
        by_length = b"Content-Length: %d" % len(spec)
        framing, body = self.chance.choice(
            (
                (b"Transfer-Encoding: chunked", chunks + b"0\r\n\r\n"),
                (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\nA: b\r\n\r\n" % (len(spec), spec)),
                (by_length + b"\r\nExpect: 100-continue", spec),
                (by_length + b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: ", spec),
            )
        )
        async with Connection(self.port) as connection:
            await connection.send(post_head(self._tenant(), framing), body)
            answer = await connection.read_answer()
        self.found.expect("odd body", answer, {200}, repr(framing))
