"""The API server as its callers meet it: calls in flight, which land on their own and may be answered or not."""

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

_OF_WHAT_WAS_DONE: Final = (Answer.TRUE, Answer.GARBLED)
"""Answers whose status the API server can only know when it has carried out the call."""

START: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


class Connection(Protocol):
    """One process's connection, as the API server sees it."""

    owner: object

    @property
    def is_open(self) -> bool:
        """Whether a response can reach the process."""

    def wake(self, kind: str | None = None) -> None:
        """Let the watch of this kind look again, or every watch."""


@dataclass(slots=True, eq=False)
class Call:
    """One call on its way. `seconds` is how long its caller waits."""

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
    """Its place among all that happens."""
    version: int
    """The newest version that the API server had when the call was sent."""
    request: object
    """The submission that sent it; None for a call of Runway's own."""

    @property
    def creates(self) -> bool:
        """Whether it is to make a Job."""
        return self.calls is Calls.CREATE and "dryRun" not in self.query


class ApiServer:
    """One API server: what it has, the network to it, and what is in flight."""

    def __init__(self, loop: VirtualLoop, namespaces: set[str]) -> None:
        self.loop = loop
        self.server = FakeKubernetes(namespaces)
        self.server.now = self.now_text
        self.server.listeners.append(self._changed)
        self.network = Network()
        self.connections: list[Connection] = []
        self.in_flight: set[Call] = set()
        """Calls that have not landed and may yet."""
        self.written: dict[int, float] = {}
        """When each version was written."""
        self.lost_events = 0
        self.sending: Callable[[Call], None] = lambda _: None
        self.landed: Callable[[Call, HttpAnswer], None] = lambda _call, _answer: None
        self._marks = itertools.count()
        self._backlog: list[Call] = []

    def mark(self) -> int:
        """The place of this moment among all that happens, within one instant too."""
        return next(self._marks)

    def now(self) -> datetime:
        """The wall clock."""
        return START + timedelta(seconds=self.loop.time())

    def now_text(self) -> str:
        """The wall clock as Kubernetes writes it: cut to the second."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def take(self, call: Call, context: Context) -> None:
        """A call leaves its process. It lands in `context`, which belongs to nobody: nothing there can cancel it."""
        self.sending(call)
        fate = call.fate
        if fate.lands is not None:
            self.in_flight.add(call)
            if fate.lands:
                self.loop.call_later(fate.lands, self._land, call, context=context)
            else:
                self.loop.call_soon(self._land, call, context=context)
        if fate.answer not in (*_OF_WHAT_WAS_DONE, Answer.NONE):
            self.loop.call_later(fate.answers, self._answer, call, HttpAnswer(200, b"{}"), context=context)

    def go_down(self) -> None:
        """The API server dies, and with it whatever had not landed."""
        self.server.go_down()
        for call in self.in_flight:
            if not call.reply.done():
                call.reply.set_exception(AmbiguousOutcome("the connection to the Kubernetes API broke: reset"))
                call.reply.exception()
        self.in_flight.clear()
        self._backlog.clear()
        self.wake()

    def stall(self) -> None:
        """The API server stops where it is."""
        self.network.stalled = True

    def resume(self) -> None:
        """The API server goes on, with what came in meanwhile as far as its time is not over."""
        self.network.stalled = False
        backlog, self._backlog = self._backlog, []
        for call in backlog:
            self._land(call)
        self.wake()

    def wake(self) -> None:
        """Let each watch look again."""
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
        if call.fate.answer in _OF_WHAT_WAS_DONE:
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
