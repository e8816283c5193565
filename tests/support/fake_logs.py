"""A fake container log as the kubelet serves it, with broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runway.kube.transport import Response, UnexpectedStatus

SECOND = 10**9
START = 1_795_507_200 * SECOND
"""2026-11-24T08:00:00Z"""


@dataclass(frozen=True)
class Record:
    """One record of the container runtime's log file: a line, or with `partial` a part of one."""

    time: int
    text: bytes
    partial: bool = False


def stamp(time: int) -> bytes:
    """Format a time like the kubelet."""
    moment = datetime.fromtimestamp(time // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{time % SECOND:09}Z".encode()


def kubelet(records: list[Record], since: datetime | None = None, *, timestamps: bool = True) -> bytes:
    """Return the kubelet's output for a log file.

    `since` omits records, not lines. A line has its time only before its first record, even if that one is omitted.
    https://github.com/kubernetes/cri-client/blob/v0.35.0/pkg/logs/logs.go
    """
    out = bytearray()
    at_line_start = True
    for record in records:
        if since is None or record.time >= since.timestamp() * SECOND:
            out += (stamp(record.time) + b" " if at_line_start and timestamps else b"") + record.text
            out += b"" if record.partial else b"\n"
        at_line_start = not record.partial
    return bytes(out)


@dataclass
class Cut:
    """The end of a connection: after `after` bytes, with `error` or normally."""

    after: int
    error: Exception | None = None
    said: bytes = b""
    """Bytes that the kubelet sends at the end instead of the rest of the log."""


@dataclass
class FakeLog:
    """A log with lines a microsecond apart. `cuts` apply to the next connections in order."""

    records: list[Record] = field(default_factory=list)
    ended: bool = False
    cuts: list[Cut] = field(default_factory=list)
    queries: list[Mapping[str, str]] = field(default_factory=list)
    file_start: int = 0
    """The index of the first record in the newest file: the kubelet rotated the records before it away."""
    open: int = 0
    """The number of open connections."""
    stuck: bool = False
    """Whether connections are accepted and never answered."""
    refusals: list[Response] = field(default_factory=list)
    """Error responses for the next connections."""
    _dropped: Exception | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, text: bytes) -> FakeLog:
        """Create the complete log of a container that writes nothing more."""
        log = cls(ended=True)
        log.write(*text.removesuffix(b"\n").split(b"\n"))
        return log

    def write(self, *lines: bytes, partial: bool = False, step: int = 1000) -> None:
        """Write lines, or parts of one, `step` nanoseconds apart."""
        for line in lines:
            last = self.records[-1].time if self.records else START
            self.records.append(Record(last + step, line, partial))
        self._news.set()

    def rotate(self) -> None:
        """Start a new file. Open connections continue as in the kubelet, without a gap."""
        self.file_start = len(self.records)

    def end(self) -> None:
        """End the log, as when the container exits."""
        self.ended = True
        self._news.set()

    def drop(self, error: Exception) -> None:
        """Break the open connection."""
        self._dropped = error
        self._news.set()

    async def serve(self, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Serve one connection; with `follow`, until the end of the log."""
        if "limitBytes" in query:
            yield kubelet(self.records[self.file_start :])[: int(query["limitBytes"])]
            return
        self.queries.append(dict(query))
        cut = self.cuts.pop(0) if self.cuts else None
        timestamps = query.get("timestamps") == "true"
        since = datetime.fromisoformat(query["sinceTime"]) if "sinceTime" in query else None
        first = (
            max(self.file_start, len(self.records) - int(query["tailLines"]))
            if "tailLines" in query
            else self.file_start
        )
        if self.refusals:
            raise UnexpectedStatus(self.refusals.pop(0))
        self.open += 1
        sent = 0
        try:
            if self.stuck:
                await asyncio.Event().wait()
            yield b""
            while True:
                self._news.clear()
                rest = kubelet(self.records[first:], since, timestamps=timestamps)[sent:]
                if cut and sent + len(rest) >= cut.after:
                    yield rest[: cut.after - sent] + cut.said
                    if cut.error:
                        raise cut.error
                    return
                yield rest
                sent += len(rest)
                if self.ended or query.get("follow") != "true":
                    return
                await self._news.wait()
                if self._dropped:
                    error, self._dropped = self._dropped, None
                    raise error
        finally:
            self.open -= 1
