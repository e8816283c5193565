"""Runway's `Transport` with faults, between a process and the API server.

The API server executes a call even if the sending process has exited. A frozen process neither receives a response nor
wakes from a sleep; its clock keeps running. The model never freezes a process between a check and the send that follows
without an `await`: no process can protect against that (docs/architecture.md, "Leader election").
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
from tests.model.oracle import is_terminal
from tests.support.fake_cluster import Json, event_line

BOOKMARK_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 2.0
LIST_GRACE: Final = 5.5
"""A resync applies a list 5 s after its response, so that the watch can deliver the same changes first."""

REQUEST: Final[ContextVar[object]] = ContextVar("REQUEST", default=None)
"""The submission in progress."""
_FORBIDDEN: Final = ("/api/v1/events",)
"""Paths that get 403: no invariant depends on them."""
_NO_PROCESS: Final = Context()


class _Meta(msgspec.Struct):
    continue_: str | None = msgspec.field(name="continue", default=None)


class _Named(msgspec.Struct):
    metadata: dict[str, Any]


class _Page(msgspec.Struct):
    metadata: _Meta
    items: list[_Named]


_page = msgspec.json.Decoder(_Page)


@dataclass(slots=True)
class Observations:
    """The observations of a process, each with its `ApiServer.mark`."""

    objects: dict[str, int] = field(default_factory=dict)
    """For each uid, the time from which the process must respect it."""
    lists_asked: dict[str, int] = field(default_factory=dict)
    """For each kind, the time of the request of the newest complete list."""
    ends: dict[str, float] = field(default_factory=dict)
    """For each uid of a pod, when a watch first reported its end."""
    lost: set[str] = field(default_factory=set)
    """Objects with a lost event and in no later list."""
    gaps: set[str] = field(default_factory=set)
    """Objects with a lost event: no process can know each of their versions."""
    pages: dict[asyncio.Task[Any] | None, tuple[int, list[str]]] = field(default_factory=dict)
    """For each listing task, the time of its first request and the uids of its pages.

    Two tasks can list the same kind at the same version.
    """


class Watch:
    """One watch of a process. It reads the API server's history from a version on.

    Each event has its own turn of the loop. It may be late, duplicated, lost or repeated with earlier events.
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
        """The API server closes the watch normally."""
        self.expired = False
        """The API server reports an expired version."""
        self.twice = False
        """The next event is duplicated."""

    def trouble(self, what: str, much: float) -> None:
        """Inject a fault. `again` repeats the last `much` events in order; the others set the fields above."""
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
        """Check for changes."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def lines(self) -> AsyncGenerator[bytes, None]:  # noqa: C901 (one branch a trouble)
        """Yield the lines of this watch. Raises AmbiguousOutcome if the connection breaks or is idle too long."""
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
        """Return the next event: one line, two if duplicated, none if lost."""
        _, type_, item = self._events[self._next]
        self._next += 1
        wire = self._wire
        if wire.losing[self._kind]:
            wire.losing[self._kind] -= 1
            self._lose(item)
            return []
        if type_ != "DELETED":
            wire.note(item)
        if self._kind == "pods" and (type_ == "DELETED" or is_terminal(item)):
            wire.observed.ends.setdefault(item["metadata"]["uid"], self._api.loop.time())
        line = event_line(type_, item)
        twice, self.twice = self.twice, False
        return [line, line] if twice else [line]

    def _lose(self, item: Json) -> None:
        self._wire.observed.lost.add(item["metadata"]["uid"])
        self._wire.observed.gaps.add(item["metadata"]["uid"])
        self._api.lost_events += 1

    async def _until(self, moment: float) -> None:
        """Wait until this time or `wake`."""
        loop = self._api.loop
        self._waiter = loop.create_future()
        timer = loop.call_at(max(moment, loop.time()), self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None


class Wire:
    """The connection of one process. `dead`: the process has exited; `cut`: no packet passes in either direction."""

    def __init__(self, api: ApiServer, owner: object) -> None:
        self.api = api
        self.owner = owner
        self.observed = Observations()
        self.running = asyncio.Event()
        self.running.set()
        self.dead = False
        self.cut = False
        self.watches: dict[str, Watch] = {}
        self.lags: dict[str, float] = {"jobs": 0.0, "pods": 0.0, "nodes": 0.0}
        """The delay of each watch in seconds."""
        self.muted: set[str] = set()
        """Stalled watches: open, without events."""
        self.losing: dict[str, int] = {"jobs": 0, "pods": 0, "nodes": 0}
        """The number of the next events of each kind to lose."""

    async def sleep(self, seconds: float) -> None:
        """Sleep, and continue to sleep while the process is frozen."""
        await asyncio.sleep(seconds)
        await self.running.wait()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> HttpAnswer:
        if self.dead:
            await _never()
        if path in _FORBIDDEN:
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
        self.api.take(call, _NO_PROCESS)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({reply})
        except TimeoutError:
            await self.running.wait()
            if not reply.done():
                raise AmbiguousOutcome(f"the Kubernetes API did not answer within {seconds:g} s") from None
        await self.running.wait()
        answer = reply.result()
        if fate.answer is Answer.TRUE and answer.status == 200:
            self._note_answer(call, answer.body)
        return answer

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        if self.dead:
            await _never()
        if path.endswith("/log"):
            await self.sleep(0)
            for chunk in (b"", b"epoch 1\n"):
                yield chunk
            return
        assert idle is not None, "all other streams are watches"
        if self.cut:
            await self.sleep(CONNECT_SECONDS)
            raise NotExecuted("no connection to the Kubernetes API: timed out")
        await self.sleep(0)
        fate = self.api.network.next_fate(Calls.NODES if path == "/api/v1/nodes" else Calls.WATCH)
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
        """Inject a fault into the watch of this kind. `much`: seconds for `late`, events for `lose` and `again`."""
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
        """Freeze or thaw the process, or cut off or connect its network."""
        if what in ("cut off", "connect"):
            self.cut = what == "cut off"
        elif what == "freeze":
            self.running.clear()
        else:
            self.running.set()
        self.api.wake()

    def heal(self) -> None:
        """Remove all faults of this connection and thaw the process."""
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
        """Wake the watch of this kind, or every watch."""
        for name, watch in self.watches.items():
            if kind in (None, name):
                watch.wake()

    def may_speak(self, kind: str) -> bool:
        """Whether an event of this kind can arrive now."""
        return self.running.is_set() and not (self.cut or self.api.network.stalled or kind in self.muted)

    def note(self, item: Json) -> None:
        """Record that a watch has reported an object, which the process must respect at once."""
        self.observed.objects.setdefault(item["metadata"]["uid"], self.api.mark())

    def _note_answer(self, call: Call, body: bytes) -> None:
        """Record the objects of a read or list."""
        if "labelSelector" in call.query:
            self._must_know([item.metadata["uid"] for item in _page.decode(body).items])
        elif call.calls is Calls.LIST:
            self._note_page(call.path.rsplit("/", 1)[1], call, body)

    def _note_page(self, kind: str, call: Call, body: bytes) -> None:
        page = _page.decode(body)
        task = asyncio.current_task()
        if "continue" not in call.query:
            self.observed.pages[task] = (call.mark, [])
        asked, uids = self.observed.pages[task]
        uids += [item.metadata["uid"] for item in page.items]
        if page.metadata.continue_:
            return
        del self.observed.pages[task]
        self.observed.lost.difference_update(uids)
        if kind in self.observed.lists_asked:
            self.api.loop.call_later(LIST_GRACE, self._must_know, uids)
        else:
            self._must_know(uids)
        self.observed.lists_asked[kind] = max(asked, self.observed.lists_asked.get(kind, asked))

    def _must_know(self, uids: list[str]) -> None:
        for uid in uids:
            self.observed.objects.setdefault(uid, self.api.mark())


async def _never() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("an exited process continues")
