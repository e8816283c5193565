"""Send requests to the API server: one method for calls, one for streams.

Tests replace the transport by a fake. The official client provides configuration and credentials (`kubeconfig`). The
requests are plain JSON over aiohttp, because the official client's models cost more than the rest of a submission.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from kubernetes.aio.config import ConfigException

from runway.backoff import Timing
from runway.client_socket import client_socket
from runway.errors import AmbiguousOutcome, NotExecuted, ResponseTooLarge, TooBusy
from runway.fair_share import FairSemaphore, FairSlots
from runway.kube.credentials import Credentials
from runway.kube.kubeconfig import Access

CONNECT_SECONDS = 2.0
MAX_RESPONSE_BYTES = 16 << 20
"""Bytes of one response. A page of 500 usual Jobs has 3 MiB, the largest possible object 10 MiB."""
RENEW_SECONDS = 15.0
"""For the renewal of credentials that a stream needs."""
MAX_QUEUED_SHARE = 0.5
"""The part of a call's time that it may wait for its turn. The rest is for the call."""
MIN_CALL_SECONDS = 0.001
"""The time of a call that has none left: aiohttp reads 0 as no limit."""
MAX_QUEUED_PER_SLOT = 4
"""Calls that may wait per call in progress. More would time out, so they are rejected at once."""
READ_BYTES = 1 << 16
"""Unread bytes of a stream; beyond it the API server pauses. The buffer can briefly hold twice as many."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    warnings: tuple[str, ...] = ()
    retry_after: int | None = None
    date: str | None = None
    """The API server's clock in whole seconds: https://www.rfc-editor.org/rfc/rfc9110#name-date"""


class Transport(Protocol):
    """The requests that `KubeClient` sends."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        """Send one call, which ends within `seconds`, its wait for a turn and a renewal of credentials included.

        Raises NotExecuted if it had no effect, AmbiguousOutcome if it may have one, or TooBusy.
        """

    def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a GET, an empty one first. Raises UnexpectedStatus for any status but 200.

        Raises NotExecuted or AmbiguousOutcome if the connection fails or is silent for `idle` seconds.
        """


class UnexpectedStatus(Exception):
    """A stream request got a status other than 200."""

    def __init__(self, answer: Response) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


class _Connections:
    """Connections with one client certificate and token."""

    def __init__(self, access: Access, max_in_flight: int) -> None:
        self.access = access
        proxy, tls = access.configuration.proxy, access.tls
        # Watches and logs stay open for long, so they have their own pool and cannot starve calls.
        calls = aiohttp.TCPConnector(limit=max_in_flight, ssl=tls, socket_factory=client_socket)
        self.calls = aiohttp.ClientSession(connector=calls, proxy=proxy)
        streams = aiohttp.TCPConnector(limit=0, ssl=tls, socket_factory=client_socket)
        self.streams = aiohttp.ClientSession(connector=streams, proxy=proxy, read_bufsize=READ_BYTES)
        self.requests = 0

    async def close(self) -> None:
        await self.calls.close()
        await self.streams.close()


