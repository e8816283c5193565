"""The end of a pod's log, read in bounded time and memory, for the record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from runway.errors import ClusterError
from runway.jobs.log_excerpt import RAW_BYTES
from runway.kube.client import KubeClient

TAIL_LINES: Final = 100
MAX_BYTES: Final = 1 << 20
"""Read at once; lines that are longer are read again, the last one alone. The runtime cuts lines at 16 KiB."""
READ_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log. `cut`: there was more before it; `whole`: it was read to where it ends."""

    log: bytes
    cut: bool
    whole: bool


async def read_tail(kubernetes: KubeClient, namespace: str, pod: str) -> LogTail:
    """The end of the log of a container that has ended.

    Raises TimeoutError, ObjectMissing where the pod is gone, Refused where it has no log, or why the read failed.
    """
    async with asyncio.timeout(READ_SECONDS):
        for lines in (TAIL_LINES, 1):
            chunks = kubernetes.read_log(namespace, pod, follow=False, tail=lines, timestamps=False, idle=READ_SECONDS)
            end = _TailBuffer()
            if await end.take(chunks, MAX_BYTES):
                break
    return end.result(whole=True)


async def follow_tail(kubernetes: KubeClient, namespace: str, pod: str, seconds: float) -> LogTail:
    """The end of the log of a container that was told to end, once it has, or as far as it came in so many seconds.

    Raises ObjectMissing, Refused or why the read failed, where there was nothing before.
    """
    chunks = kubernetes.read_log(namespace, pod, follow=True, tail=TAIL_LINES, timestamps=False, idle=seconds)
    end = _TailBuffer()
    try:
        async with asyncio.timeout(seconds):
            await end.take(chunks)
    except (ClusterError, TimeoutError) as error:
        if not end.read and isinstance(error, ClusterError):
            raise
        return end.result(whole=False)
    return end.result(whole=True)


class _TailBuffer:
    """The last bytes of what was read, and how many that was in all."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.read = 0

    async def take(self, chunks: AsyncGenerator[bytes, None], most: int | None = None) -> bool:
        """Read to the end; False where that is more than `most` bytes."""
        async with aclosing(chunks):
            async for chunk in chunks:
                self.read += len(chunk)
                self._kept += chunk
                del self._kept[:-RAW_BYTES]
                if most is not None and self.read > most:
                    return False
        return True

    def result(self, *, whole: bool) -> LogTail:
        return LogTail(bytes(self._kept), self.read > len(self._kept), whole)
