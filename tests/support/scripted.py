"""A transport that answers from a script, and keeps a trace of what was asked and how long was slept."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from runway.errors import RunwayError
from runway.kube.transport import Response, UnexpectedStatus
from tests.support.builders import Json


class ScriptEnded(Exception):
    """Something was asked that the script has no answer for: the end of a test."""


@dataclass(frozen=True, slots=True)
class Watched:
    """An answer to a watch: its chunks, then a clean end or a broken connection."""

    chunks: Sequence[bytes] = ()
    broken: RunwayError | None = None


Step = Response | Watched | RunwayError


@dataclass(slots=True)
class Script:
    """Gives its steps one after the other, whichever method asks, then raises ScriptEnded."""

    steps: list[Step]
    trace: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        assert (method, body, content_type) == ("GET", None, "application/json")
        assert seconds > 0
        step = self._next("list" if "continue" not in query else f"list from {query['continue']}", path, query)
        assert isinstance(step, Response)
        return step

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        assert idle is not None, "a watch without a time-out can be silent for ever"
        step = self._next(f"watch from {query['resourceVersion']}", path, query)
        if isinstance(step, Response):
            raise UnexpectedStatus(step)
        yield b""
        for chunk in step.chunks:
            yield chunk
        if step.broken is not None:
            raise step.broken

    async def sleep(self, seconds: float) -> None:
        """Keeps how long was to be slept, and does not."""
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
    """A page of a list; `after` is the token of the next one."""
    metadata: Json = {"resourceVersion": str(version)}
    if after is not None:
        metadata["continue"] = after
    return Response(200, json.dumps({"kind": "JobList", "metadata": metadata, "items": list(objects)}).encode())


def refused(status: int, message: str = "refused") -> Response:
    """An answer that is no success, with the Status the API server sends."""
    return Response(status, json.dumps({"kind": "Status", "code": status, "message": message}).encode())


def item(name: str, version: int) -> Json:
    """The least there is of an object."""
    return {"metadata": {"name": name, "namespace": "runway-vision", "uid": name, "resourceVersion": str(version)}}


def line(type_: str, content: Json) -> bytes:
    """One event of a watch, as it stands on the wire."""
    return json.dumps({"type": type_, "object": content}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """A bookmark, which says how far the watch has come."""
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version), "creationTimestamp": None}})


def expired() -> bytes:
    """The event that tells a watch that its version is too old."""
    return line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
