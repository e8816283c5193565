"""A job's log, from the pod that wrote it, as long as that pod exists. Read it top to bottom.

1. The attempt is found; with `follow`, its container is waited for.
2. The log is opened. Until then whatever is wrong is a problem; from then on it can only break the answer off.
3. What the kubelet sends is passed on byte for byte, without the times that it was asked to put before the lines.
4. When a connection ends, the log need not have: the API server ends an answer in good order even where it has lost the
   kubelet. So the log is opened again, from a little before, and what was sent is left out, until a connection that was
   opened after the container had ended brings nothing new. What a container has written that still runs, and is not
   followed, is read once.
5. What cannot be had within `GIVE_UP_SECONDS` is given up by raising StreamCut.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from runway.controllers.sync import Observer
from runway.errors import (
    AmbiguousOutcome,
    ClusterError,
    InvalidParameter,
    JobNotFound,
    KubernetesUnavailable,
    LogsGone,
    LogsNotReady,
    NotFound,
    PublicError,
    Rejected,
    StreamInterrupted,
    Violation,
)
from runway.kube.backoff import Backoff
from runway.kube.client import KubeClient
from runway.kube.objects import Pod
from runway.log_cursor import LogCursor
from runway.state.job_store import JobKey

log = structlog.get_logger()

RECONNECT_TIMEOUT_SECONDS: Final = 60.0
"""How long a log is tried again without anything new of it."""
OPEN_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 120.0
"""A followed log that is silent for so long is opened again: the connection may be dead, whatever TCP says."""
READ_IDLE_SECONDS: Final = 30.0
HEALTHY_SECONDS: Final = 30.0
"""A connection that lasted so long is no failure, even if nothing came of it."""
STATUS_SECONDS: Final = 2.0
"""The kubelet reports the end of a container about a second after its log has ended."""
LOOK_SECONDS: Final = 15.0
"""At most so long between two looks at a job that is waited for."""
SLICE_BYTES: Final = 1 << 16
"""Bytes of a log that are worked on before other requests have their turn: 1.5 ms, or 4 ms where lines are empty."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What is asked for. `attempt` counts from 1, and is the last where None; `tail` is in lines."""

    attempt: int | None = None
    follow: bool = False
    tail: int | None = None
    timestamps: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """An open log: of which attempt it is, and its bytes. Close `chunks`; it raises StreamCut."""

    attempt: int
    chunks: AsyncGenerator[bytes, None]


async def open_log(
    kubernetes: KubeClient,
    observer: Observer,
    key: JobKey,
    query: LogQuery,
    turn: asyncio.Lock,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = random.random,
) -> Log:
    """Open the log of an attempt; with `follow`, as soon as its container has started.

    All logs of a process share `turn`: one slice of one log is worked on at a time, and between two slices other
    requests are served, however many logs flow and however fast.

    Raises JobNotFound, InvalidParameter, LogsNotReady, LogsGone with what was kept, NotReady or KubernetesUnavailable.
    """
    attempt, pod = await _started(observer, key, query) if query.follow else _find(observer, key, query)
    name = pod.metadata.name
    if name in observer.deleted_pods(key):
        raise _log_unavailable(observer, key, name, pod)
    reader = _LogStream(kubernetes, observer, key, name, query, turn, clock, sleep, jitter)
    try:
        first = await reader.connect()
    except NotFound as error:
        if pod.is_terminal or pod.terminating:
            raise _log_unavailable(observer, key, name, pod) from error
        raise KubernetesUnavailable(f"the node of pod {name} does not know it at the moment: {error}") from error
    except Rejected as error:
        raise LogsNotReady(str(error)) from error
    except ClusterError as error:
        raise KubernetesUnavailable(str(error)) from error
    return Log(attempt, reader.read(first))


