"""The log of a job's attempt, read from its pod while the pod exists.

1. Find the attempt. With `follow`, wait for its container to start.
2. Open the log. An error before this is a problem document; an error after it breaks the connection.
3. Pass on the bytes from the kubelet without the timestamps that Runway requested.
4. Open the log again after each connection, until it has ended (docs/decisions/010-complete-logs.md). Without `follow`,
   the log of a running container is read once.
5. Raise StreamInterrupted if nothing new arrives within `RECONNECT_TIMEOUT_SECONDS`, or if the kubelet rotated away
   lines that were not read: it serves only its newest file (`log_start`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from runway import errors
from runway.backoff import Backoff
from runway.fair_share import FairSemaphore
from runway.jobs.diagnosis.container_exit import failed_to_start
from runway.jobs.log_excerpt import excerpt_of, secrets_of
from runway.jobs.log_link import log_url
from runway.jobs.models import JobView
from runway.kube.client import KubeClient
from runway.kube.objects import Pod
from runway.log_cursor import JUMP_SECONDS, NANOSECONDS, Jump, LogCursor
from runway.services.log_start import first_line_time, missing_start
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

log = structlog.get_logger()

RECONNECT_TIMEOUT_SECONDS: Final = 60.0  # A log without new data for this long is interrupted.
OPEN_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 120.0  # A followed log without data for this long is opened again: the connection may be dead.
READ_IDLE_SECONDS: Final = 30.0
HEALTHY_SECONDS: Final = 30.0  # A connection that lasted this long is no failure, even without data.
STATUS_SECONDS: Final = 2.0  # The kubelet reports the end of a container about a second after its log ends.
LOOK_SECONDS: Final = 15.0  # The longest pause between two checks of a job that has not started.
PAUSE_SECONDS: Final = 1.0
"""A connection without data for this long has sent everything that the kubelet had. Lines that arrive this much closer
than they were written were read late."""
ROTATION_BYTES: Final = 1 << 20
"""A rotation between fewer bytes than this is not looked for: the kubelet's files have 10 MiB by default."""
SLICE_BYTES: Final = 1 << 16
"""Bytes of a log processed before other requests run: 1.5 ms, or 4 ms if all lines are empty."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """The parameters of a log. `attempt` counts from 1, None means the last; `tail` is in lines."""

    attempt: int | None = None
    follow: bool = False
    tail: int | None = None
    timestamps: bool = False


@dataclass(frozen=True, slots=True)
class OpenLog:
    """An open log: its attempt and its bytes. Close `chunks`; it raises StreamInterrupted.

    `first_line_at` is the time of the first line that the node still has, None without one. `warning` says that earlier
    lines may be missing.
    """

    attempt: int
    chunks: AsyncGenerator[bytes, None]
    first_line_at: str | None = None
    warning: str | None = None


async def open_log(
    kubernetes: KubeClient,
    cluster: ClusterState,
    key: JobKey,
    query: LogQuery,
    turn: FairSemaphore,
    *,
    now: Callable[[], datetime],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = random.random,
) -> OpenLog:
    """Open the log of an attempt; with `follow`, once its container has started.

    All logs of a process share `turn`: one slice of one log is processed at a time, of each tenant in turn, and other
    requests run between.
    Raises JobNotFound, InvalidParameter, LogsNotReady, LogsGone with the excerpt, NotReady or KubernetesUnavailable.
    """
    attempt, pod = await _started(cluster, key, query) if query.follow else _find(cluster, key, query)
    name, asked_at = pod.metadata.name, now()
    if _never_started(pod):
        raise _no_log(cluster, key, pod)
    if name in cluster.deleted_pods(key):
        raise _log_unavailable(cluster, key, name, pod)
    cursor = LogCursor(from_start=query.tail is None)
    reader = _LogStream(kubernetes, cluster, key, pod, query, turn, clock, sleep, Backoff(jitter), cursor)
    try:
        first = await reader.connect()
    except errors.NotFound as error:
        if pod.is_terminal or pod.terminating:
            raise _log_unavailable(cluster, key, name, pod) from error
        raise errors.KubernetesUnavailable(f"the node does not know pod {name} at the moment: {error}") from error
    except errors.Rejected as error:
        raise errors.LogsNotReady("; ".join(_waits(cluster.view(key)) or [str(error)])) from error
    except errors.ClusterError as error:
        raise errors.KubernetesUnavailable(str(error)) from error
    begins = await first_line_time(kubernetes, pod)
    chunks = reader.read(first)
    return OpenLog(attempt, chunks, begins.stamp if begins else None, missing_start(pod, begins, asked_at))


async def _started(cluster: ClusterState, key: JobKey, query: LogQuery) -> tuple[int, Pod]:
    """Wait until the container of the attempt has started. The job's deadline bounds the wait."""
    with cluster.subscriptions.subscribe(key) as reader:
        while True:
            try:
                attempt, pod = _find(cluster, key, query)
            except _NotYet:
                pass
            else:
                if (pod.container.running or pod.container.terminated) and not _never_started(pod):
                    return attempt, pod
                if query.attempt is not None and (pod.is_terminal or pod.metadata.name in cluster.deleted_pods(key)):
                    raise _no_log(cluster, key, pod)
            view = cluster.view(key)
            if view is not None and view.is_finished:
                why = f": {view.failure.message}" if view.failure else ""
                raise errors.LogsNotReady(
                    f"the job is {view.state}, and no container of its last attempt has started{why}"
                )
            await reader.wait(LOOK_SECONDS)
            cluster.require_synced()


