"""The end of a pod's log, read in bounded time and memory, for the record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from runway.cluster.client import Kubernetes
from runway.jobs.excerpt import RAW_BYTES

TAIL_LINES: Final = 100
MOST_BYTES: Final = 1 << 20
"""Read at once; lines that are longer are read again, the last one alone. The runtime cuts lines at 16 KiB."""
READ_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log; `cut`: there was more before it."""

    log: bytes
    cut: bool


async def read_end(kubernetes: Kubernetes, namespace: str, pod: str) -> LogEnd:
    """The end of the log of a container that has ended.

    Raises TimeoutError, ObjectMissing where the pod is gone, Refused where it has no log, or why the read failed.
    """
    async with asyncio.timeout(READ_SECONDS):
        for lines in (TAIL_LINES, 1):
            chunks = kubernetes.read_log(namespace, pod, follow=False, tail=lines, timestamps=False, idle=READ_SECONDS)
            end, whole = await _end_of(chunks, MOST_BYTES)
            if whole:
                break
    return end


async def follow_end(kubernetes: Kubernetes, namespace: str, pod: str, seconds: float) -> LogEnd:
    """The end of the log of a container that was told to end, once it has, or after so many seconds.

    Raises as `read_end` does, but for TimeoutError.
    """
    chunks = kubernetes.read_log(namespace, pod, follow=True, tail=TAIL_LINES, timestamps=False, idle=seconds)
    end, _ = await _end_of(chunks, None, seconds)
    return end


async def _end_of(
    chunks: AsyncGenerator[bytes, None], most: int | None, seconds: float | None = None
) -> tuple[LogEnd, bool]:
    """The last bytes of what is read, and whether all was: not where it is more than `most`, or takes too long."""
    kept, read = bytearray(), 0
    try:
        async with asyncio.timeout(seconds), aclosing(chunks):
            async for chunk in chunks:
                read += len(chunk)
                kept += chunk
                del kept[:-RAW_BYTES]
                if most is not None and read > most:
                    return LogEnd(bytes(kept), cut=True), False
    except TimeoutError:
        return LogEnd(bytes(kept), read > len(kept)), False
    return LogEnd(bytes(kept), read > len(kept)), True
