"""A TCP proxy in front of an API server that can fall silent on its open connections, as a dead peer or a lost NAT
entry does: nothing arrives any more, and nothing is closed. Or it hangs up on everybody, as a network that is down."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self


class Hush:
    """Forwards `port` on loopback to `target` in a thread of its own. A context manager."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._silent: set[int] = set()
        self._hanging_up = False
        self._released = asyncio.Event()
        """Ends what is silent: only the loop's weak reference would keep it alive otherwise."""
        self._open: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hush")
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._wait(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def fall_silent(self) -> int:
        """Forward nothing more on the connections that are open now; new ones work. Returns how many there are."""
        return self._wait(self._silence())

    def hang_up(self) -> int:
        """Close the connections that are open and every new one, until `answer`. Returns how many were open."""
        self._hanging_up = True
        return self._wait(self._hang_up())

    def answer(self) -> None:
        """Forward new connections again."""
        self._hanging_up = False

    def _wait(self, work: object) -> int:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _silence(self) -> int:
        self._silent |= self._open.keys()
        return len(self._open)

    async def _hang_up(self) -> int:
        pairs = list(self._open.values())
        self._released.set()
        self._released = asyncio.Event()
        for pair in pairs:
            for writer in pair:
                writer.close()
        return len(pairs)

    async def _close(self) -> int:
        self._server.close()
        await self._hang_up()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = id(writer)
        if self._hanging_up:
            writer.close()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._open[number] = (writer, far_writer)
            await asyncio.gather(self._copy(number, reader, far_writer), self._copy(number, far_reader, writer))
        except OSError:
            pass  # Either side is gone; the other is closed below.
        finally:
            for each in self._open.pop(number, (writer,)):
                each.close()

    async def _copy(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            if number in self._silent:
                await self._released.wait()
                break
            writer.write(chunk)
            await writer.drain()
        writer.close()