async def _started(observer: Observer, key: JobKey, query: LogQuery) -> tuple[int, Pod]:
    """The attempt to follow, once its container has started. The job's deadline bounds how long that can take."""
    with observer.subscribe(key) as reader:
        while True:
            try:
                attempt, pod = _find(observer, key, query)
            except _NotYet:
                pass
            else:
                if (pod.container.running or pod.container.terminated) and not pod.never_had_a_container:
                    return attempt, pod
                if query.attempt is not None and (pod.is_terminal or pod.metadata.name in observer.deleted_pods(key)):
                    raise LogsNotReady(f"attempt {attempt} ended before a container started, so there never was a log")
            view = observer.view(key)
            if view is not None and view.state.is_finished:
                raise LogsNotReady(f"the job is {view.state}, and no container of its last attempt has started")
            await reader.wait(LOOK_SECONDS)
            observer.require_synced()


class _NotYet(LogsNotReady):
    """The pod of the attempt may still come."""


def _find(observer: Observer, key: JobKey, query: LogQuery) -> tuple[int, Pod]:
    """The attempt that is asked for, numbered as in the job's view, and its pod."""
    view = observer.view(key)
    if view is None:
        raise JobNotFound(key.name)
    count = len(view.attempts)
    attempt = query.attempt or max(count, 1)
    if attempt > count:
        raise _no_such_attempt(attempt, count, over=view.state.is_finished)
    name = view.attempts[attempt - 1].pod
    pod = next((pod for pod in observer.attempts(key) if pod.metadata.name == name), None)
    if pod is None:
        raise _log_unavailable(observer, key, name, None)
    return attempt, pod


def _no_such_attempt(attempt: int, count: int, *, over: bool) -> PublicError:
    if attempt == count + 1 and not over:
        return _NotYet(f"attempt {attempt} has no pod yet")
    if count == 0:
        return LogsNotReady("the job has no pod, so there is no log")
    return InvalidParameter(
        f"the job has {count} attempts so far",
        violations=(Violation("attempt", "too_large", "there is no such attempt", str(attempt), str(count)),),
    )


def _log_unavailable(observer: Observer, key: JobKey, name: str, pod: Pod | None) -> LogsGone | LogsNotReady:
    """The pod no longer exists; `pod` is what is remembered of it. What was kept is the job's record or its status."""
    view = observer.view(key)
    attempt = next((attempt for attempt in view.attempts if attempt.pod == name), None) if view else None
    ended = pod.container.terminated if pod else None
    never_started = pod is not None and pod.never_had_a_container
    if never_started or (attempt is not None and attempt.started_at is None and attempt.exit_code is None):
        return LogsNotReady(f"pod {name} ended before a container started, so there never was a log")
    kept = view.excerpt.text if view and view.excerpt and view.excerpt.pod == name else None
    return LogsGone(
        f"pod {name} no longer exists; the excerpt is what was kept of the last lines",
        extra={"excerpt": kept or (ended.termination_message if ended else None), "pod": name},
    )


