"""The network between one Runway process and the API server: Runway's `Transport`, with faults.

A call is carried out by the API server on its own, whatever becomes of the process that sent it. A process that is
frozen neither sees an answer nor wakes from a sleep; its clock goes on. Nothing is ever frozen between a check and the
sending that follows it without an `await`: that moment has no remedy (docs/architecture.md, "Leader election").
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import msgspec

from runway.errors import AmbiguousOutcome, NotExecuted
from runway.kube.client import WATCH_SECONDS
from runway.kube.transport import Response as HttpAnswer
from runway.kube.transport import UnexpectedStatus
from tests.model.apiserver import ApiServer, Call
from tests.model.faults import Answer, Calls, kind_of_call
from tests.support.fake_cluster import Json, event_line

BOOKMARK_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 2.0
LIST_GRACE: Final = 5.5
"""A resync takes in a list 5 s after it was answered, so that the watch can bring the same first."""

REQUEST: Final[ContextVar[object]] = ContextVar("REQUEST", default=None)
"""The submission that is being worked on."""
_ASIDE: Final = ("/api/v1/events", "/api/v1/nodes")
"""What RBAC does not let these processes see: nothing that the model checks depends on it."""
_NOBODY: Final = Context()


class _Meta(msgspec.Struct):
    continue_: str | None = msgspec.field(name="continue", default=None)


class _Named(msgspec.Struct):
    metadata: dict[str, Any]


class _Page(msgspec.Struct):
    metadata: _Meta
    items: list[_Named]


_page = msgspec.json.Decoder(_Page)


@dataclass(slots=True)
class Told:
    """What a process was told, each with its place among all that happens (`ApiServer.mark`)."""

    objects: dict[str, int] = field(default_factory=dict)
    """For each uid, from when on the process must act by it."""
    lists_asked: dict[str, int] = field(default_factory=dict)
    """For each kind, when the newest list that was answered in full was asked for."""
    lost: set[str] = field(default_factory=set)
    """Objects of which an event was lost on the way, and that no list has shown since."""
    pages: dict[asyncio.Task[Any] | None, tuple[int, list[str]]] = field(default_factory=dict)
    """For each task that lists, when its list was asked for and what the pages so far have shown: two tasks can be
    listing the same kind at the same version."""


class Watch:
    """One watch of a process. It reads the API server's history from a version on.

    Each event passes alone, in its own turn of the loop: late, twice, not at all, or again from further back.
    """

    def __init__(self, wire: Wire, kind: str, version: int, idle: float) -> None:
        self._wire = wire
        self._api = wire.api
        self._kind = kind
        self._idle = idle
        self._events = wire.api.server.history[kind]
        self._next = bisect_right(self._events, version, key=lambda event: event[0])
        self._opened = self._heard = wire.api.loop.time()
        self._waiter: asyncio.Future[None] | None = None
        self.broken = False
        """The connection is reset."""
        self.closed = False
        """The API server ends the watch in good order."""
        self.expired = False
        """The API server says that the version has become too old."""
        self.twice = False
        """The next event comes twice."""

    def trouble(self, what: str, much: float) -> None:
        """`again`: so many events are told once more, in their order; the rest are the fields above."""
        match what:
            case "again":
                self._next = max(0, self._next - math.ceil(much))
            case "twice":
                self.twice = True
            case "break":
                self.broken = True
            case "close":
                self.closed = True
            case "expire":
                self.expired = True
        self.wake()

    def wake(self) -> None:
        """Look again: something has changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def lines(self) -> AsyncGenerator[bytes, None]:  # noqa: C901 (one branch a trouble)
        """Yield the lines of this watch. Raises AmbiguousOutcome when the connection breaks or stays silent."""
        while True:
            await self._wire.sleep(0)
            now = self._api.loop.time()
            if self.broken or self._api.server.down:
                raise AmbiguousOutcome("the connection to the Kubernetes API broke: reset")
            if now - self._heard >= self._idle:
                raise AmbiguousOutcome(f"the Kubernetes API sent nothing for {self._idle:g} s")
            if not self._wire.may_speak(self._kind):
                await self._until(self._heard + self._idle)
            elif self.expired:
                yield b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n'
            elif self.closed or now - self._opened >= WATCH_SECONDS:
                return
            elif self._next < len(self._events):
                due = self._api.written[self._events[self._next][0]] + self._wire.lags[self._kind]
                if due > now:
                    await self._until(due)
                    continue
                for line in self._take():
                    self._heard = now
                    yield line
            elif now - self._heard >= BOOKMARK_SECONDS:
                self._heard = now
                yield event_line("BOOKMARK", {"metadata": {"resourceVersion": str(self._api.server.version)}})
            else:
                await self._until(self._heard + BOOKMARK_SECONDS)

    def _take(self) -> list[bytes]:
        """The next event: its line, twice, or not at all."""
        _, type_, item = self._events[self._next]
        self._next += 1
        wire = self._wire
        if wire.losing[self._kind]:
            wire.losing[self._kind] -= 1
            self._lose(item)
            return []
        if type_ != "DELETED":
            wire.note(item)
        line = event_line(type_, item)
        twice, self.twice = self.twice, False
        return [line, line] if twice else [line]

    def _lose(self, item: Json) -> None:
        self._wire.told.lost.add(item["metadata"]["uid"])
        self._api.lost_events += 1

    async def _until(self, moment: float) -> None:
        """Wait for the moment, or for `wake`."""
        loop = self._api.loop
        self._waiter = loop.create_future()
        timer = loop.call_at(max(moment, loop.time()), self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None


class Wire:
    """One process's connection. `dead`: the process is gone; `cut`: no packet passes, either way."""

    def __init__(self, api: ApiServer, owner: object) -> None:
        self.api = api
        self.owner = owner
        self.told = Told()
        self.running = asyncio.Event()
        self.running.set()
        self.dead = False
        self.cut = False
        self.watches: dict[str, Watch] = {}
        self.lags: dict[str, float] = {"jobs": 0.0, "pods": 0.0}
        """How many seconds each watch is behind."""
        self.muted: set[str] = set()
        """Watches that are open and will never tell anything again."""
        self.losing: dict[str, int] = {"jobs": 0, "pods": 0}
        """How many of the next events of each kind are lost."""

    async def sleep(self, seconds: float) -> None:
        """The process sleeps, and sleeps on while it is frozen."""
        await asyncio.sleep(seconds)
        await self.running.wait()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> HttpAnswer:
        if self.dead:
            await _never()
        if path in _ASIDE:
            await self.sleep(0)
            return HttpAnswer(403, b"{}")
        if self.cut:
            await self.sleep(min(CONNECT_SECONDS, seconds))
            raise NotExecuted("no connection to the Kubernetes API: timed out")
        loop = asyncio.get_running_loop()
        calls = kind_of_call(method, path)
        fate = self.api.network.next_fate(calls)
        if self.api.server.down or fate.answer is Answer.REFUSED:
            await self.sleep(0)
            raise NotExecuted("no connection to the Kubernetes API: refused")
        reply: asyncio.Future[HttpAnswer] = loop.create_future()
        call = Call(
            self, calls, method, path, dict(query), body, content_type, loop.time(), seconds, fate, reply,
            self.api.mark(), self.api.server.version, REQUEST.get(),
        )  # fmt: skip
        self.api.take(call, _NOBODY)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({reply})
        except TimeoutError:
            await self.running.wait()
            if not reply.done():
                raise AmbiguousOutcome(f"the Kubernetes API did not answer within {seconds:g} s") from None
        await self.running.wait()
        answer = reply.result()
        if fate.answer is Answer.TRUE and "labelSelector" in query:
            self._must_know([item.metadata["uid"] for item in _page.decode(answer.body).items])
        if calls is Calls.LIST and fate.answer is Answer.TRUE and answer.status == 200:
            self._note_page(path.rsplit("/", 1)[1], call, answer.body)
        return answer

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        assert idle is not None, "only watches are streamed here"
        if self.dead:
            await _never()
        if self.cut:
            await self.sleep(CONNECT_SECONDS)
            raise NotExecuted("no connection to the Kubernetes API: timed out")
        await self.sleep(0)
        fate = self.api.network.next_fate(Calls.WATCH)
        if self.api.server.down or fate.answer is Answer.REFUSED:
            raise NotExecuted("no connection to the Kubernetes API: refused")
        if fate.answer is not Answer.TRUE:
            raise UnexpectedStatus(HttpAnswer(429 if fate.answer is Answer.THROTTLED else 500, b"{}", retry_after=1))
        kind, version = path.rsplit("/", 1)[1], int(query["resourceVersion"])
        if version < self.api.server.expired_before:
            raise UnexpectedStatus(HttpAnswer(410, b"{}"))
        watch = Watch(self, kind, version, idle)
        self.watches[kind] = watch
        self.muted.discard(kind)
        yield b""
        async for line in watch.lines():
            yield line

    def trouble(self, kind: str, what: str, much: float) -> None:
        """Something happens to the watch of this kind; `much` is seconds for `late`, events for `lose` and `again`."""
        watch = self.watches.get(kind)
        if what == "late":
            self.lags[kind] = much
        elif what == "mute":
            self.muted.add(kind)
        elif what == "lose":
            self.losing[kind] = math.ceil(much)
        elif watch is not None:
            watch.trouble(what, much)

    def isolate(self, what: str) -> None:
        """`freeze` and `thaw` stop the process and let it go on; `cut off` and `connect` do so to packets."""
        if what in ("cut off", "connect"):
            self.cut = what == "cut off"
        elif what == "freeze":
            self.running.clear()
        else:
            self.running.set()
        self.api.wake()

    def heal(self) -> None:
        """Nothing is wrong with this connection any more, and the process is not frozen."""
        self.cut = False
        self.muted.clear()
        self.lags = dict.fromkeys(self.lags, 0.0)
        self.losing = dict.fromkeys(self.losing, 0)
        self.running.set()

    @property
    def is_open(self) -> bool:
        """Whether a response can reach the process."""
        return not (self.cut or self.dead)

    def wake(self, kind: str | None = None) -> None:
        """Let the watch of this kind look again, or every watch."""
        for name, watch in self.watches.items():
            if kind in (None, name):
                watch.wake()

    def may_speak(self, kind: str) -> bool:
        """Whether an event of this kind can pass now."""
        return self.running.is_set() and not (self.cut or self.api.network.stalled or kind in self.muted)

    def note(self, item: Json) -> None:
        """The process has been told of an object by a watch, and acts on it at once."""
        self.told.objects.setdefault(item["metadata"]["uid"], self.api.mark())

    def _note_page(self, kind: str, call: Call, body: bytes) -> None:
        page = _page.decode(body)
        task = asyncio.current_task()
        if "continue" not in call.query:
            self.told.pages[task] = (call.mark, [])
        asked, uids = self.told.pages[task]
        uids += [item.metadata["uid"] for item in page.items]
        if page.metadata.continue_:
            return
        del self.told.pages[task]
        self.told.lost.difference_update(uids)
        if kind in self.told.lists_asked:
            self.api.loop.call_later(LIST_GRACE, self._must_know, uids)
        else:
            self._must_know(uids)
        self.told.lists_asked[kind] = max(asked, self.told.lists_asked.get(kind, asked))

    def _must_know(self, uids: list[str]) -> None:
        for uid in uids:
            self.told.objects.setdefault(uid, self.api.mark())


async def _never() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a process that is gone goes on")
