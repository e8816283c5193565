"""Typed Kubernetes operations over the two methods of the transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from runway import errors
from runway.kube.decode import IsKnown, decode_lease, decode_list, decode_object, decode_watch_event
from runway.kube.objects import (
    LABEL_JOB_NAME,
    Event,
    Job,
    Lease,
    MetadataFilter,
    Node,
    Object,
    ObjectList,
    Pod,
    WatchEvent,
)
from runway.kube.server_version import ServerVersion, read_version
from runway.kube.transport import Response, Transport, UnexpectedStatus
from runway.text import one_line

PAGE_SIZE: Final = 500
"""Objects in one page of a list: bounds the work of the API server and our memory."""
PAGE_STEP: Final = 8
"""Divides the page size after a page was too large or too slow."""
WATCH_SECONDS: Final = 300
"""Duration of one watch, after which it is renewed."""
WATCH_SECONDS_WITHOUT_BOOKMARKS: Final = 60
"""The end of such a watch is its only sign of life, so it comes before `IDLE_SECONDS`."""
IDLE_SECONDS: Final = 90.0
"""Bookmarks arrive about once a minute, so a watch that is silent for longer is dead."""
MAX_EVENT_BYTES: Final = 16 << 20
"""etcd limits objects to 1.5 MiB, and JSON can escape one byte as six."""

VERB_METHODS: Final = {"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}
"""The HTTP method by API verb. https://kubernetes.io/docs/reference/access-authn-authz/authorization/"""
OUTCOMES: Final[Mapping[type[Exception], str]] = {
    errors.NotFound: "missing",
    errors.AlreadyExists: "conflict",
    errors.Conflict: "conflict",
    errors.ResourceExpired: "expired",
    errors.Rejected: "refused",
    errors.NotExecuted: "not_done",
    errors.AmbiguousOutcome: "ambiguous",
    errors.ResponseTooLarge: "too_large",
    errors.TooBusy: "too_busy",
}
"""The outcome of a call by its error; `ok` without one. Both kinds of 409 are `conflict`."""
OnCall = Callable[[str, str, str], None]
"""Called with verb, kind and outcome after each call."""