def _never_started(pod: Pod) -> bool:
    ended = pod.container.terminated
    return pod.never_had_a_container or (ended is not None and failed_to_start(ended))


def _no_log(cluster: ClusterState, key: JobKey, pod: Pod) -> errors.LogsNotReady:
    view = cluster.view(key)
    attempts = view.attempts if view else []
    message = next((attempt.message for attempt in attempts if attempt.pod == pod.metadata.name), None)
    text = f"pod {pod.metadata.name} ended before a container started, so there never was a log"
    return errors.LogsNotReady(f"{text}: {message}" if message else text)


class _NotYet(errors.LogsNotReady):
    """The attempt's pod may still be created."""


def _find(cluster: ClusterState, key: JobKey, query: LogQuery) -> tuple[int, Pod]:
    """Find the attempt, numbered as in the job's view, and its pod."""
    view = cluster.view(key)
    if view is None:
        raise errors.JobNotFound(key.name)
    count = len(view.attempts)
    attempt = query.attempt or max(count, 1)
    if attempt == count + 1 and not view.is_finished:
        raise _NotYet("; ".join([f"attempt {attempt} has no pod yet", *_waits(view)]))
    if count == 0:
        raise errors.LogsNotReady("; ".join(["the job has no pod, so there is no log", *_waits(view)]))
    if attempt > count:
        fault = errors.Violation("attempt", "too_large", "there is no such attempt", str(attempt), str(count))
        so_far = "1 attempt" if count == 1 else f"{count} attempts"
        raise errors.InvalidParameter(f"the job has {so_far} so far", violations=(fault,))
    name = view.attempts[attempt - 1].pod
    pod = next((pod for pod in cluster.attempts(key) if pod.metadata.name == name), None)
    if pod is None:
        raise _log_unavailable(cluster, key, name, None)
    return attempt, pod


def _waits(view: JobView | None) -> list[str]:
    return [f"{condition.code}: {condition.message}" for condition in view.conditions] if view else []


def _log_unavailable(
    cluster: ClusterState, key: JobKey, name: str, pod: Pod | None
) -> errors.LogsGone | errors.LogsNotReady:
    """Explain why there is no log, with the excerpt. `pod` is the last known state of the deleted pod."""
    view = cluster.view(key)
    attempt = next((attempt for attempt in view.attempts if attempt.pod == name), None) if view else None
    ended = pod.container.terminated if pod else None
    if pod is not None and _never_started(pod):
        return _no_log(cluster, key, pod)
    if attempt is not None and attempt.started_at is None and attempt.exit_code is None:
        return errors.LogsNotReady(f"pod {name} ended before a container started, so there never was a log")
    job, excerpt = cluster.job(key), view.excerpt if view and view.excerpt and view.excerpt.pod == name else None
    if excerpt is None and job is not None and ended is not None:
        excerpt = excerpt_of(name, ended.termination_message or "", secrets_of(job))
    extra: dict[str, object] = {"excerpt": excerpt.text if excerpt else None, "pod": name}
    if cluster.log_template and view and (url := log_url(cluster.log_template, view, name)):
        extra["logs_url"] = url
    return errors.LogsGone(f"pod {name} no longer exists; the excerpt has the last lines of its log", extra=extra)


