"""Prometheus as Runway uses it: one instant query, bounded in time, in answer and in number.

https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries

Text that comes from outside goes into a query through `matching` and `matching_any`, and in no other way.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import aiohttp
import msgspec

from runway.errors import PrometheusUnavailable

QUERY_TIMEOUT_SECONDS: Final = 2.0
"""How long one query may take, waiting for its turn included."""
MAX_CONCURRENT_QUERIES: Final = 8
"""Queries in progress at once."""
MAX_PENDING_QUERIES: Final = 64
"""Queries in progress or waiting: more would only time out, so they are refused at once."""
MAX_RESPONSE_BYTES: Final = 1 << 20
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value at the moment that was asked for. It is finite."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A client of the Prometheus at `url`, which may have a path of its own. Needs a running event loop; `close` it.

    User and password in the URL are sent as basic authentication, and named in no message.
    """

    def __init__(self, url: str, *, seconds: float = QUERY_TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._seconds = seconds
        self._open = 0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONCURRENT_QUERIES),
            timeout=aiohttp.ClientTimeout(total=seconds),
            # A compressed answer could grow beyond its bound in one step.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def query(self, promql: str, at: datetime | None = None) -> list[Sample]:
        """The samples of an instant vector at this moment, by default Prometheus' own now.

        Raises PrometheusUnavailable where there is no answer, or none that can be read. NaN and infinities are left
        out: they are a division by zero or a stale value, not a figure.
        """
        if self._open >= MAX_PENDING_QUERIES:
            raise PrometheusUnavailable("too many queries to Prometheus are waiting for their turn")
        self._open += 1
        try:
            status, body = await self._post({"query": promql} | ({} if at is None else {"time": str(at.timestamp())}))
        except TimeoutError as error:
            raise PrometheusUnavailable(f"Prometheus did not answer within {self._seconds:g} s") from error
        except aiohttp.ClientConnectorError as error:
            raise PrometheusUnavailable(f"no connection to Prometheus: {_reason(error)}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PrometheusUnavailable(f"the connection to Prometheus broke: {type(error).__name__}") from error
        finally:
            self._open -= 1
        return _samples(status, body)

    async def _post(self, form: Mapping[str, str]) -> tuple[int, bytes]:
        # A POST, since a query can be longer than a URL may be. A redirect is not followed: it is not what was set.
        async with self._session.post(self._url, data=form, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise PrometheusUnavailable(f"the answer of Prometheus is larger than {MAX_RESPONSE_BYTES} bytes")
            return response.status, bytes(body)


def matching(label: str, value: str) -> str:
    """A matcher for exactly this value, whatever it holds."""
    return f"{label}={_string(value)}"


def matching_any(label: str, values: Iterable[str]) -> str:
    """A matcher for any of exactly these values, of which there must be at least one."""
    return f"{label}=~{_string('|'.join(_REGEX_META.sub(_ESCAPED, value) for value in values))}"


_REGEX_META: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
"""What Go's regexp.QuoteMeta escapes: https://pkg.go.dev/regexp#QuoteMeta"""
_ESCAPED: Final = r"\\\g<0>"


def _string(text: str) -> str:
    """A PromQL string literal: Go's escapes in double quotes.

    https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals
    """
    return '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed, or its certificate is not trusted"
    return os.strerror(error.errno) if error.errno else type(error.os_error).__name__


class _Series(msgspec.Struct, frozen=True):
    value: tuple[float, str]
    metric: dict[str, str] = {}


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: Literal["vector"]
    result: tuple[_Series, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data | None = None
    error: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


_answer = msgspec.json.Decoder(_Answer)
_refusal = msgspec.json.Decoder(_Refusal)


def _samples(status: int, body: bytes) -> list[Sample]:
    if status != 200:
        raise PrometheusUnavailable(f"Prometheus answered {status}{_why(body)}")
    try:
        answer = _answer.decode(body)
        if answer.status != "success" or answer.data is None:
            raise PrometheusUnavailable(f"Prometheus did not carry out the query{_why(body)}")
        samples = [Sample(series.metric, float(series.value[1])) for series in answer.data.result]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PrometheusUnavailable(f"the answer of Prometheus could not be read: {str(error)[:200]}") from error
    return [sample for sample in samples if math.isfinite(sample.value)]


def _why(body: bytes) -> str:
    try:
        said = _refusal.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        said = ""
    return f": {said[:200]}" if said else ""
