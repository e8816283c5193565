"""A Kubernetes API server in memory, behind the transport's two methods.

It has Jobs and pods, resource versions, a watch history and dry runs like the real one. So the tests use the real
client, reflector, store and services. There are no controllers: a test makes their changes.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from runway.errors import AmbiguousOutcome, NotExecuted
from runway.kube.client import EVENTS, ROUTINE_REASONS
from runway.kube.objects import LABEL_JOB_NAME
from runway.kube.transport import Response, UnexpectedStatus
from tests.support.fake_logs import FakeLog

Json = dict[str, Any]
Fault = Callable[[], Response | None]

KINDS = {
    "/apis/batch/v1/jobs": "jobs",
    "/api/v1/pods": "pods",
    "/api/v1/events": "events",
    "/api/v1/nodes": "nodes",
}
MAX_ANNOTATION_BYTES = 256 * 1024
"""https://github.com/kubernetes/apimachinery/blob/v0.35.0/pkg/api/validation/objectmeta.go"""
NOW = "2026-11-24T08:00:00Z"


def server_version(major: str, minor: str) -> Response:
    """Return the response of `/version`."""
    return _json(200, {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0"})


class FakeKubernetes:
    """The API server, and the changes of its controllers: `start_pod`, `end_pod`, `complete`, `fail`, `delete_job`."""

    def __init__(self, namespaces: set[str]) -> None:
        self.namespaces = namespaces
        self.objects: dict[str, dict[tuple[str, str], Json]] = {kind: {} for kind in KINDS.values()}
        self.history: dict[str, list[tuple[int, str, Json]]] = {kind: [] for kind in KINDS.values()}
        self.forbidden: set[str] = set()
        """Kinds that Runway must not list or watch (RBAC)."""
        self.without_role: set[str] = set()
        """Namespaces in which Runway may patch no Job (RBAC)."""
        self.logs: dict[str, bytes | FakeLog] = {}
        """By pod: a complete log, or one that a test keeps writing."""
        self.lease: Json = {}
        self.version_answer = server_version("1", "35")
        self.calls: list[tuple[str, str]] = []
        self.patches: list[Json] = []
        """Every patch of a Job."""
        self.down = False
        self.mute = False
        """Whether watches are stalled: open without events."""
        self.before_create: list[Fault] = []
        self.after_create: list[Fault] = []
        self.before_patch: list[Fault] = []
        self.after_patch: list[Fault] = []
        self.expired_before = 0
        self.page = 1_000_000
        """The maximum number of objects in a page of a list."""
        self.now: Callable[[], str] = lambda: NOW
        """The wall clock in Kubernetes' format."""
        self.listeners: list[Callable[[str], None]] = []
        """Called with the kind of each changed object."""
        self.version = 100
        self._pods: Counter[str] = Counter()
        self._snapshots: dict[tuple[str, int], list[Json]] = {}
        self._readers: set[asyncio.Event] = set()

    # The transport

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        self.calls.append((method, path))
        await asyncio.sleep(0)
        if self.down:
            raise NotExecuted("no connection to the Kubernetes API: refused")
        return self.handle(method, path, query=query, body=body, content_type=content_type)

    def handle(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str
    ) -> Response:
        """Execute one call."""
        if path == "/version":
            return self.version_answer
        if "/leases" in path:
            return self._lease(method, path, body)
        if path in KINDS:
            return self._list(KINDS[path], query)
        if path.startswith("/api/v1/namespaces/"):
            return self._pods_of(path.split("/")[4], query["labelSelector"].removeprefix(f"{LABEL_JOB_NAME}="))
        namespace, _, name = path.removeprefix("/apis/batch/v1/namespaces/").partition("/jobs")
        name = name.strip("/")
        if method == "POST":
            return self._create(namespace, json.loads(body or b"{}"), dry_run="dryRun" in query)
        job = self.objects["jobs"].get((namespace, name))
        if job is None:
            return _status(404, f'jobs.batch "{name}" not found')
        if method == "PATCH":
            assert content_type == "application/merge-patch+json"
            if namespace in self.without_role:
                return _forbidden("jobs", "patch")
            return self._patch(job, json.loads(body or b"{}"))
        return _json(200, job)

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        if self.down:
            raise NotExecuted("no connection to the Kubernetes API: refused")
        if path.endswith("/log"):
            async with aclosing(self._log(path.split("/")[-2], query)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        kind, version = KINDS[path], int(query["resourceVersion"])
        if kind in self.forbidden:
            raise UnexpectedStatus(_forbidden(kind))
        assert query.get("fieldSelector") == (EVENTS.selector if kind == "events" else None)
        if version < self.expired_before:
            raise UnexpectedStatus(_status(410, "too old resource version"))
        yield b""
        async for line in self._events(kind, version):
            yield line
        raise AmbiguousOutcome("the connection to the Kubernetes API broke: reset")

    async def _events(self, kind: str, version: int) -> AsyncGenerator[bytes, None]:
        """Yield the events after `version` until the API server goes down."""
        news = asyncio.Event()
        self._readers.add(news)
        try:
            while True:
                for at, type_, item in list(self.history[kind]):
                    if at > version:
                        version = at
                        if _selected(kind, item):
                            yield event_line(type_, item)
                while not self.down and (self.mute or not self.history[kind] or self.history[kind][-1][0] <= version):
                    await news.wait()
                    news.clear()
                if self.down:
                    return
        finally:
            self._readers.discard(news)

    async def _log(self, pod: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        if not any(name == pod for _, name in self.objects["pods"]):
            raise UnexpectedStatus(_status(404, f'pods "{pod}" not found'))
        spec = self.pod(pod)["spec"]
        if "nodeName" not in spec:
            raise UnexpectedStatus(Response(204, b""))
        names = _container_names(spec.get("containers"))
        if names and query["container"] not in names:
            raise UnexpectedStatus(_status(400, f"container {query['container']} is not valid for pod {pod}"))
        if pod not in self.logs:
            raise UnexpectedStatus(_status(400, "container is waiting to start: ContainerCreating"))
        log = self.logs[pod]
        async with aclosing((FakeLog.of(log) if isinstance(log, bytes) else log).serve(query)) as chunks:
            async for chunk in chunks:
                yield chunk

    # The controllers

    def start_pod(self, job_name: str, *, running: bool = True, node: str | None = "node-1") -> str:
        """Start a pod like Job controller, scheduler and kubelet, and return its name."""
        job = self.job(job_name)
        name = f"{job_name}-{self._pods[job_name]}"
        self._pods[job_name] += 1
        template = job["spec"]["template"]
        labels = {
            **template["metadata"]["labels"],
            "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
            LABEL_JOB_NAME: job_name,
        }
        pod = {
            "metadata": {
                "name": name,
                "namespace": job["metadata"]["namespace"],
                "labels": labels,
                "uid": f"uid-{name}",
            },
            "spec": {"containers": template["spec"]["containers"]} | ({"nodeName": node} if node else {}),
            "status": {"phase": "Pending", "conditions": _scheduled(self.now()) if node else []},
        }
        self.put("pods", pod, "ADDED")
        if running:
            state = {"running": {"startedAt": NOW}}
            self.set_status(name, {"phase": "Running", "containerStatuses": [{"name": "job", "state": state}]})
        return name

    def end_pod(self, name: str, exit_code: int = 0, reason: str | None = None, message: str | None = None) -> None:
        """Terminate the container."""
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": message,
            "startedAt": NOW,
            "finishedAt": self.now(),
        }
        phase = "Failed" if exit_code else "Succeeded"
        self.set_status(name, {"phase": phase, "containerStatuses": [{"name": "job", "state": {"terminated": ended}}]})
        if isinstance(log := self.logs.get(name), FakeLog):
            log.end()

    def terminate_pod(self, name: str) -> None:
        """Delete the pod with its grace period: it is terminating."""
        pod = copy_of(self.pod(name))
        pod["metadata"]["deletionTimestamp"] = self.now()
        self.put("pods", pod, "MODIFIED")

    def remove_pod(self, name: str) -> None:
        """Remove the pod, as after the kubelet's confirmation."""
        pod = self.pod(name)
        self._remove("pods", pod)

    def complete(self, job_name: str) -> None:
        """Set the condition Complete, as the Job controller does."""
        self._set_condition(job_name, "Complete", None)

    def fail(self, job_name: str, reason: str = "BackoffLimitExceeded") -> None:
        """Set the condition Failed, as the Job controller does."""
        self._set_condition(job_name, "Failed", reason)

    def announce_failure(self, job_name: str, reason: str) -> None:
        """Set the condition FailureTarget: the Job fails as soon as its pods are terminal."""
        self._set_condition(job_name, "FailureTarget", reason)

    def delete_job(self, job_name: str) -> None:
        """Delete the Job without its pods."""
        self._remove("jobs", self.job(job_name))

    def go_down(self) -> None:
        """Stop the API server: calls are refused, watches break."""
        self.down = True
        self._wake()

    def come_back(self) -> None:
        """Start the API server again with its objects."""
        self.down = False

    def job(self, name: str) -> Json:
        """Return the Job with this name from any namespace."""
        return next(job for (_, known), job in self.objects["jobs"].items() if known == name)

    def pod(self, name: str) -> Json:
        """Return the pod with this name from any namespace."""
        return next(pod for (_, known), pod in self.objects["pods"].items() if known == name)

    def add(self, kind: str, item: Json) -> None:
        """Create an object outside Runway."""
        item["metadata"].setdefault("uid", f"uid-{item['metadata']['name']}")
        self.put(kind, item, "ADDED")

    def remove(self, kind: str, item: Json) -> None:
        """Delete an object and send the watch events."""
        self._remove(kind, item)

    def lose(self, kind: str, name: str) -> None:
        """Delete an object without a watch event, so that only a resync finds it."""
        place = next(place for place in self.objects[kind] if place[1] == name)
        del self.objects[kind][place]
        self.version += 1

    def set_status(self, name: str, status: Json) -> None:
        """Set the status of a pod, as the kubelet does."""
        pod = copy_of(self.pod(name))
        pod["status"] = {"conditions": pod["status"].get("conditions", [])} | status
        self.put("pods", pod, "MODIFIED")

    def put(self, kind: str, item: Json, type_: str) -> Json:
        """Write an object, or its last state at a deletion, and send the watch events."""
        self.version += 1
        item = copy_of(item)
        meta = item["metadata"]
        meta["resourceVersion"] = str(self.version)
        meta.setdefault("creationTimestamp", self.now())
        self.objects[kind][meta.get("namespace", ""), meta["name"]] = item
        self.history[kind].append((self.version, type_, item))
        for listener in self.listeners:
            listener(kind)
        self._wake()
        return item

    def annotate_lease(self, **annotations: str | None) -> None:
        """Annotate the Lease with a merge patch, as kubectl does. None removes an annotation.

        The names are those of `runway.internal/`, with `_` for `-`.
        """
        given = {f"runway.internal/{name.replace('_', '-')}": value for name, value in annotations.items()}
        self.version += 1
        self.lease = _merge(self.lease, {"metadata": {"annotations": given, "resourceVersion": str(self.version)}})

    def edit_lease(self, **spec: object) -> None:
        """Edit fields of the Lease's spec, as kubectl does."""
        self.version += 1
        self.lease = _merge(self.lease, {"spec": spec, "metadata": {"resourceVersion": str(self.version)}})

    def compact(self) -> None:
        """Expire all earlier resource versions for watches and lists."""
        self.expired_before = self.version
        self._snapshots.clear()

    # Inside

    def _lease(self, method: str, path: str, body: bytes | None) -> Response:
        """Handle the only Lease; a write needs its latest version."""
        if method == "GET":
            return _json(200, self.lease) if self.lease else _status(404, "leases not found")
        document = json.loads(body or b"{}")
        if method == "POST" and self.lease:
            return _status(409, "leases already exists", "AlreadyExists")
        if method == "PUT" and document["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified", "Conflict")
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        self.lease = document
        return _json(200, document)

    def _create(self, namespace: str, manifest: Json, *, dry_run: bool) -> Response:
        if (answer := _next(self.before_create)) is not None:
            return answer
        name = manifest["metadata"]["name"]
        if namespace not in self.namespaces:
            return _status(404, f'namespaces "{namespace}" not found')
        if (namespace, name) in self.objects["jobs"]:
            return _status(409, f'jobs.batch "{name}" already exists', "AlreadyExists")
        notes = manifest["metadata"].get("annotations", {})
        if sum(len(name) + len(value.encode()) for name, value in notes.items()) > MAX_ANNOTATION_BYTES:
            return _status(422, "metadata.annotations: Too long: may not be more than 262144 bytes", "Invalid")
        if dry_run:
            return Response(201, json.dumps(manifest).encode(), warnings=('299 - "a warning of the API server"',))
        manifest["metadata"]["uid"] = f"uid-{name}-{self.version}"
        job = self.put("jobs", {**manifest, "status": {}}, "ADDED")
        return _next(self.after_create) or _json(201, job)

    def _patch(self, job: Json, patch: Json) -> Response:
        """Apply a merge patch; a uid or version in it must match the object."""
        self.patches.append(patch)
        if (answer := _next(self.before_patch)) is not None:
            return answer
        job = self.job(job["metadata"]["name"])  # The fault may have changed it.
        meant, meta = patch.get("metadata", {}), job["metadata"]
        if any(meant.get(name, meta[name]) != meta[name] for name in ("uid", "resourceVersion")):
            return _status(409, "the object has been modified", "Conflict")
        patched = self.put("jobs", _merge(job, patch), "MODIFIED")
        return _next(self.after_patch) or _json(200, patched)

    def _list(self, kind: str, query: Mapping[str, str]) -> Response:
        """Return one page; all pages of a list have the state of the first."""
        if kind in self.forbidden:
            return _forbidden(kind)
        assert query.get("fieldSelector") == (EVENTS.selector if kind == "events" else None)
        version, _, start = query.get("continue", f"{self.version}.0").partition(".")
        if "continue" not in query:
            selected = [item for item in self.objects[kind].values() if _selected(kind, item)]
            in_order = sorted(selected, key=lambda item: str(item["metadata"]["name"]))
            self._snapshots[kind, self.version] = in_order
        items = self._snapshots.get((kind, int(version)))
        if items is None:
            return _status(410, "the continue token is too old")
        end = int(start) + min(int(query["limit"]), self.page)
        more = f"{version}.{end}" if end < len(items) else None
        return _json(
            200, {"metadata": {"resourceVersion": version, "continue": more}, "items": items[int(start) : end]}
        )

    def _pods_of(self, namespace: str, job: str) -> Response:
        pods = [
            pod
            for (space, _), pod in self.objects["pods"].items()
            if space == namespace and pod["metadata"].get("labels", {}).get(LABEL_JOB_NAME) == job
        ]
        return _json(200, {"metadata": {"resourceVersion": str(self.version)}, "items": pods})

    def _remove(self, kind: str, item: Json) -> None:
        meta = item["metadata"]
        self.put(kind, item, "DELETED")
        del self.objects[kind][meta.get("namespace", ""), meta["name"]]

    def _set_condition(self, job_name: str, type_: str, reason: str | None) -> None:
        job = copy_of(self.job(job_name))
        job["status"] = {
            "conditions": [{"type": type_, "status": "True", "reason": reason, "lastTransitionTime": self.now()}]
        }
        self.put("jobs", job, "MODIFIED")

    def _wake(self) -> None:
        for reader in self._readers:
            reader.set()


def event_line(type_: str, item: Json) -> bytes:
    """Return one watch event as a line."""
    return msgspec.json.encode({"type": type_, "object": item}) + b"\n"


def copy_of(item: Json) -> Json:
    """Copy a JSON object, so that later changes do not affect it."""
    return dict(msgspec.json.decode(msgspec.json.encode(item)))


def _scheduled(now: str) -> list[Json]:
    return [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now}]


def _container_names(containers: Any) -> list[Any]:
    """Return the names of a pod's containers; tests also store what no API server would."""
    if not isinstance(containers, list):
        return []
    return [container.get("name") for container in containers if isinstance(container, dict)]


def _selected(kind: str, item: Json) -> bool:
    return kind != "events" or item.get("reason") not in ROUTINE_REASONS


def _forbidden(kind: str, verb: str = "list") -> Response:
    return _status(403, f'{kind} is forbidden: User "runway" cannot {verb} resource "{kind}"')


def _merge(target: Json, patch: Json) -> Json:
    merged = copy_of(target)
    for key, value in patch.items():
        known = merged.get(key)
        merged[key] = _merge(known if isinstance(known, dict) else {}, value) if isinstance(value, dict) else value
        if value is None:
            del merged[key]
    return merged


def _next(faults: list[Fault]) -> Response | None:
    """Return the response of the next fault, if there is one."""
    return faults.pop(0)() if faults else None


def _json(status: int, document: Json) -> Response:
    return Response(status, msgspec.json.encode(document))


def _status(code: int, message: str, reason: str | None = None) -> Response:
    return _json(code, {"kind": "Status", "code": code, "reason": reason, "message": message})