class AiohttpTransport:
    """The connections to one API server. Create it inside an event loop, and `close` it."""

    def __init__(self, access: Access, max_in_flight: int, timing: Timing | None = None) -> None:
        self._timing = timing or Timing()
        self._credentials = Credentials(access, self._timing)
        self._max_in_flight = max_in_flight
        self._current = _Connections(access, max_in_flight)
        self._retired: set[_Connections] = set()
        # Namespaces take turns, so neither another tenant nor the Lease waits for one tenant's calls.
        self._slots = FairSemaphore(max_in_flight)
        self._waiting = FairSlots(max_in_flight * MAX_QUEUED_PER_SLOT)

    async def close(self) -> None:
        await self._credentials.close()
        for connections in (self._current, *self._retired):
            await connections.close()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        namespace, ends_at = _namespace(path), self._timing.clock() + seconds
        await self._acquire_slot(namespace, seconds * MAX_QUEUED_SHARE)
        try:
            return await self._call(method, path, query, body, content_type, ends_at)
        except TimeoutError as error:
            raise AmbiguousOutcome(f"the Kubernetes API did not answer within {seconds:g} s") from error
        finally:
            self._slots.release(namespace)

    async def _acquire_slot(self, namespace: str, seconds: float) -> None:
        if self._slots.try_acquire(namespace):  # Without a timer, which would cost more than the semaphore.
            return
        if not self._waiting.has_room(namespace):
            raise TooBusy("too many calls to Kubernetes are waiting for their turn")
        self._waiting.take(namespace)
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire(namespace)
        except TimeoutError:
            raise TooBusy("too many calls to Kubernetes are in progress") from None
        finally:
            self._waiting.release(namespace)

    async def _call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str, ends_at: float
    ) -> Response:
        """Send one call, which ends at this monotonic time. Raises TimeoutError if it has no response by then."""
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        try:
            async with self._use(self._left(ends_at)) as used:
                answer = await _send(used, method, path, query, body, headers, self._left(ends_at))
            if answer.status == 401 and await self._renewed(used.access, self._left(ends_at)):
                async with self._use(self._left(ends_at)) as used:
                    answer = await _send(used, method, path, query, body, headers, self._left(ends_at))
            return answer
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotExecuted(f"no connection to the Kubernetes API: {_reason(error)}") from error
        except TimeoutError:  # It is an OSError.
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise AmbiguousOutcome(f"the connection to the Kubernetes API broke: {_reason(error)}") from error

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle)
        renewed = False
        try:
            while True:
                async with self._use(RENEW_SECONDS) as used, await _open(used, path, query, limit) as response:
                    if response.status == 200:
                        yield b""
                        async for chunk in response.content.iter_any():
                            yield chunk
                        return
                    answer = _answer(response, await _body(response))
                renewed = answer.status == 401 and not renewed and await self._renewed(used.access, RENEW_SECONDS)
                if not renewed:
                    raise UnexpectedStatus(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotExecuted(f"no connection to the Kubernetes API: {_reason(error)}") from error
        except TimeoutError as error:
            raise AmbiguousOutcome(f"the Kubernetes API sent nothing for {idle:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AmbiguousOutcome(f"the connection to the Kubernetes API broke: {_reason(error)}") from error

    @asynccontextmanager
    async def _use(self, seconds: float) -> AsyncIterator[_Connections]:
        """Yield connections with valid credentials. Raises NotExecuted without them after `seconds`."""
        access = await self._credentials.current(seconds)
        if access is not self._current.access:
            # Requests in progress, such as watches, end with the credentials that they began with.
            self._retired.add(self._current)
            self._current = _Connections(access, self._max_in_flight)
        used = self._current
        used.requests += 1
        try:
            yield used
        finally:
            used.requests -= 1
            for idle in [retired for retired in self._retired if not retired.requests]:
                self._retired.discard(idle)
                await idle.close()

    def _left(self, ends_at: float) -> float:
        return max(MIN_CALL_SECONDS, ends_at - self._timing.clock())

    async def _renewed(self, rejected: Access, seconds: float) -> bool:
        """Return whether there are other credentials than those that got a 401."""
        try:
            async with asyncio.timeout(seconds):
                return await self._credentials.replace(rejected)
        except TimeoutError:
            return False


async def _send(
    used: _Connections,
    method: str,
    path: str,
    query: Mapping[str, str],
    body: bytes | None,
    headers: dict[str, str],
    seconds: float,
) -> Response:
    configuration = used.access.configuration
    limit = aiohttp.ClientTimeout(total=seconds, sock_connect=min(CONNECT_SECONDS, seconds))
    async with used.calls.request(
        method,
        configuration.host + path,
        params=query,
        data=body,
        headers=headers | await _authorization(used.access),
        timeout=limit,
        server_hostname=configuration.tls_server_name,
    ) as response:
        return _answer(response, await _body(response))


async def _open(
    used: _Connections, path: str, query: Mapping[str, str], limit: aiohttp.ClientTimeout
) -> aiohttp.ClientResponse:
    configuration = used.access.configuration
    return await used.streams.get(
        configuration.host + path,
        params=query,
        headers={"Accept": "*/*"} | await _authorization(used.access),
        timeout=limit,
        server_hostname=configuration.tls_server_name,
    )


async def _authorization(access: Access) -> dict[str, str]:
    """Return the bearer token. Client certificates are in the TLS context."""
    try:
        token = (await access.configuration.auth_settings()).get("BearerToken")
    except (OSError, ConfigException) as error:  # The token of the service account is read again every minute.
        raise NotExecuted(f"the token for the Kubernetes API cannot be read: {_reason(error)}") from error
    return {"Authorization": str(token["value"])} if token else {}


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read the body. Closes the connection and raises ResponseTooLarge beyond `MAX_RESPONSE_BYTES`."""
    if response.content_length is not None and response.content_length <= MAX_RESPONSE_BYTES:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            response.close()
            raise ResponseTooLarge(f"an answer of Kubernetes has more than {MAX_RESPONSE_BYTES >> 20} MiB")
    return bytes(body)


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Response:
    retry_after = response.headers.get("Retry-After", "")
    return Response(
        status=response.status,
        body=body,
        warnings=tuple(response.headers.getall("Warning", [])),
        retry_after=int(retry_after) if retry_after.isascii() and retry_after.isdigit() else None,
        date=response.headers.get("Date"),
    )


def _namespace(path: str) -> str:
    """Return the namespace of a path; empty for a call that concerns all of them."""
    return path.partition("/namespaces/")[2].partition("/")[0]


def _reason(error: Exception) -> str:
    cause = getattr(error, "os_error", None) or error
    return getattr(cause, "strerror", None) or type(cause).__name__
