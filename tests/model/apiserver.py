"""A simulated API server that executes calls independently of their responses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from runway.errors import AmbiguousOutcome
from runway.kube.transport import Response as HttpAnswer
from tests.model.faults import REQUEST_LIMIT, Answer, Calls, Fate, Network
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

_AFTER_EXECUTION: Final = (Answer.TRUE, Answer.GARBLED)
"""Responses whose status depends on the execution of the call."""

START: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


class Connection(Protocol):
    """The connection of one process."""

    owner: object

    @property
    def is_open(self) -> bool:
        """Whether a response can reach the process."""

    def wake(self, kind: str | None = None) -> None:
        """Wake the watch of this kind, or every watch."""


@dataclass(slots=True, eq=False)
class Call:
    """A call in flight. `seconds` is the timeout of its caller."""

    connection: Connection
    calls: Calls
    method: str
    path: str
    query: dict[str, str]
    body: bytes | None
    content_type: str
    sent: float
    seconds: float
    fate: Fate
    reply: asyncio.Future[HttpAnswer]
    mark: int
    """The position of the send in the order of all events."""
    version: int
    """The newest version that the API server had when the call was sent."""
    request: object
    """The submission that sent it; None for other calls."""

    @property
    def creates(self) -> bool:
        """Whether it creates a Job."""
        return self.calls is Calls.CREATE and "dryRun" not in self.query


class ApiServer:
    """The API server with its objects, the network and the calls in flight."""

    def __init__(self, loop: VirtualLoop, namespaces: set[str]) -> None:
        self.loop = loop
        self.server = FakeKubernetes(namespaces)
        self.server.now = self.now_text
        self.server.listeners.append(self._changed)
        self.network = Network()
        self.connections: list[Connection] = []
        self.in_flight: set[Call] = set()
        """Calls that may still be executed."""
        self.written: dict[int, float] = {}
        """The time of each version's write."""
        self.lost_events = 0
        self.sending: Callable[[Call], None] = lambda _: None
        self.landed: Callable[[Call, HttpAnswer], None] = lambda _call, _answer: None
        self._marks = itertools.count()
        self._backlog: list[Call] = []

    def mark(self) -> int:
        """Return the next position in the order of all events; unique within one instant too."""
        return next(self._marks)

    def now(self) -> datetime:
        """Return the wall clock."""
        return START + timedelta(seconds=self.loop.time())

    def now_text(self) -> str:
        """Return the wall clock in Kubernetes' format, truncated to the second."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def take(self, call: Call, context: Context) -> None:
        """Accept a call. It is executed in `context`, which belongs to no process, so no process can cancel it."""
        self.sending(call)
        fate = call.fate
        if fate.lands is not None:
            self.in_flight.add(call)
            if fate.lands:
                self.loop.call_later(fate.lands, self._land, call, context=context)
            else:
                self.loop.call_soon(self._land, call, context=context)
        if fate.answer not in (*_AFTER_EXECUTION, Answer.NONE):
            self.loop.call_later(fate.answers, self._answer, call, HttpAnswer(200, b"{}"), context=context)

    def go_down(self) -> None:
        """Crash, and lose all calls in flight."""
        self.server.go_down()
        for call in self.in_flight:
            if not call.reply.done():
                call.reply.set_exception(AmbiguousOutcome("the connection to the Kubernetes API broke: reset"))
                call.reply.exception()
        self.in_flight.clear()
        self._backlog.clear()
        self.wake()

    def stall(self) -> None:
        """Stop, as on SIGSTOP."""
        self.network.stalled = True

    def resume(self) -> None:
        """Continue, and execute the calls of the meantime that have not timed out."""
        self.network.stalled = False
        backlog, self._backlog = self._backlog, []
        for call in backlog:
            self._land(call)
        self.wake()

    def wake(self) -> None:
        """Wake every watch."""
        for connection in self.connections:
            connection.wake()

    def _changed(self, kind: str) -> None:
        self.written[self.server.version] = self.loop.time()
        for connection in self.connections:
            connection.wake(kind)

    def _land(self, call: Call) -> None:
        if call not in self.in_flight:
            return
        if self.network.stalled:
            self._backlog.append(call)
            return
        self.in_flight.discard(call)
        if self.loop.time() - call.sent > REQUEST_LIMIT:
            return
        answer = self.server.handle(
            call.method, call.path, query=call.query, body=call.body, content_type=call.content_type
        )
        self.landed(call, answer)
        if call.fate.answer in _AFTER_EXECUTION:
            self.loop.call_later(call.fate.answers, self._answer, call, answer)

    def _answer(self, call: Call, answer: HttpAnswer) -> None:
        if not call.connection.is_open or call.reply.done() or self.server.down:
            return
        match call.fate.answer:
            case Answer.RESET:
                call.reply.set_exception(AmbiguousOutcome("the connection to the Kubernetes API broke: reset"))
                call.reply.exception()
            case Answer.ERROR:
                call.reply.set_result(HttpAnswer(500, b"{}"))
            case Answer.GARBLED:
                call.reply.set_result(HttpAnswer(answer.status, b'{"metadata":'))
            case Answer.THROTTLED:
                call.reply.set_result(HttpAnswer(429, b"{}", retry_after=1))
            case _:
                call.reply.set_result(answer)
