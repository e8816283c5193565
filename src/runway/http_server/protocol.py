"""The HTTP protocol class that uvicorn runs: `--http runway.http_server.protocol:BoundedHttpProtocol --ws none`.

It reads; `http_server.connection` decides.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.server import ServerState

from runway.http_server.bounds import Bounds
from runway.http_server.connection import HttpConnection
from runway.http_server.connection_table import ConnectionTable

_tables: WeakKeyDictionary[ServerState, ConnectionTable] = WeakKeyDictionary()
"""The connections of each server in this process: one, except in tests."""


class BoundedHttpProtocol(asyncio.BufferedProtocol):
    """What uvicorn starts for a connection: it reads pieces of `READ_BYTES` and hands them to `HttpConnection`.

    uvicorn's own protocol is given up to 256 KiB at once by uvloop, and cannot be a BufferedProtocol.
    """

    bounds: ClassVar[Bounds] = Bounds()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        table = _tables.get(server_state)
        if table is None:
            table = _tables[server_state] = ConnectionTable(self.bounds)
        self._connection = HttpConnection(config, server_state, app_state, _loop, self.bounds, table)
        self._buffer = table.buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)  # type: ignore[arg-type]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the interface of asyncio)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.data_received(self._buffer[:nbytes])

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
