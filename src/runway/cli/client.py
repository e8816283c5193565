"""The HTTP client: the API's calls as methods, with one tree of errors."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeVar

import httpx2
from pydantic import TypeAdapter, ValidationError

from runway.api.models import DryRun, JobList, QuotaView
from runway.jobs.models import JobView, Usage

TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
IDLE_SECONDS = 300.0
PAGE_SIZE = 100
UNEXPECTED = "unexpected_answer"
"""The code of an answer that is not Runway's."""
MAX_EVENT_BYTES = 4 << 20  # A job view has at most a few hundred thousand bytes: a longer event is not Runway's.

_USERINFO = re.compile(r"(?<=//)[^/?#]*@")
_FOLLOW_TIMEOUT = httpx2.Timeout(30.0, connect=5.0, read=IDLE_SECONDS)

T = TypeVar("T")

_adapter: Callable[[type], TypeAdapter[Any]] = cache(TypeAdapter)


class RequestFailed(Exception):
    """A failed call. `problem` has the members of RFC 9457; `retry_after` is in seconds, if the server named it."""

    def __init__(self, problem: Mapping[str, Any], *, retry_after: int | None = None) -> None:
        super().__init__(f"{problem.get('title')}: {problem.get('detail')}")
        self.problem = problem
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        return str(self.problem.get("code"))

    @property
    def transient(self) -> bool:
        return True


class ApiError(RequestFailed):
    """The server answered with a problem document, or with something that is not Runway's."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, retry_after: int | None = None) -> None:
        super().__init__(problem, retry_after=retry_after)
        self.status = status

    @property
    def is_own(self) -> bool:
        """Return whether Runway itself answered, with a problem document."""
        return self.code != UNEXPECTED

    @property
    def transient(self) -> bool:
        """Return whether a retry can help. Proxies have more statuses than 502 for a lost server, such as 524."""
        return self.status in (429, 502, 503, 504) or (self.status >= 500 and not self.is_own)


class Unreachable(RequestFailed):
    """No whole answer arrived: refused connection, timeout, broken stream."""


class NotConnected(Unreachable):
    """No connection existed, so nothing was sent."""


class StreamIdle(Unreachable):
    """A stream sent nothing for too long: the connection is dead, or the job is quiet."""


_UNREACHABLE: Mapping[type[httpx2.RequestError], type[Unreachable]] = {
    httpx2.ConnectError: NotConnected,
    httpx2.ConnectTimeout: NotConnected,
    httpx2.ReadTimeout: StreamIdle,
}


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A successful answer: `value` as its model, `document` as sent, with members that the model does not know."""

    value: T
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogStream:
    """An open log: its attempt, if named, the time of the first line that the node still has, and its chunks."""

    attempt: int | None
    first_line_at: str
    warning: str
    chunks: Iterator[bytes]


