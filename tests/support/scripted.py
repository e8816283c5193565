"""A transport with scripted answers that records requests and sleeps."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from runway.errors import RunwayError
from runway.kube.transport import Response, UnexpectedStatus
from tests.support.builders import Json


class ScriptEnded(Exception):
    """A request came after the last answer, which ends a test."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The response to a watch: chunks, then a normal end or a broken connection after some seconds."""

    chunks: Sequence[bytes] = ()
    broken: RunwayError | None = None
    seconds: float = 0


Step = Response | Watched | RunwayError


@dataclass(slots=True)
class Script:
    """Returns its steps one after the other for any method, then raises ScriptEnded."""

    steps: list[Step]
    trace: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    now: float = 0

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        assert (method, body, content_type) == ("GET", None, "application/json")
        assert seconds > 0
        step = self._next("list" if "continue" not in query else f"list from {query['continue']}", path, query)
        assert isinstance(step, Response)
        return step

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        assert idle is not None, "a watch without an idle timeout can be silent forever"
        step = self._next(f"watch from {query['resourceVersion']}", path, query)
        if isinstance(step, Response):
            raise UnexpectedStatus(step)
        yield b""
        for chunk in step.chunks:
            yield chunk
        self.now += step.seconds
        if step.broken is not None:
            raise step.broken

    async def sleep(self, seconds: float) -> None:
        """Record the duration and return at once."""
        self.trace.append(f"sleep {seconds:g}")

    def _next(self, asked: str, path: str, query: Mapping[str, str]) -> Response | Watched:
        if not self.steps:
            raise ScriptEnded
        self.trace.append(asked)
        self.queries.append({"path": path, **query})
        step = self.steps.pop(0)
        if isinstance(step, RunwayError):
            raise step
        return step


def listed(version: int, *objects: Json, after: str | None = None) -> Response:
    """Return a page of a list; `after` is the token of the next page."""
    metadata: Json = {"resourceVersion": str(version)}
    if after is not None:
        metadata["continue"] = after
    return Response(200, json.dumps({"kind": "JobList", "metadata": metadata, "items": list(objects)}).encode())


def refused(status: int, message: str = "refused", reason: str | None = None) -> Response:
    """Return an error response with the Status of the API server."""
    document = {"kind": "Status", "code": status, "reason": reason, "message": message}
    return Response(status, json.dumps(document).encode())


def item(name: str, version: int) -> Json:
    """Return a minimal object."""
    return {"metadata": {"name": name, "namespace": "runway-vision", "uid": name, "resourceVersion": str(version)}}


def line(type_: str, content: Json) -> bytes:
    """Return one watch event as a line of JSON."""
    return json.dumps({"type": type_, "object": content}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """Return a bookmark."""
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version), "creationTimestamp": None}})


def expired() -> bytes:
    """Return the error event of an expired resourceVersion."""
    return line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
