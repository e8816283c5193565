"""A streaming ASGI client: reads a response in parts and can disconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

from starlette.types import ASGIApp, Message

from runway.api.streaming import HALF_CLOSED
from testbed.waiting import GUARD_SECONDS


class StreamingClient:
    """One GET. As a context manager it sends the request on entry and disconnects on exit.

    While `reading` is not set, the client applies back-pressure. `ended` is True after a complete response, False after
    an aborted one, and None until then.
    """

    def __init__(self, app: ASGIApp, path: str, headers: Mapping[str, str]) -> None:
        path, _, query = path.partition("?")
        self._app = app
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().replace("_", "-").encode(), text.encode("latin-1"))
                        for name, text in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {HALF_CLOSED: asyncio.Event()},
        }  # fmt: skip
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended: bool | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._asked = False
        self._whole = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go()

    async def go(self) -> None:
        """Disconnect, and wait until the application has noticed."""
        self._gone.set()
        self.reading.set()
        async with asyncio.timeout(GUARD_SECONDS):
            await self._task

    def close_sending_side(self) -> None:
        """Close one direction, as a client does that still reads, and one that has gone."""
        self._scope["extensions"][HALF_CLOSED].set()

    async def begun(self) -> int:
        """Wait for the response head and return the status."""
        await self._until(lambda: self.status != 0)
        return self.status

    async def until(self, text: bytes) -> bytes:
        """Wait until the body contains these bytes and return it."""
        await self._until(lambda: text in self.body)
        return self.body

    async def end(self) -> bytes:
        """Wait until the response has ended, complete or not, and return the body."""
        await self._until(lambda: self.ended is not None)
        return self.body

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object."""
        return dict(json.loads(self.body))

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            while not condition():
                if self._task.done() and self._task.exception() is not None:
                    await self._task
                self._news.clear()
                await self._news.wait()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self.ended = self._whole
            self._news.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): text.decode() for name, text in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self._whole = not message.get("more_body", False)
        self._news.set()