class Client:
    """Calls to one Runway for one tenant, or None. Every method raises RequestFailed; an invalid URL a ValueError.

    `url` is for messages: it has no password.
    """

    def __init__(
        self,
        url: str,
        tenant: str | None,
        transport: httpx2.BaseTransport | None = None,
        timeout: httpx2.Timeout = TIMEOUT,
    ) -> None:
        try:
            base = httpx2.URL(url)
            base.host.encode("idna")  # The resolver does the same: a label has at most 63 characters.
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise ValueError(f"{without_password(url)!r} is not a URL: {error}") from error
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"{without_password(url)!r} is not a URL such as http://127.0.0.1:8000")
        self.url = without_password(url)
        self.tenant = tenant
        self._http = httpx2.Client(
            base_url=base,
            headers={"X-Tenant-ID": tenant} if tenant else {},
            timeout=timeout,
            transport=transport,
            # A proxy in the environment does not serve this machine.
            trust_env=not _is_loopback(base.host),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, spec: Mapping[str, object], idempotency_key: str | None) -> tuple[Answer[JobView], bool]:
        """Submit a job. Return its view, and whether it is the first job of a repeated idempotency key."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        response = self._send("POST", "/v1/jobs", json=spec, headers=headers)
        return _answer(JobView, response), response.headers.get("Idempotent-Replay") == "true"

    def dry_run(self, spec: Mapping[str, object]) -> Answer[DryRun]:
        return _answer(DryRun, self._send("POST", "/v1/jobs", json=spec, params={"dry_run": "true"}))

    def job(self, job_id: str) -> Answer[JobView]:
        return _answer(JobView, self._send("GET", f"/v1/jobs/{job_id}"))

    def jobs(
        self,
        states: Sequence[str] = (),
        limit: int | None = None,
        *,
        name: str | None = None,
        id_prefix: str | None = None,
        since: datetime | None = None,
    ) -> Answer[JobList]:
        """Return the newest jobs that fit, at most `limit`; `next_cursor` is set where there are more."""
        found, documents = list[JobView](), list[Any]()
        cursor: str | None = None
        while True:
            size = PAGE_SIZE if limit is None else min(limit - len(found), PAGE_SIZE)
            query = {
                "limit": size, "state": list(states) or None, "name": name, "id_prefix": id_prefix, "cursor": cursor
            }  # fmt: skip
            page = _answer(JobList, self._send("GET", "/v1/jobs", params=without_none(query)))
            recent = [view for view in page.value.jobs[:size] if since is None or _is_since(view, since)]
            found += recent
            documents += page.document["jobs"][: len(recent)]
            # The newest come first: after the first older job, every job is older.
            cursor = page.value.next_cursor if len(recent) == len(page.value.jobs[:size]) else None
            if cursor is None or len(found) == limit or not page.value.jobs:
                return Answer(JobList(found, cursor), {"jobs": documents, "next_cursor": cursor})

    def cancel(self, job_id: str) -> Answer[JobView]:
        return _answer(JobView, self._send("DELETE", f"/v1/jobs/{job_id}"))

    def quota(self) -> Answer[QuotaView]:
        return _answer(QuotaView, self._send("GET", "/v1/quota"))

    def tenants(self) -> list[str]:
        """Return the tenants of the policy in force."""
        response = self._send("GET", "/v1/policy")
        tenants = _document(response).get("tenants")
        if not isinstance(tenants, dict):
            raise _unexpected(response, "no policy")
        return list(tenants)

    def policy(self) -> Mapping[str, Any]:
        """Return the policy as sent: each version of the server adds fields, and a reader shows what there is."""
        response = self._send("GET", "/v1/policy")
        document = _document(response)
        sections = [document.get(name) for name in ("limits", "images", "pools", "tenants")]
        members = [each for section in sections[2:] if isinstance(section, dict) for each in section.values()]
        if not all(isinstance(each, dict) for each in (*sections, *members)):
            raise _unexpected(response, "no policy")
        return document

    def usage(self, job_id: str) -> Answer[Usage]:
        return _answer(Usage, self._send("GET", f"/v1/jobs/{job_id}/usage"))

    @contextmanager
    def events(
        self, job_id: str, last: str | None, idle_seconds: float, expired: Callable[[], bool]
    ) -> Iterator[Iterator[tuple[str, Answer[JobView]]]]:
        """Yield event ids and views of a job, from the event after `last`, until the job is finished or deleted.

        End at the first chunk after `expired` returns True, which may be a heartbeat. A stream that breaks raises
        Unreachable at the next event; StreamIdle where nothing came for `idle_seconds`.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        timeout = httpx2.Timeout(30.0, connect=5.0, read=idle_seconds)
        with self._opened(f"/v1/jobs/{job_id}/events", {}, headers, timeout) as response:
            yield iter(()) if response.status_code == 204 else _job_events(response, expired)

    @contextmanager
    def logs(
        self, job_id: str, *, follow: bool, tail: int | None, attempt: int | None, timestamps: bool
    ) -> Iterator[LogStream]:
        """Open a log. A connection that breaks raises Unreachable at a chunk."""
        query = {"follow": follow or None, "tail": tail, "attempt": attempt, "timestamps": timestamps or None}
        timeout = _FOLLOW_TIMEOUT if follow else TIMEOUT
        with self._opened(f"/v1/jobs/{job_id}/logs", without_none(query), {}, timeout) as response:
            number = response.headers.get("Runway-Attempt", "")
            yield LogStream(
                int(number) if re.fullmatch(r"[0-9]{1,9}", number) else None,
                response.headers.get("Runway-Log-First-Line", ""),
                response.headers.get("Runway-Log-Warning", ""),
                response.iter_bytes(),
            )

    @contextmanager
    def _opened(
        self, path: str, query: Mapping[str, Any], headers: Mapping[str, str], timeout: httpx2.Timeout
    ) -> Iterator[httpx2.Response]:
        headers = {"Accept-Encoding": "identity", **headers}
        with (
            self._translated(),
            self._http.stream("GET", path, params=query, headers=headers, timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
                raise _api_error(response)
            yield response

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        with self._translated():
            response = self._http.request(method, path, **request)
        if not response.is_success:
            raise _api_error(response)
        return response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx2.RequestError as error:
            kind = _UNREACHABLE.get(type(error), Unreachable)
            detail = f"{self.url}: {str(error) or type(error).__name__}"
            raise kind({"title": "Runway is unreachable", "detail": detail, "code": "unreachable"}) from error


class _ExpiringBody(httpx2.SyncByteStream):
    """A body that ends at the first chunk after `expired` returns True: a heartbeat is a chunk, but no event."""

    def __init__(self, body: Any, expired: Callable[[], bool]) -> None:
        self._body, self._expired = body, expired

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            yield chunk
            if self._expired():
                return

    def close(self) -> None:
        self._body.close()


def _api_error(response: httpx2.Response) -> ApiError:
    seconds = response.headers.get("Retry-After", "")
    # Runway never sends the other form of the header, a date.
    wait = int(seconds) if re.fullmatch(r"[0-9]{1,9}", seconds) else None
    if response.headers.get("Content-Type", "").split(";")[0].strip() == "application/problem+json":
        problem = _document(response)
        if isinstance(problem.get("title"), str):
            return ApiError(response.status_code, problem, retry_after=wait)
    return _unexpected(response, "no problem document", retry_after=wait)


def _job_events(response: httpx2.Response, expired: Callable[[], bool]) -> Iterator[tuple[str, Answer[JobView]]]:
    response.stream = _ExpiringBody(response.stream, expired)
    try:
        for event in httpx2.EventSource(response, max_event_size=MAX_EVENT_BYTES):
            # The event `gone` has no view: the job was deleted, and the stream ends.
            if event.event == "message" and event.data:
                yield event.id, _decoded(JobView, event.json(), response)
    except (httpx2.SSEError, ValueError, RecursionError) as error:
        raise _unexpected(response, str(error)) from error


def _answer(model: type[T], response: httpx2.Response) -> Answer[T]:
    return _decoded(model, _document(response), response)


def _decoded(model: type[T], document: Any, response: httpx2.Response) -> Answer[T]:
    try:
        return Answer(_adapter(model).validate_python(document), document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "document"
        raise _unexpected(response, f"another document ({field}: {first['msg']})") from error


def _document(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _unexpected(response, "no JSON object")
    return document


def _unexpected(response: httpx2.Response, what: str, *, retry_after: int | None = None) -> ApiError:
    url = without_password(str(response.url))
    problem = {
        "title": "Unexpected answer",
        "status": response.status_code,
        "detail": f"{url} answered {response.status_code} with {what}; check the address",
        "code": UNEXPECTED,
    }
    return ApiError(response.status_code, problem, retry_after=retry_after)


def without_password(url: str) -> str:
    """Return a URL as messages and the logs of CI may show it, without user and password."""
    return _USERINFO.sub("", url)


def _is_since(view: JobView, moment: datetime) -> bool:
    return view.created_at is None or view.created_at >= moment


def without_none(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
