"""Sockets of outgoing connections that never close the descriptor of another one."""

from __future__ import annotations

import os
import socket


class ClientSocket(socket.socket):
    """A socket that, when it is collected, closes its descriptor only if it still has it.

    uvloop 0.23 closes the descriptor of a connection that is reset while it opens, but leaves its number in the socket
    object. Python would close that number a second time, and by then it can belong to another connection, for example
    of a client. https://github.com/MagicStack/uvloop/issues/653
    """

    def __init__(self, family: int, kind: int, protocol: int) -> None:
        super().__init__(family, kind, protocol)
        self._inode = os.fstat(self.fileno()).st_ino

    def __del__(self) -> None:
        descriptor = self.detach()
        if descriptor >= 0 and _inode(descriptor) == self._inode:
            os.close(descriptor)


def client_socket(address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """Return a socket for this result of getaddrinfo: the `socket_factory` of an aiohttp connector."""
    family, kind, protocol, *_ = address
    return ClientSocket(family, kind, protocol)


def _inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:  # Nobody has this descriptor now.
        return None
