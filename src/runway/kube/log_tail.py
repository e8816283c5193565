"""Read the end of a pod's log in bounded time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from runway import errors
from runway.kube.client import KubeClient
from runway.kube.objects import Pod

TAIL_LINES: Final = 100
MAX_TAIL_READ_BYTES: Final = 1 << 20
"""Bytes read of `TAIL_LINES`; beyond it only `LONG_TAIL_LINES` are read, which the container runtime cuts at 16 KiB."""
LONG_TAIL_LINES: Final = 60
BAR_TAIL_LINES: Final = 640
"""Lines read if the end of the log is one progress bar: the kubelet's file of 10 MiB (`containerLogMaxSize`)."""
MAX_BAR_READ_BYTES: Final = 16 << 20
MIN_BAR_BYTES: Final = 1 << 16
"""A tail with this many overwritten bytes, and less than `MIN_TEXT_BYTES` of other text, is a progress bar."""
MIN_TEXT_BYTES: Final = 2048
TAIL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log. `cut`: it continues before this; `whole`: it was read to its end."""

    log: bytes
    cut: bool
    whole: bool


async def read_tail(client: KubeClient, pod: Pod, max_bytes: int) -> LogTail:
    """Read the last `max_bytes` of the log of a pod's job.

    Raises TimeoutError, NotFound if the pod is deleted, Rejected if it has no log, or the error of the read.
    """
    async with asyncio.timeout(TAIL_SECONDS):
        buffer, whole = await _fill(client, pod, max_bytes, TAIL_LINES, MAX_TAIL_READ_BYTES)
        if not whole:
            buffer, whole = await _fill(client, pod, max_bytes, LONG_TAIL_LINES, MAX_TAIL_READ_BYTES)
        if buffer.is_progress_bar:
            longer, reaches_end = await _fill(client, pod, max_bytes, BAR_TAIL_LINES, MAX_BAR_READ_BYTES)
            buffer = longer if reaches_end else buffer
    return buffer.result(whole=True)


async def _fill(
    client: KubeClient, pod: Pod, max_bytes: int, lines: int, max_read_bytes: int
) -> tuple[_TailBuffer, bool]:
    buffer = _TailBuffer(max_bytes)
    whole = await buffer.fill(_tail_of(client, pod, lines, follow=False, idle=TAIL_SECONDS), max_read_bytes)
    buffer.has_more |= buffer.lines >= lines
    return buffer, whole


async def follow_tail(client: KubeClient, pod: Pod, max_bytes: int, seconds: float) -> LogTail:
    """Follow the log of a terminating container for at most `seconds`, and return its last `max_bytes`.

    Raises NotFound, Rejected or the error of the read, if nothing was read before.
    """
    chunks = _tail_of(client, pod, TAIL_LINES, follow=True, idle=seconds)
    buffer = _TailBuffer(max_bytes)
    try:
        async with asyncio.timeout(seconds):
            await buffer.fill(chunks)
    except (errors.ClusterError, TimeoutError) as error:
        if not buffer.bytes_read and isinstance(error, errors.ClusterError):
            raise
        return buffer.result(whole=False)
    return buffer.result(whole=True)


def _tail_of(client: KubeClient, pod: Pod, lines: int, *, follow: bool, idle: float) -> AsyncGenerator[bytes, None]:
    meta = pod.metadata
    return client.read_log(
        meta.namespace, meta.name, container=pod.container_name, follow=follow, tail=lines, timestamps=False, idle=idle
    )


class _TailBuffer:
    """The end of a log, with the end state of each line: a carriage return starts it again."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tail = bytearray()
        self._line = b""  # The line in progress: what follows its last carriage return.
        self._dropped_bytes = self._overwritten_bytes = self.lines = 0
        self.bytes_read = 0
        self.has_more = False

    @property
    def is_progress_bar(self) -> bool:
        return self._overwritten_bytes >= MIN_BAR_BYTES and len(self._tail) + len(self._line) < MIN_TEXT_BYTES

    async def fill(self, chunks: AsyncGenerator[bytes, None], max_read_bytes: int | None = None) -> bool:
        """Read to the end; stop and return False after more than `max_read_bytes`."""
        async with aclosing(chunks):
            async for chunk in chunks:
                self.bytes_read += len(chunk)
                self._add(chunk)
                if max_read_bytes is not None and self.bytes_read > max_read_bytes:
                    return False
        return True

    def _add(self, chunk: bytes) -> None:
        *lines, rest = (self._line + chunk).split(b"\n")
        self.lines += len(lines)
        for line in lines:
            self._tail += self._end_state(line.rstrip(b"\r")) + b"\n"
        shown = rest.rstrip(b"\r")
        # A carriage return at the end overwrites the line only if text follows it.
        self._line = self._end_state(shown) + rest[len(shown) :][-1:]
        excess = max(0, len(self._tail) + len(self._line) - self._max_bytes)
        self._dropped_bytes += excess
        self._line = self._line[max(0, excess - len(self._tail)) :]
        del self._tail[:excess]

    def _end_state(self, line: bytes) -> bytes:
        end = line[line.rfind(b"\r") + 1 :]
        self._overwritten_bytes += len(line) - len(end)
        return end

    def result(self, *, whole: bool) -> LogTail:
        return LogTail(bytes(self._tail) + self._line.rstrip(b"\r"), self.has_more or self._dropped_bytes > 0, whole)
