"""The HTTP client: Runway's calls as methods, and everything that can go wrong with them as one small tree.

RequestFailed        `problem` tells what went wrong, in the members of RFC 9457
├── ApiError         the server answered, but not as asked: a problem document, or something that is not Runway's
└── Unreachable      no whole answer arrived: refused connection, timeout, broken stream
    └── StreamIdle   a stream sent nothing for too long; the connection may be dead, or the job just quiet
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import httpx2

from runway.cli.sse import Event, TooLong, read_events
from runway.cli.wire import DryRun, JobPage, JobView, QuotaPage, Usage

TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
IDLE_SECONDS = 300.0
PAGE_SIZE = 100

_FOLLOW_TIMEOUT = httpx2.Timeout(30.0, connect=5.0, read=IDLE_SECONDS)


class RequestFailed(Exception):
    """A call that did not bring what was asked for. `retry_after` is in seconds, None where the server named none."""

    def __init__(self, problem: Mapping[str, Any], *, retry_after: int | None = None) -> None:
        super().__init__(f"{problem.get('title')}: {problem.get('detail')}")
        self.problem = problem
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """The stable code of the problem."""
        return str(self.problem.get("code"))

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later without anything being changed."""
        return True


class ApiError(RequestFailed):
    """The server answered with a status that is not success; `status` is that status."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, retry_after: int | None = None) -> None:
        super().__init__(problem, retry_after=retry_after)
        self.status = status

    @property
    def transient(self) -> bool:
        return self.status in (429, 502, 503, 504)


class Unreachable(RequestFailed):
    """No whole answer arrived."""


class StreamIdle(Unreachable):
    """A stream was silent for longer than it may be."""


class Log(NamedTuple):
    """An open log. `attempt` is None where the server does not say which it is of."""

    attempt: int | None
    chunks: Iterator[bytes]


class JobEvent(NamedTuple):
    """What an event stream sent: a view and its id, or, where `view` is None, a sign of life."""

    id: str | None
    view: JobView | None


class Client:
    """Calls to one Runway on behalf of one tenant (None sends no `X-Tenant-ID`). A context manager.

    Every method raises RequestFailed. Raises ValueError where `url` is not an HTTP address.
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
            base.host.encode("idna")  # As the resolver will: a part of a name has at most 63 characters.
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise ValueError(f"{url!r} is not a URL: {error}") from error
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:8000")
        self.url = url
        self.tenant = tenant
        self._http = httpx2.Client(
            base_url=base,
            headers={"X-Tenant-ID": tenant} if tenant else {},
            timeout=timeout,
            transport=transport,
            # A proxy named in the environment is for the world outside, not for this machine.
            trust_env=not _is_loopback(base.host),
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, spec: Mapping[str, object], idempotency_key: str | None) -> tuple[JobView, bool]:
        """Submit a job. Returns its view, and whether it is the first job of a repeated idempotency key."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        response = self._send("POST", "/v1/jobs", json=spec, headers=headers)
        return _job(response), response.headers.get("Idempotent-Replay") == "true"

    def dry_run(self, spec: Mapping[str, object]) -> DryRun:
        """What a submission of this spec would come to, by the same checks; nothing is kept."""
        response = self._send("POST", "/v1/jobs", json=spec, params={"dry_run": "true"})
        return cast("DryRun", _document(response, "decision"))

    def job(self, job_id: str) -> JobView:
        """The view of one job."""
        return _job(self._send("GET", f"/v1/jobs/{job_id}"))

    def jobs(self, states: Sequence[str] = (), limit: int | None = None) -> JobPage:
        """The newest jobs in any of these states, or in every one, page by page.

        At most `limit`, or all; `next_cursor` is set where there are more.
        """
        found: list[JobView] = []
        cursor: str | None = None
        while True:
            size = PAGE_SIZE if limit is None else min(limit - len(found), PAGE_SIZE)
            query = {"limit": size, "state": list(states) or None, "cursor": cursor}
            response = self._send("GET", "/v1/jobs", params=_given(query))
            page = cast("JobPage", _document(response, "jobs"))
            found += page["jobs"][:size]
            cursor = page.get("next_cursor")
            if cursor is None or len(found) == limit or not page["jobs"]:
                return {"jobs": found, "next_cursor": cursor}

    def cancel(self, job_id: str) -> JobView:
        """Ask for the end of one of the tenant's jobs. Returns its view."""
        return _job(self._send("DELETE", f"/v1/jobs/{job_id}"))

    def quota(self) -> QuotaPage:
        """Quota of the tenant, or of every tenant where none was given."""
        return cast("QuotaPage", _document(self._send("GET", "/v1/quota"), "tenants"))

    def usage(self, job_id: str) -> Usage:
        """What a job uses, as far as that is known."""
        return cast("Usage", _document(self._send("GET", f"/v1/jobs/{job_id}/usage"), "throttled_ratio"))

    def tenants(self) -> list[str]:
        """The tenants of the policy in force."""
        return list(_document(self._send("GET", "/v1/policy"), "tenants")["tenants"])

    @contextmanager
    def events(self, job_id: str, last: str | None, idle_seconds: float) -> Iterator[Iterator[JobEvent]]:
        """A job's views as they change, from the one after the event `last`, until the server ends the stream.

        That is once the job is over, or deleted. A stream that breaks raises Unreachable at the next event; StreamIdle
        where nothing came for `idle_seconds`.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        timeout = httpx2.Timeout(30.0, connect=5.0, read=idle_seconds)
        with self._opened(f"/v1/jobs/{job_id}/events", {}, headers, timeout) as response:
            if response.status_code == 204:
                yield iter(())
                return
            if response.headers.get("Content-Type", "").split(";")[0].strip() != "text/event-stream":
                raise ApiError(response.status_code, _unexpected_response(response, "not an event stream"))
            yield _job_events(response)

    @contextmanager
    def logs(
        self, job_id: str, *, follow: bool, tail: int | None, attempt: int | None, timestamps: bool
    ) -> Iterator[Log]:
        """A job's log in chunks as they arrive. A connection that breaks raises Unreachable at the next chunk.

        So does one that Runway breaks off since it cannot bring the log to its end.
        """
        query = {"follow": follow or None, "tail": tail, "attempt": attempt, "timestamps": timestamps or None}
        timeout = _FOLLOW_TIMEOUT if follow else TIMEOUT
        with self._opened(f"/v1/jobs/{job_id}/logs", _given(query), {}, timeout) as response:
            number = response.headers.get("Runway-Attempt", "")
            yield Log(int(number) if re.fullmatch(r"[0-9]{1,9}", number) else None, response.iter_bytes())

    @contextmanager
    def _opened(
        self, path: str, query: Mapping[str, Any], headers: Mapping[str, str], timeout: httpx2.Timeout
    ) -> Iterator[httpx2.Response]:
        """An answer whose body is read as it comes. What breaks while it is read is raised as Unreachable."""
        request = self._http.build_request(
            "GET", path, params=query, headers={"Accept-Encoding": "identity", **headers}, timeout=timeout
        )
        with self._translated(streaming=True):
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise _api_error(response)
                yield response
            finally:
                response.close()

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        with self._translated():
            response = self._http.request(method, path, **request)
        if not response.is_success:
            raise _api_error(response)
        return response

    @contextmanager
    def _translated(self, *, streaming: bool = False) -> Iterator[None]:
        try:
            yield
        except httpx2.RequestError as error:
            kind = StreamIdle if streaming and isinstance(error, httpx2.ReadTimeout) else Unreachable
            what = str(error) or type(error).__name__
            problem = {"title": "Runway cannot be reached", "detail": f"{self.url}: {what}", "code": "unreachable"}
            raise kind(problem) from error


def _api_error(response: httpx2.Response) -> ApiError:
    seconds = response.headers.get("Retry-After", "")
    # The other form of the header, a date, is not Runway's.
    wait = int(seconds) if re.fullmatch(r"[0-9]{1,9}", seconds) else None
    if response.headers.get("Content-Type", "").split(";")[0].strip() == "application/problem+json":
        return ApiError(response.status_code, _document(response, "title"), retry_after=wait)
    return ApiError(response.status_code, _unexpected_response(response, "not a problem document"), retry_after=wait)


def _job_events(response: httpx2.Response) -> Iterator[JobEvent]:
    try:
        for event in read_events(response.iter_bytes()):
            yield _job_event(event, response)
    except TooLong as error:
        raise ApiError(response.status_code, _unexpected_response(response, str(error))) from error


def _job_event(event: Event | None, response: httpx2.Response) -> JobEvent:
    # `gone` tells of no view: the job was deleted, and the stream ends.
    if event is None or event.name != "message":
        return JobEvent(None, None)
    try:
        view = json.loads(event.data)
    except ValueError:
        view = None
    if not isinstance(view, dict) or "id" not in view:
        raise ApiError(response.status_code, _unexpected_response(response, "an event that is not a job"))
    return JobEvent(event.id, cast("JobView", view))


def _job(response: httpx2.Response) -> JobView:
    return cast("JobView", _document(response, "id"))


def _document(response: httpx2.Response, member: str) -> Mapping[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or member not in document:
        raise ApiError(response.status_code, _unexpected_response(response, f"not a JSON object with {member!r}"))
    return document


def _unexpected_response(response: httpx2.Response, what: str) -> dict[str, Any]:
    return {
        "title": "The answer is not Runway's",
        "status": response.status_code,
        "detail": f"{response.url} answered {response.status_code} with {what}; is the address right?",
        "code": "unexpected_answer",
    }


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
