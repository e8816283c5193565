"""The seam to Kubernetes: two methods, one for a call and one for a stream.

Tests put a fake behind them; here they speak HTTP. Configuration and credentials are the official client's (`access`);
requests are plain JSON on a session of our own, since the official client's models cost more than everything else in a
submission (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from kubernetes.aio.config import ConfigException

from runway.errors import AmbiguousOutcome, NotExecuted, ResponseTooLarge, TooBusy
from runway.kube.kubeconfig import Access

CONNECT_SECONDS = 2.0
MAX_RESPONSE_BYTES = 16 << 20
"""Bytes of one answer: a page of 500 Jobs of usual size has 3 MiB, and the largest possible object 10 MiB."""
MAX_QUEUED_PER_SLOT = 4
"""Calls that may wait for each one in progress: more would only time out, so they are refused at once."""
READ_BYTES = 1 << 16
"""Bytes of a stream that wait to be read; the API server sends no more until half of them are. Up to twice as many for
a moment."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the API server said: any status, the whole body and its `Warning` headers."""

    status: int
    body: bytes
    warnings: tuple[str, ...] = ()
    retry_after: int | None = None


class Transport(Protocol):
    """What `Kubernetes` needs of the world."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        """One call. Raises NotDone where it certainly did not happen, Ambiguous where it may have, TooBusy."""

    def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        """The chunks of a GET as they come; an empty one first, as soon as the API server has answered 200.

        Raises StreamRefused with the answer for any other status, and NotDone or Ambiguous where the connection fails
        or where nothing comes for `idle` seconds.
        """


class UnexpectedStatus(Exception):
    """A stream that was answered with something other than 200."""

    def __init__(self, answer: Response) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


class AiohttpTransport:
    """The connection to one API server. Make it where an event loop runs, and `close` it."""

    def __init__(self, access: Access, max_in_flight: int) -> None:
        self._configuration = access.configuration
        proxy, tls = access.configuration.proxy, access.tls
        # Streams (watches, logs) stay open for long, so they have a pool of their own and cannot starve calls.
        calls = aiohttp.TCPConnector(limit=max_in_flight, ssl=tls)
        self._calls = aiohttp.ClientSession(connector=calls, proxy=proxy)
        streams = aiohttp.TCPConnector(limit=0, ssl=tls)
        self._streams = aiohttp.ClientSession(connector=streams, proxy=proxy, read_bufsize=READ_BYTES)
        self._slots = asyncio.Semaphore(max_in_flight)
        self._waiting, self._max_waiting = 0, max_in_flight * MAX_QUEUED_PER_SLOT

    async def close(self) -> None:
        """Close every connection."""
        await self._calls.close()
        await self._streams.close()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        await self._acquire_slot(seconds)
        try:
            return await self._call(method, path, query, body, content_type, seconds)
        finally:
            self._slots.release()

    async def _acquire_slot(self, seconds: float) -> None:
        if not self._slots.locked():
            await self._slots.acquire()  # At once: a timer for it would cost more than it does.
            return
        if self._waiting >= self._max_waiting:
            raise TooBusy("too many calls to Kubernetes are waiting for their turn")
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise TooBusy("too many calls to Kubernetes are in progress") from None
        finally:
            self._waiting -= 1

    async def _call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        headers = {"Content-Type": content_type, "Accept": "application/json", **await self._authorization()}
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=min(CONNECT_SECONDS, seconds))
        try:
            async with self._calls.request(
                method,
                self._configuration.host + path,
                params=query,
                data=body,
                headers=headers,
                timeout=limit,
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                return _answer(response, await _body(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotExecuted(f"no connection to the Kubernetes API: {_reason(error)}") from error
        except TimeoutError as error:
            raise AmbiguousOutcome(f"the Kubernetes API did not answer within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AmbiguousOutcome(f"the connection to the Kubernetes API broke: {_reason(error)}") from error

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        headers = {"Accept": "*/*", **await self._authorization()}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle)
        try:
            async with self._streams.get(
                self._configuration.host + path,
                params=query,
                headers=headers,
                timeout=limit,
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                if response.status != 200:
                    raise UnexpectedStatus(_answer(response, await _body(response)))
                yield b""
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotExecuted(f"no connection to the Kubernetes API: {_reason(error)}") from error
        except TimeoutError as error:
            raise AmbiguousOutcome(f"the Kubernetes API sent nothing for {idle:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AmbiguousOutcome(f"the connection to the Kubernetes API broke: {_reason(error)}") from error

    async def _authorization(self) -> dict[str, str]:
        """The bearer token where one is configured, refreshed by the official client; certificates are in the TLS."""
        try:
            token = (await self._configuration.auth_settings()).get("BearerToken")
        except (OSError, ConfigException) as error:  # The service account's token is read again each minute.
            raise NotExecuted(f"the token for the Kubernetes API cannot be read: {_reason(error)}") from error
        return {"Authorization": str(token["value"])} if token else {}


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises AnswerTooLarge, and breaks the connection off, as soon as it passes `MAX_ANSWER`."""
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
    )


def _reason(error: Exception) -> str:
    cause = getattr(error, "os_error", None) or error
    return getattr(cause, "strerror", None) or type(cause).__name__
