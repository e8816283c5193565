"""Read the end of a pod's log in bounded time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from runway.errors import ClusterError
from runway.kube.client import KubeClient

TAIL_LINES: Final = 100
MAX_READ_BYTES: Final = 1 << 20
"""Bytes read of `TAIL_LINES`; beyond it only the last line is read. The container runtime cuts lines at 16 KiB."""
READ_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log. `cut`: it continues before this; `whole`: it was read to its end."""

    log: bytes
    cut: bool
    whole: bool


async def read_tail(kubernetes: KubeClient, namespace: str, pod: str, max_bytes: int) -> LogTail:
    """Read the last `max_bytes` of the log of a terminated container.

    Raises TimeoutError, NotFound if the pod is deleted, Rejected if it has no log, or the error of the read.
    """
    async with asyncio.timeout(READ_SECONDS):
        for lines in (TAIL_LINES, 1):
            chunks = kubernetes.read_log(namespace, pod, follow=False, tail=lines, timestamps=False, idle=READ_SECONDS)
            buffer = _TailBuffer(max_bytes)
            if await buffer.fill(chunks, MAX_READ_BYTES):
                break
    return buffer.result(whole=True)


async def follow_tail(kubernetes: KubeClient, namespace: str, pod: str, max_bytes: int, seconds: float) -> LogTail:
    """Follow the log of a terminating container for at most `seconds`, and return its last `max_bytes`.

    Raises NotFound, Rejected or the error of the read, if nothing was read before.
    """
    chunks = kubernetes.read_log(namespace, pod, follow=True, tail=TAIL_LINES, timestamps=False, idle=seconds)
    buffer = _TailBuffer(max_bytes)
    try:
        async with asyncio.timeout(seconds):
            await buffer.fill(chunks)
    except (ClusterError, TimeoutError) as error:
        if not buffer.bytes_read and isinstance(error, ClusterError):
            raise
        return buffer.result(whole=False)
    return buffer.result(whole=True)


class _TailBuffer:
    """The last bytes of a stream, and the number of bytes read."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tail = bytearray()
        self.bytes_read = 0

    async def fill(self, chunks: AsyncGenerator[bytes, None], max_read_bytes: int | None = None) -> bool:
        """Read to the end; stop and return False after more than `max_read_bytes`."""
        async with aclosing(chunks):
            async for chunk in chunks:
                self.bytes_read += len(chunk)
                self._tail += chunk
                del self._tail[: -self._max_bytes]
                if max_read_bytes is not None and self.bytes_read > max_read_bytes:
                    return False
        return True

    def result(self, *, whole: bool) -> LogTail:
        return LogTail(bytes(self._tail), self.bytes_read > len(self._tail), whole)