async def _slices(connection: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(connection):
        async for chunk in connection:
            for start in range(0, len(chunk), SLICE_BYTES):
                yield chunk[start : start + SLICE_BYTES]


@dataclass(slots=True)
class _LogStream:
    """The log of one container for one reader, over as many connections as necessary."""

    _kubernetes: KubeClient
    _cluster: ClusterState
    _key: JobKey
    _first_pod: Pod
    _query: LogQuery
    _turn: FairSemaphore
    _clock: Callable[[], float]
    _sleep: Callable[[float], Awaitable[None]]
    _backoff: Backoff
    _cursor: LogCursor
    _opened: float = 0.0
    _failing_since: float | None = None
    _brought_news: bool = False
    _final: bool = False
    """True if the container had ended before the connection was opened."""
    _arrived: float = 0.0
    _has_paused: bool = False
    """Whether this connection has once sent everything that the kubelet had."""
    _unverified_bytes: int = 0
    """Bytes since the kubelet's file was last known to be the one that is read."""
    _whole: bool = False
    """True if the last connection ended without an error, so that it brought everything that existed then."""

    @property
    def _pod(self) -> str:
        return self._first_pod.metadata.name

    async def connect(self) -> AsyncGenerator[bytes, None]:
        """Open the next connection. Raises the errors of a call to Kubernetes, and StreamInterrupted."""
        self._cursor.rewind(whole=self._whole)
        self._brought_news = False
        self._opened, self._final = self._clock(), self._ended()
        connection = self._kubernetes.read_log(
            self._key.namespace,
            self._pod,
            container=self._first_pod.container_name,
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
            raise errors.AmbiguousOutcome(f"the Kubernetes API did not answer within {OPEN_SECONDS:g} s") from error
        self._arrived, self._has_paused = self._clock(), False
        last = self._cursor.newest
        try:
            if last is not None:
                await self._require_line(Jump(last, last + int(JUMP_SECONDS * NANOSECONDS)))
        except errors.StreamInterrupted:
            await connection.aclose()
            raise
        return connection

    async def _require_line(self, jump: Jump) -> None:
        """Raise StreamInterrupted if the kubelet's file begins after a jump's first line, by more than the jump."""
        begins = await first_line_time(self._kubernetes, self._first_pod)
        if begins is None:
            return
        if begins.nanoseconds >= jump.after:
            raise errors.StreamInterrupted(f"the node rotated the log of pod {self._pod} away before it was read")
        self._unverified_bytes = 0

    async def _detect_gap(self, piece: bytes) -> None:
        """Raise StreamInterrupted if the kubelet skipped a file: it opens its newest one at the end of the last.

        Lines that were read when they were written have no gap. The first pause of a connection is an exception: the
        kubelet misses a rotation before it. https://github.com/kubernetes/kubernetes/issues/126564
        """
        pause, jump = self._clock() - self._arrived, self._cursor.jump
        self._arrived += pause
        self._unverified_bytes += len(piece)
        was_first_pause = pause > PAUSE_SECONDS and not self._has_paused
        self._has_paused |= was_first_pause
        if jump is None or not self._query.follow or self._unverified_bytes < ROTATION_BYTES:
            return
        if was_first_pause or jump.seconds - pause > PAUSE_SECONDS:
            await self._require_line(jump)

    async def read(self, connection: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield the bytes that were not sent before, of this and later connections. Raises StreamInterrupted."""
        while True:
            try:
                async with aclosing(_slices(connection)) as slices:
                    async for piece in slices:
                        text = await self._fresh(piece)
                        await self._detect_gap(piece)
                        if text:
                            yield text
                if self._cursor.unexpected_text:
                    raise errors.Rejected(f"the kubelet said: {self._cursor.unexpected_text}")
                # The container had ended before this connection, or the log of a running container is read once.
                is_complete = not self._brought_news if self._final else not self._query.follow
                if is_complete and self._cursor.caught_up:
                    return
                self._whole, reason = True, "the log ended before its container did, or before it was all read"
                if not self._ended():
                    await self._until_ended(STATUS_SECONDS)
                elif not self._brought_news:
                    await self._sleep(self._backoff.next())
            except errors.ClusterError as error:
                reason = await self._failed(error)
            following = await self._reconnect(reason)
            if following is None:
                return
            connection = following

    async def _fresh(self, piece: bytes) -> bytes:
        """Wait for the turn, and return the bytes of this slice that were not sent before."""
        async with self._turn.slot(self._key.namespace):
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
        """Open the next connection; None if the log has ended. Raises StreamInterrupted if the rest is unavailable."""
        if self._failing_since is None or self._clock() - self._opened > HEALTHY_SECONDS:
            self._failing_since = self._clock()
        while True:
            if self._is_gone():
                if self._whole:
                    return None
                raise errors.StreamInterrupted(f"{reason}; since then pod {self._pod} was deleted")
            if self._clock() - self._failing_since > RECONNECT_TIMEOUT_SECONDS:
                raise errors.StreamInterrupted(f"{reason}; nothing new for {RECONNECT_TIMEOUT_SECONDS:g} s")
            try:
                return await self.connect()
            except errors.ClusterError as error:
                reason = await self._failed(error)

    async def _failed(self, error: errors.ClusterError) -> str:
        """Pause after a failure. If the kubelet itself says that the log no longer exists, nothing is missing."""
        if not isinstance(error, errors.NotFound | errors.Rejected):
            self._whole = False
        log.info("log broke", job_id=self._key.name, pod=self._pod, reason=str(error))
        await self._sleep(self._backoff.next())
        return str(error)

    async def _until_ended(self, seconds: float) -> None:
        with self._cluster.subscriptions.subscribe(self._key) as reader:
            deadline = self._clock() + seconds
            while not self._ended() and (left := deadline - self._clock()) > 0:
                await reader.wait(left)

    def _ended(self) -> bool:
        pod = self._known_pod()
        return self._is_gone() or pod is None or pod.is_terminal or pod.container.terminated is not None

    def _is_gone(self) -> bool:
        return self._known_pod() is None or self._pod in self._cluster.deleted_pods(self._key)

    def _known_pod(self) -> Pod | None:
        pods = self._cluster.attempts(self._key)
        return next((pod for pod in pods if pod.metadata.name == self._pod), None)
