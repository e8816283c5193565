"""Client for instant queries to Prometheus, with bounds on time, size and count.

https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries

Untrusted text enters a query only through `matching` and `matching_any`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import aiohttp
import msgspec

from runway.client_socket import client_socket
from runway.errors import PrometheusUnavailable
from runway.fair_share import FairSemaphore, FairSlots, Owner

QUERY_TIMEOUT_SECONDS: Final = 2.0
"""For one query, its wait for a connection included."""
MAX_CONCURRENT_QUERIES: Final = 8
"""Divided fairly, as the pending ones are: at most half of them for one tenant."""
MAX_PENDING_QUERIES: Final = 64
"""Queries in progress or waiting. Runway rejects more at once, since they would only time out."""
MAX_RESPONSE_BYTES: Final = 1 << 20
MAX_REASON_LENGTH: Final = 200
"""Characters of a reason that Prometheus or the decoder gives."""

# The characters that Go's regexp.QuoteMeta escapes: https://pkg.go.dev/regexp#QuoteMeta
_REGEX_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")


@dataclass(frozen=True, slots=True)
class SeriesValue:
    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A client of the Prometheus at `url`, which may have a path and credentials. Needs a running event loop."""

    def __init__(self, url: str, *, seconds: float = QUERY_TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._seconds = seconds
        self._pending = FairSlots(MAX_PENDING_QUERIES)
        self._concurrent = FairSemaphore(MAX_CONCURRENT_QUERIES)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONCURRENT_QUERIES, socket_factory=client_socket),
            timeout=aiohttp.ClientTimeout(total=seconds),
            # Decompression could exceed MAX_RESPONSE_BYTES in one step.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def query(self, promql: str, owner: Owner = None, at: datetime | None = None) -> list[SeriesValue]:
        """Return the samples of an instant vector at a time, by default Prometheus' current time.

        `owner` is the namespace that asks; None for Runway itself.
        Drops NaN and infinities, which come from a division by zero or a stale series. Raises PrometheusUnavailable.
        """
        if not self._pending.has_room(owner):
            detail = f"{self._pending.held[owner]} queries to Prometheus are pending, the share of one tenant"
            raise PrometheusUnavailable(detail)
        self._pending.take(owner)
        form = {"query": promql} | ({} if at is None else {"time": str(at.timestamp())})
        try:
            async with asyncio.timeout(self._seconds), self._concurrent.slot(owner):
                status, body = await self._post(form)
        except TimeoutError as error:
            raise PrometheusUnavailable(f"Prometheus did not answer within {self._seconds:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise PrometheusUnavailable(f"no connection to Prometheus: {_connection_fault(error)}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PrometheusUnavailable(f"the connection to Prometheus broke: {type(error).__name__}") from error
        finally:
            self._pending.release(owner)
        return _samples(status, body)

    async def _post(self, form: Mapping[str, str]) -> tuple[int, bytes]:
        # POST, since a query can exceed the maximum length of a URL. A redirect leads away from the configured server.
        async with self._session.post(self._url, data=form, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise PrometheusUnavailable(f"Prometheus' response is larger than {MAX_RESPONSE_BYTES} bytes")
            return response.status, bytes(body)


def matching(label: str, value: str) -> str:
    """Return a matcher for exactly this value."""
    return f"{label}={_string(value)}"


def matching_any(label: str, values: Iterable[str]) -> str:
    """Return a matcher for exactly these values, at least one."""
    escaped = [_REGEX_META.sub(r"\\\g<0>", value) for value in values]
    return f"{label}=~{_string('|'.join(escaped))}"


def _string(text: str) -> str:
    """Return a PromQL string literal. Go accepts every escape of JSON but `\\/`, which Python does not write."""
    return json.dumps(text, ensure_ascii=False)


def _connection_fault(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed, or its certificate is not trusted"
    return os.strerror(error.errno) if error.errno else type(error.os_error).__name__


class _Series(msgspec.Struct, frozen=True):
    value: tuple[float, str]
    metric: dict[str, str] = {}


class _Vector(msgspec.Struct, frozen=True, rename="camel"):
    result_type: Literal["vector"]
    result: tuple[_Series, ...] = ()


class _QueryResponse(msgspec.Struct, frozen=True):
    status: str = ""
    data: _Vector | None = None
    error: str = ""


_decoder = msgspec.json.Decoder(_QueryResponse)


def _samples(status: int, body: bytes) -> list[SeriesValue]:
    failed = f"Prometheus answered {status}" if status != 200 else "Prometheus did not execute the query"
    try:
        response = _decoder.decode(body)
        samples = [SeriesValue(s.metric, float(s.value[1])) for s in response.data.result] if response.data else []
    except (ValueError, RecursionError) as error:  # msgspec.DecodeError is a ValueError.
        unreadable = f"Prometheus' response could not be read: {str(error)[:MAX_REASON_LENGTH]}"
        raise PrometheusUnavailable(failed if status != 200 else unreadable) from error
    if status != 200 or response.status != "success" or response.data is None:
        reason = f": {response.error[:MAX_REASON_LENGTH]}" if response.error else ""
        raise PrometheusUnavailable(failed + reason)
    return [sample for sample in samples if math.isfinite(sample.value)]
