"""The end of a pod's log, read in bounded time and memory, for the record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from runway.cluster.client import Kubernetes
from runway.errors import ClusterError
from runway.jobs.excerpt import RAW_BYTES

TAIL_LINES: Final = 100
MOST_BYTES: Final = 1 << 20
"""Read at once; lines that are longer are read again, the last one alone. The runtime cuts lines at 16 KiB."""
READ_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log. `cut`: there was more before it; `whole`: it was read to where it ends."""

    log: bytes
    cut: bool
    whole: bool


async def read_end(kubernetes: Kubernetes, namespace: str, pod: str) -> LogEnd:
    """The end of the log of a container that has ended.

    Raises TimeoutError, ObjectMissing where the pod is gone, Refused where it has no log, or why the read failed.
    """
    async with asyncio.timeout(READ_SECONDS):
        for lines in (TAIL_LINES, 1):
            chunks = kubernetes.read_log(namespace, pod, follow=False, tail=lines, timestamps=False, idle=READ_SECONDS)
            end = _End()
            if await end.take(chunks, MOST_BYTES):
                break
    return end.so_far(whole=True)


async def follow_end(kubernetes: Kubernetes, namespace: str, pod: str, seconds: float) -> LogEnd:
    """The end of the log of a container that was told to end, once it has, or as far as it came in so many seconds.

    Raises ObjectMissing, Refused or why the read failed, where there was nothing before.
    """
    chunks = kubernetes.read_log(namespace, pod, follow=True, tail=TAIL_LINES, timestamps=False, idle=seconds)
    end = _End()
    try:
        async with asyncio.timeout(seconds):
            await end.take(chunks)
    except (ClusterError, TimeoutError) as error:
        if not end.read and isinstance(error, ClusterError):
            raise
        return end.so_far(whole=False)
    return end.so_far(whole=True)


class _End:
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

    def so_far(self, *, whole: bool) -> LogEnd:
        return LogEnd(bytes(self._kept), self.read > len(self._kept), whole)
