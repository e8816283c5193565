"""Kubernetes as Runway uses it: a handful of typed operations over the transport's two methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from runway.errors import (
    AmbiguousOutcome,
    ClusterError,
    NotExecuted,
    NotFound,
    ObjectExists,
    Rejected,
    ResourceExpired,
    ResponseTooLarge,
    TooBusy,
)
from runway.kube.api_types import Object, ObjectList, Status, WatchEvent
from runway.kube.decode import decode_lease, decode_list, decode_object, decode_watch_event
from runway.kube.interning import intern_object
from runway.kube.objects import LABEL_JOB_NAME, Event, Job, Lease, Node, Pod
from runway.kube.transport import Response, Transport, UnexpectedStatus
from runway.text import one_line

PAGE_SIZE: Final = 500
"""Objects in one page of a list: bounds what one answer takes of the API server and of our memory."""
PAGE_STEP: Final = 8
"""A page that is too large is asked for again with this part of its objects."""
WATCH_SECONDS: Final = 300
"""How long the API server keeps one watch open before it is renewed."""
IDLE_SECONDS: Final = 90.0
"""Bookmarks come about once a minute; a watch that is silent for longer is dead, whatever TCP says."""
MAX_LINE: Final = 16 << 20
"""Bytes of one watch event: etcd takes objects of at most 1.5 MiB, and JSON can escape a byte as six."""


VERB_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
}
"""The API's verbs that Runway uses: https://kubernetes.io/docs/reference/access-authn-authz/authorization/"""
OUTCOMES: Final[Mapping[type[Exception], str]] = {
    NotFound: "missing",
    ObjectExists: "conflict",
    ResourceExpired: "expired",
    Rejected: "refused",
    NotExecuted: "not_done",
    AmbiguousOutcome: "ambiguous",
    ResponseTooLarge: "too_large",
    TooBusy: "too_busy",
}
"""What a call is counted as by the error it ends with; `ok` without one."""
OnCall = Callable[[str, str, str], None]
"""Is told the verb, the kind and the outcome of each call that has ended."""


@dataclass(frozen=True, slots=True)
class Resource(Generic[Object]):
    """One kind of object that is listed and watched in all namespaces."""

    name: str
    path: str
    type: type[Object]
    selector: str | None = None
    """A field selector: what does not match it is neither listed nor told.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
    """

    @property
    def query(self) -> dict[str, str]:
        """What each list and watch of this kind asks for."""
        return {} if self.selector is None else {"fieldSelector": self.selector}


JOBS: Final[Resource[Job]] = Resource("jobs", "/apis/batch/v1/jobs", Job)
PODS: Final[Resource[Pod]] = Resource("pods", "/api/v1/pods", Pod)
WARNINGS: Final[Resource[Event]] = Resource("events", "/api/v1/events", Event, selector="type=Warning")
NODES: Final[Resource[Node]] = Resource("nodes", "/api/v1/nodes", Node)

_Decoded = TypeVar("_Decoded")

_status = msgspec.json.Decoder(Status)


