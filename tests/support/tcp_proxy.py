"""A TCP proxy on loopback whose connections a test can reset, silence or refuse."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

from testbed.waiting import GUARD_SECONDS


class TcpProxy:
    """Forwards `port` to `host:port`. A context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._refusing = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread that waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def forward_to(self, host: str, port: int) -> None:
        """Forward new connections to another server."""
        self._target = (host, port)

    def cut(self) -> int:
        """Reset every connection. Returns their number."""
        with self._lock:
            ends, self._open, self._silent = self._open, set(), set()
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        return len(ends) // 2

    def silence(self) -> int:
        """Drop all further bytes of the open connections, which stay open. Returns their number."""
        with self._lock:
            self._silent |= self._open
            return len(self._open) // 2

    def refuse(self) -> int:
        """Reset every connection, and close new ones until `accept`. Returns the number of reset connections."""
        self._refusing = True
        return self.cut()

    def accept(self) -> None:
        """Forward new connections again."""
        self._refusing = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=GUARD_SECONDS)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                if self._refusing:
                    client.close()
                    server.close()
                    continue
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silent:
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            owned = source in self._open
            self._open.discard(source)
            self._silent.discard(source)
        if owned:
            source.close()