async def _slices(connection: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What a connection brings, in pieces of at most `SLICE_BYTES`. Closes it."""
    async with aclosing(connection):
        async for chunk in connection:
            for start in range(0, len(chunk), SLICE_BYTES):
                yield chunk[start : start + SLICE_BYTES]


class _LogStream:
    """One reader's way through the log of one container, over as many connections as that takes."""

    def __init__(
        self,
        kubernetes: KubeClient,
        observer: Observer,
        key: JobKey,
        pod: str,
        query: LogQuery,
        turn: asyncio.Lock,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._kubernetes = kubernetes
        self._observer = observer
        self._key = key
        self._pod = pod
        self._query = query
        self._turn = turn
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(jitter)
        self._cursor = LogCursor(from_start=query.tail is None)
        self._opened = clock()
        self._failing_since: float | None = None
        self._brought_news = False
        self._final = False
        """Whether the container had ended before the connection was opened."""
        self._whole = False
        """Whether everything came that there was when the last connection ended, as far as anyone can tell."""

    async def connect(self) -> AsyncGenerator[bytes, None]:
        """The next connection, once it is open. Raises the errors of a call to Kubernetes."""
        self._cursor.rewind()
        self._brought_news = False
        self._opened, self._final = self._clock(), self._ended()
        connection = self._kubernetes.read_log(
            self._key.namespace,
            self._pod,
            follow=self._query.follow,
            tail=self._query.tail if self._cursor.at_start else None,
            timestamps=True,
            since=self._cursor.since,
            idle=IDLE_SECONDS if self._query.follow else READ_IDLE_SECONDS,
        )
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await anext(connection)
        except TimeoutError as error:
            raise AmbiguousOutcome(f"the Kubernetes API did not answer within {OPEN_SECONDS:g} s") from error
        return connection

    async def read(self, connection: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """What was not sent before, from this connection and those that follow it. Raises StreamCut."""
        while True:
            try:
                async with aclosing(_slices(connection)) as slices:
                    async for piece in slices:
                        if text := await self._fresh(piece):
                            yield text
                if self._cursor.unexpected_text:
                    raise Rejected(f"the kubelet said: {self._cursor.unexpected_text}")
                if self._is_complete():
                    return
                self._whole, reason = True, "the log ended before its container did, or before it was all read"
                if not self._ended():
                    await self._until_ended(STATUS_SECONDS)
                elif not self._brought_news:
                    await self._sleep(self._backoff.next())
            except ClusterError as error:
                reason = await self._failed(error)
            following = await self._reconnect(reason)
            if following is None:
                return
            connection = following

    def _is_complete(self) -> bool:
        """Whether the log has ended with a connection that ended in good order."""
        if self._final:
            return self._cursor.caught_up and not self._brought_news
        return not self._query.follow and self._cursor.caught_up

    async def _fresh(self, piece: bytes) -> bytes:
        """The text in this slice that was not sent before, which may be empty; waits for its turn."""
        async with self._turn:
            pieces = self._cursor.feed(piece)
            await asyncio.sleep(0)
        if pieces:
            self._brought_news = True
            self._failing_since = None
            self._backoff.reset()
        if self._query.timestamps:
            return b"".join(stamp + b" " + text if stamp else text for stamp, text in pieces)
        return b"".join(text for _, text in pieces)

    async def _reconnect(self, reason: str) -> AsyncGenerator[bytes, None] | None:
        """The next connection; None where the log has ended. Raises StreamCut where the rest is not to be had."""
        if self._failing_since is None or self._clock() - self._opened > HEALTHY_SECONDS:
            self._failing_since = self._clock()
        while True:
            if self._is_gone():
                if self._whole:
                    return None
                raise StreamInterrupted(f"{reason}; since then pod {self._pod} has gone")
            if self._clock() - self._failing_since > RECONNECT_TIMEOUT_SECONDS:
                raise StreamInterrupted(f"{reason}; nothing new for {RECONNECT_TIMEOUT_SECONDS:g} s")
            try:
                return await self.connect()
            except ClusterError as error:
                reason = await self._failed(error)

    async def _failed(self, error: ClusterError) -> str:
        """Pause after a failure. What the kubelet itself says of a log that is no longer there cuts nothing off."""
        if not isinstance(error, NotFound | Rejected):
            self._whole = False
        log.info("log broke", job_id=self._key.name, pod=self._pod, reason=str(error))
        await self._sleep(self._backoff.next())
        return str(error)

    async def _until_ended(self, seconds: float) -> None:
        """Wait until the container is known to have ended, but no longer than so many seconds."""
        with self._observer.subscribe(self._key) as reader:
            deadline = self._clock() + seconds
            while not self._ended() and (left := deadline - self._clock()) > 0:
                await reader.wait(left)

    def _ended(self) -> bool:
        pod = self._known_pod()
        return self._is_gone() or pod is None or pod.is_terminal or pod.container.terminated is not None

    def _is_gone(self) -> bool:
        return self._known_pod() is None or self._pod in self._observer.deleted_pods(self._key)

    def _known_pod(self) -> Pod | None:
        pods = self._observer.attempts(self._key)
        return next((pod for pod in pods if pod.metadata.name == self._pod), None)
