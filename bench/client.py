"""What every hostile client has: a server, jobs, chance, and one way to send a request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bench.findings import Findings, WrittenJob
from bench.raw_http import Answer, Connection, dry_run, read_answers

ANSWER_SECONDS: Final = 60.0
"""For the end of one client, with the longest bound of the server, 30 s, and a frozen API server."""
SLOW_SECONDS: Final = 6.0
"""For a slow client. Below the server's bounds, so that it gets its answer."""


@dataclass(slots=True)
class Client:
    """Clients of one server. `found` has what they got."""

    port: int
    proxies: Sequence[int]
    """Ports of proxies in front of the same server."""
    tenants: Sequence[str]
    jobs: Callable[[], Sequence[WrittenJob]]
    chance: random.Random
    without: Sequence[str] = ()
    """Kinds of clients that the mix leaves out."""
    due: list[str] = field(default_factory=list, init=False)
    """The kinds that are left of this round. Each comes once in a round, so that a short run has them all."""
    found: Findings = field(default_factory=Findings)

    def _job(self) -> WrittenJob | None:
        jobs = self.jobs()
        return self.chance.choice(jobs) if jobs else None

    def _tenant(self) -> str:
        return self.chance.choice(self.tenants)

    def _dry_run(self, *, close: bool = False) -> bytes:
        return dry_run(self._tenant(), close=close)

    async def _whole(
        self,
        request: bytes,
        *,
        port: int | None = None,
        half_closed: bool = False,
        to_head: bool = False,
        lenient: bool = False,
    ) -> Answer:
        """Send a request whose response ends the connection, or is cut after ANSWER_SECONDS. Raises ValueError.

        `lenient`: sending may fail.
        """
        async with Connection(port or self.port) as connection:
            try:
                await connection.send(request)
            except ConnectionError:
                if not lenient:
                    raise
            if half_closed:
                connection.close_sending_side()
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await connection.read_to_end()
            return self._only(connection.received, connection, to_head=to_head)

    @staticmethod
    def _only(received: bytes, connection: Connection, *, to_head: bool = False) -> Answer:
        answers = read_answers(received, ended=connection.has_ended, to_head=to_head)
        if len(answers) != 1:
            raise ValueError(f"{len(answers)} responses to one request, {len(received)} bytes")
        return answers[0]