@dataclass(frozen=True, slots=True)
class Resource(Generic[Object]):
    """A kind of object that is listed and watched in all namespaces."""

    name: str
    path: str
    type: type[Object]
    selector: str | None = None
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/"""
    has_bookmarks: bool = True

    @property
    def watch_seconds(self) -> int:
        return WATCH_SECONDS if self.has_bookmarks else WATCH_SECONDS_WITHOUT_BOOKMARKS

    @property
    def query(self) -> dict[str, str]:
        return {} if self.selector is None else {"fieldSelector": self.selector}


JOBS: Final[Resource[Job]] = Resource("jobs", "/apis/batch/v1/jobs", Job)
PODS: Final[Resource[Pod]] = Resource("pods", "/api/v1/pods", Pod)
ROUTINE_REASONS: Final = (
    "Scheduled", "Pulling", "Pulled", "Created", "Started", "Killing", "SuccessfulCreate", "SuccessfulDelete",
    "Completed",
)  # fmt: skip
"""Normal events of every job, which the API server leaves out. Autoscalers post normal events too, of other reasons."""
EVENTS: Final[Resource[Event]] = Resource(
    "events",
    "/api/v1/events",
    Event,
    selector=",".join(f"reason!={reason}" for reason in ROUTINE_REASONS),
    has_bookmarks=False,  # No watch cache: https://github.com/kubernetes/kubernetes/issues/120348
)
NODES: Final[Resource[Node]] = Resource("nodes", "/api/v1/nodes", Node)

_Decoded = TypeVar("_Decoded")


class Status(msgspec.Struct, frozen=True, rename="camel"):
    code: int = 0
    reason: str | None = None
    message: str | None = None


class _ErrorEvent(msgspec.Struct):
    type: str
    object: Status


_status = msgspec.json.Decoder(Status)
_error_event = msgspec.json.Decoder(_ErrorEvent)


class KubeClient:
    """Every operation raises only errors of `runway.errors`; `seconds` bounds each call.

    `on_call` is called after each call, once per page of a list. A stream that this process closes has no outcome.
    Without `metadata` all labels and annotations are kept.
    """

    def __init__(
        self,
        transport: Transport,
        seconds: float,
        on_call: OnCall = lambda *_: None,
        metadata: MetadataFilter | None = None,
    ) -> None:
        self._transport = transport
        self._seconds = seconds
        self._on_call = on_call
        self._metadata = metadata
        self._page_limits: dict[str, int] = {}
        """Objects in the next page by kind; `PAGE_SIZE` by default."""

    async def create_job(self, namespace: str, manifest: Mapping[str, object]) -> Job:
        """Create a Job. After any error but AmbiguousOutcome the Job was not created."""
        return self._job(await self._call("create", "jobs", _jobs(namespace), body=manifest))

    async def create_job_dry_run(self, namespace: str, manifest: Mapping[str, object]) -> tuple[str, ...]:
        """Validate a Job by a server-side dry run; return the warnings. Raises as `create_job` does.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
        """
        answer = await self._call("create", "jobs", _jobs(namespace), query={"dryRun": "All"}, body=manifest)
        return answer.warnings

    async def get_job(self, namespace: str, name: str) -> Job | None:
        """Get a Job; None without one of this name."""
        try:
            return self._job(await self._call("get", "jobs", f"{_jobs(namespace)}/{quote(name)}"))
        except errors.NotFound:
            return None

    async def list_pods_of_job(self, namespace: str, name: str) -> tuple[Pod, ...]:
        """List at most one page of pods of all Jobs that have had this name."""
        query = {"labelSelector": f"{LABEL_JOB_NAME}={name}", "limit": str(PAGE_SIZE)}
        answer = await self._call("list", "pods", f"/api/v1/namespaces/{quote(namespace)}/pods", query=query)
        return _read(answer, lambda body: decode_list(body, Pod, self._metadata)).items

    async def patch_job(self, namespace: str, name: str, patch: Mapping[str, object]) -> Job:
        """Apply a merge patch to a Job. Raises NotFound without one."""
        path, content_type = f"{_jobs(namespace)}/{quote(name)}", "application/merge-patch+json"
        return self._job(await self._call("patch", "jobs", path, body=patch, content_type=content_type))

    async def version(self) -> ServerVersion:
        """Get the version of the API server."""
        return read_version(await self._call("get", "version", "/version"))

    async def ping(self, seconds: float) -> None:
        """Check that the API server responds within `seconds`."""
        await self._call("get", "version", "/version", seconds=seconds)

    async def get_lease(self, namespace: str, name: str) -> Lease | None:
        """Get a Lease; None without one of this name."""
        try:
            answer = await self._call("get", "leases", f"{_leases(namespace)}/{quote(name)}")
            return _read(answer, decode_lease)
        except errors.NotFound:
            return None

    async def create_lease(self, namespace: str, document: Mapping[str, object]) -> None:
        """Create a Lease. Raises AlreadyExists if another process created it first."""
        await self._call("create", "leases", _leases(namespace), body=document)

    async def update_lease(self, namespace: str, name: str, document: Mapping[str, object]) -> None:
        """Replace the version of a Lease that the document names. Raises Conflict if it has changed."""
        await self._call("update", "leases", f"{_leases(namespace)}/{quote(name)}", body=document)

    async def list(self, kind: Resource[Object]) -> ObjectList[Object]:
        """List every object of all namespaces, in pages of one resource version. Raises ResourceExpired if too slow.

        A page above the size limit is requested again at once, with fewer objects. After a time-out the next list
        starts with a smaller page. Each page that succeeds doubles the size of the next one.
        """
        query = dict(kind.query)
        items: list[Object] = []
        while True:
            limit = self._page_limits.get(kind.name, PAGE_SIZE)
            try:
                answer = await self._call("list", kind.name, kind.path, query={**query, "limit": str(limit)})
            except errors.AmbiguousOutcome as error:
                self._page_limits[kind.name] = max(1, limit // PAGE_STEP)
                if limit == 1 or not isinstance(error, errors.ResponseTooLarge):
                    raise
                continue
            self._page_limits[kind.name] = min(PAGE_SIZE, 2 * limit)
            page = _read(answer, lambda body: decode_list(body, kind.type, self._metadata))
            items.extend(page.items)
            if not page.metadata.continue_:
                return ObjectList(metadata=page.metadata, items=tuple(items))
            query["continue"] = page.metadata.continue_

    async def watch(
        self, kind: Resource[Object], version: str, is_known: IsKnown = lambda _: False
    ) -> AsyncGenerator[WatchEvent[Object], None]:
        """Yield every event after `version`, bookmarks included, until the server closes the watch.

        An event of a known version is yielded as a bookmark.

        Raises ResourceExpired if `version` is too old, and the errors of a call. A silent watch is ambiguous.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", **kind.query}
        query["timeoutSeconds"] = str(kind.watch_seconds)
        query["resourceVersion"] = version
        with self._record_outcome("watch", kind.name):
            async with aclosing(self._lines(kind.path, query)) as lines:
                async for line in lines:
                    try:
                        event = decode_watch_event(line, kind.type, self._metadata, is_known)
                    except (msgspec.DecodeError, RecursionError):
                        raise _watch_error(line) from None
                    yield event

    async def read_log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str,
        follow: bool,
        tail: int | None,
        timestamps: bool,
        idle: float,
        since: datetime | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a pod's log, an empty one first. With `timestamps` each line starts with its time.

        Raises NotFound if the pod is deleted, Rejected if it has no log yet, and AmbiguousOutcome if the connection
        breaks or is silent for `idle` seconds. A broken connection to the kubelet looks like the end of the log
        (StreamObject): https://github.com/kubernetes/apiserver/blob/v0.35.0/pkg/endpoints/handlers/responsewriters/writers.go
        """
        query = {"container": container, "follow": str(follow).lower(), "timestamps": str(timestamps).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        if limit_bytes is not None:
            query["limitBytes"] = str(limit_bytes)
        if since is not None:
            query["sinceTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
        with self._record_outcome("get", "pods/log"):
            try:
                async with aclosing(self._transport.stream(path, query=query, idle=idle)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except UnexpectedStatus as refusal:
                if refusal.answer.status == 204:
                    raise errors.Rejected("the pod has no node yet, so it has no log") from None
                raise _error(refusal.answer) from None

    def _job(self, answer: Response) -> Job:
        return _read(answer, lambda body: decode_object(body, Job, self._metadata))

    async def _call(
        self,
        verb: str,
        kind: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        content_type: str = "application/json",
        seconds: float | None = None,
    ) -> Response:
        with self._record_outcome(verb, kind):
            answer = await self._transport.request(
                VERB_METHODS[verb],
                path,
                query=query or {},
                body=None if body is None else msgspec.json.encode(body),
                content_type=content_type,
                seconds=seconds or self._seconds,
            )
            if answer.status >= 300:
                raise _error(answer, verb)
            return answer

    @contextmanager
    def _record_outcome(self, verb: str, kind: str) -> Iterator[None]:
        try:
            yield
        except (errors.ClusterError, errors.TooBusy) as error:
            self._on_call(verb, kind, OUTCOMES[type(error)])
            raise
        self._on_call(verb, kind, "ok")

    async def _lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        rest = b""
        try:
            async with aclosing(self._transport.stream(path, query=query, idle=IDLE_SECONDS)) as chunks:
                async for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > MAX_EVENT_BYTES:
                        raise errors.AmbiguousOutcome(f"a watch event is larger than {MAX_EVENT_BYTES} bytes")
        except UnexpectedStatus as refusal:
            raise _error(refusal.answer) from None


def _read(answer: Response, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    try:
        return decode(answer.body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.AmbiguousOutcome(f"the answer of Kubernetes could not be read: {error}") from error


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{quote(namespace)}/jobs"


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"


def _error(answer: Response, verb: str = "get") -> errors.ClusterError:
    """Map a failed response to an error. A 409 has two meanings, distinguished by `Status.reason`.

    https://github.com/kubernetes/apimachinery/blob/v0.35.0/pkg/apis/meta/v1/types.go (StatusReason)
    """
    try:
        status = _status.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        status = Status()
    message = one_line(status.message, 500)
    detail = f"Kubernetes answered {answer.status}" + (f": {message}" if message else "")
    if answer.status == 404:
        return errors.NotFound(detail)
    if answer.status == 409:
        # Without a known reason the verb decides: a create is read back, which is safe for both.
        # An update or patch names a version of an object that exists, so its 409 can only be a conflict.
        exists = status.reason == "AlreadyExists" or (status.reason != "Conflict" and verb == "create")
        return errors.AlreadyExists(detail) if exists else errors.Conflict(detail)
    if answer.status == 410:
        return errors.ResourceExpired(detail)
    if answer.status == 429:
        return errors.NotExecuted(detail, answer.retry_after)
    if 400 <= answer.status < 500:
        return errors.Rejected(detail)
    return errors.AmbiguousOutcome(detail)


def _watch_error(line: bytes) -> errors.ClusterError:
    """Map an event of type ERROR, which holds a Status: 410 if the version is too old."""
    try:
        status = _error_event.decode(line).object
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return errors.AmbiguousOutcome("a watch event could not be read")
    if status.code == 410:
        return errors.ResourceExpired(status.message or "expired")
    return errors.AmbiguousOutcome(status.message or "watch failed")