class KubeClient:
    """Every operation raises only errors of the tree in `runway.errors`; `seconds` bounds each call.

    `told` hears of each call when it has ended, each page of a list apart. A stream that is closed from here has no
    outcome.
    """

    def __init__(self, transport: Transport, seconds: float, on_call: OnCall = lambda *_: None) -> None:
        self._transport = transport
        self._seconds = seconds
        self._told = on_call
        self._page_limits: dict[str, int] = {}
        """Objects in the next page, by kind; `PAGE` where there is none."""

    async def create_job(self, namespace: str, manifest: Mapping[str, object]) -> Job:
        """Create a Job. Raises ObjectExists, Refused, NotDone or Ambiguous: only the last leaves it open."""
        return _object(await self._call("create", "jobs", _jobs(namespace), body=_encode(manifest)))

    async def create_job_dry_run(self, namespace: str, manifest: Mapping[str, object]) -> tuple[str, ...]:
        """Let the API server check a Job without keeping it; returns its warnings. Raises as `create_job` does.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
        """
        query, body = {"dryRun": "All"}, _encode(manifest)
        return (await self._call("create", "jobs", _jobs(namespace), query=query, body=body)).warnings

    async def get_job(self, namespace: str, name: str) -> Job | None:
        """The Job as Kubernetes has it now, or None where it has none by this name."""
        try:
            return _object(await self._call("get", "jobs", f"{_jobs(namespace)}/{quote(name)}"))
        except NotFound:
            return None

    async def list_pods_of_job(self, namespace: str, name: str) -> tuple[Pod, ...]:
        """The pods of whatever Jobs have had this name, as Kubernetes has them now: no more than a page of them."""
        query = {"labelSelector": f"{LABEL_JOB_NAME}={name}", "limit": str(PAGE_SIZE)}
        answer = await self._call("list", "pods", f"/api/v1/namespaces/{quote(namespace)}/pods", query=query)
        return _read(answer, lambda body: decode_list(body, Pod)).items

    async def patch_job(self, namespace: str, name: str, patch: Mapping[str, object]) -> Job:
        """Merge a patch into a Job. Raises ObjectMissing where there is none."""
        path, content_type = f"{_jobs(namespace)}/{quote(name)}", "application/merge-patch+json"
        return _object(await self._call("patch", "jobs", path, body=_encode(patch), content_type=content_type))

    async def ping(self, seconds: float) -> None:
        """Ask whether the API server answers at all within so many seconds."""
        await self._call("get", "version", "/version", seconds=seconds)

    async def get_lease(self, namespace: str, name: str) -> Lease | None:
        """The Lease as Kubernetes has it now, or None where it has none by this name."""
        try:
            answer = await self._call("get", "leases", f"{_leases(namespace)}/{quote(name)}")
            return _read(answer, decode_lease)
        except NotFound:
            return None

    async def create_lease(self, namespace: str, document: Mapping[str, object]) -> None:
        """Create a Lease. Raises ObjectExists where another process was quicker."""
        await self._call("create", "leases", _leases(namespace), body=_encode(document))

    async def update_lease(self, namespace: str, name: str, document: Mapping[str, object]) -> None:
        """Replace the version of a Lease that the document names. Raises ObjectExists where it has changed since."""
        await self._call("update", "leases", f"{_leases(namespace)}/{quote(name)}", body=_encode(document))

    async def list(self, kind: Resource[Object]) -> ObjectList[Object]:
        """Every object in all namespaces, page by page, all of one moment. Raises Expired where that took too long.

        Large objects are listed in smaller pages: a page that passes the bound on an answer is asked for again at once,
        and after one that did not come in time the next try begins with a smaller page. Each page that comes doubles
        the next one.
        """
        query = dict(kind.query)
        items: list[Object] = []
        while True:
            limit = self._page_limits.get(kind.name, PAGE_SIZE)
            try:
                answer = await self._call("list", kind.name, kind.path, query={**query, "limit": str(limit)})
            except AmbiguousOutcome as error:
                self._page_limits[kind.name] = max(1, limit // PAGE_STEP)
                if limit == 1 or not isinstance(error, ResponseTooLarge):
                    raise
                continue
            self._page_limits[kind.name] = min(PAGE_SIZE, 2 * limit)
            page = _read(answer, lambda body: decode_list(body, kind.type))
            items.extend(map(intern_object, page.items))  # Page by page, or a long list would be held twice.
            if not page.metadata.continue_:
                return ObjectList(metadata=page.metadata, items=tuple(items))
            query["continue"] = page.metadata.continue_

    async def watch(self, kind: Resource[Object], version: str) -> AsyncGenerator[WatchEvent[Object], None]:
        """Every change after `version`, bookmarks included, until the server closes the watch.

        Raises Expired where `version` is too old, and the errors of a call. A silent watch raises Ambiguous.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **kind.query,
        }
        with self._record_outcome("watch", kind.name):
            async with aclosing(self._lines(kind.path, query)) as lines:
                async for line in lines:
                    try:
                        change = decode_watch_event(line, kind.type)
                    except (msgspec.DecodeError, RecursionError):
                        raise _watch_error(line) from None
                    yield change

    async def read_log(
        self,
        namespace: str,
        pod: str,
        *,
        follow: bool,
        tail: int | None,
        timestamps: bool,
        idle: float,
        since: datetime | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The chunks of a pod's log, an empty one first. With `timestamps` each line begins with its time.

        Raises ObjectMissing where the pod is gone, Refused where it has no log yet, and Ambiguous where the connection
        breaks or nothing comes for `idle` seconds. A break between API server and kubelet ends the log as if it were
        whole: https://github.com/kubernetes/apiserver/blob/v0.35.0/pkg/endpoints/handlers/responsewriters/writers.go
        (StreamObject).
        """
        query = {"follow": str(follow).lower(), "timestamps": str(timestamps).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
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
                    raise Rejected("the pod has no node yet, so it has no log") from None
                raise _error(refusal.answer) from None

    async def _call(
        self,
        verb: str,
        kind: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        seconds: float | None = None,
    ) -> Response:
        seconds = seconds or self._seconds
        with self._record_outcome(verb, kind):
            answer = await self._transport.request(
                VERB_METHODS[verb], path, query=query or {}, body=body, content_type=content_type, seconds=seconds
            )
            if answer.status >= 300:
                raise _error(answer)
            return answer

    @contextmanager
    def _record_outcome(self, verb: str, kind: str) -> Iterator[None]:
        try:
            yield
        except (ClusterError, TooBusy) as error:
            self._told(verb, kind, OUTCOMES[type(error)])
            raise
        self._told(verb, kind, "ok")

    async def _lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        rest = b""
        try:
            async with aclosing(self._transport.stream(path, query=query, idle=IDLE_SECONDS)) as chunks:
                async for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > MAX_LINE:
                        raise AmbiguousOutcome(f"a watch event is larger than {MAX_LINE} bytes")
        except UnexpectedStatus as refusal:
            raise _error(refusal.answer) from None


def _encode(document: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(document)


def _object(answer: Response) -> Job:
    return _read(answer, lambda body: decode_object(body, Job))


def _read(answer: Response, decode: Callable[[bytes], _Decoded]) -> _Decoded:
    try:
        return decode(answer.body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AmbiguousOutcome(f"the answer of Kubernetes could not be read: {error}") from error


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{quote(namespace)}/jobs"


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"


def _error(answer: Response) -> ClusterError:
    """What an answer that is not a success means for the call it answers."""
    try:
        message = _status.decode(answer.body).message or ""
    except msgspec.DecodeError:
        message = ""
    detail = f"Kubernetes answered {answer.status}" + (f": {one_line(message, 500)}" if message else "")
    if answer.status == 404:
        return NotFound(detail)
    if answer.status == 409:
        return ObjectExists(detail)
    if answer.status == 410:
        return ResourceExpired(detail)
    if answer.status == 429:
        return NotExecuted(detail, answer.retry_after)
    if 400 <= answer.status < 500:
        return Rejected(detail)
    return AmbiguousOutcome(detail)


def _watch_error(line: bytes) -> ClusterError:
    """An event of type ERROR holds a Status: 410 when the version is too old."""

    class Wrapped(msgspec.Struct):
        type: str
        object: Status

    try:
        status = msgspec.json.decode(line, type=Wrapped).object
    except msgspec.DecodeError:
        return AmbiguousOutcome("a watch event could not be read")
    return (
        ResourceExpired(status.message or "expired")
        if status.code == 410
        else AmbiguousOutcome(status.message or "watch failed")
    )
