"""The network between one Runway process and the API server: Runway's `Transport`, with faults.

A call is carried out by the API server on its own, whatever becomes of the process that sent it. A process that is
frozen neither sees an answer nor wakes from a sleep; its clock goes on. Nothing is ever frozen between a check and the
sending that follows it without an `await`: that moment has no remedy (docs/architecture.md, "One writer").
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import msgspec

from runway.errors import AmbiguousOutcome, NotExecuted
from runway.kube.transport import Response as HttpAnswer
from runway.kube.transport import UnexpectedStatus
from tests.model.apiserver import ApiServer, Call
from tests.model.faults import Answer, Calls, kind_of_call
from tests.model.watching import Watch
from tests.support.fake_cluster import Json

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
