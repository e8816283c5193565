"""A Kubernetes API server in memory, behind the transport's two methods.

It keeps Jobs and pods, resource versions, a watch history and dry runs as the real one does, so the client, the
reflector, the store and the flows are tested as they are. Nothing happens by itself: a test plays the controllers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from copy import deepcopy
from typing import Any

from runway.cluster.connection import Answer, StreamRefused
from runway.errors import Ambiguous, NotDone

Json = dict[str, Any]
Fault = Callable[[], Answer | None]

NOW = "2026-11-24T08:00:00Z"


class FakeKubernetes:
    """The API server, and the hands of its controllers: `start_pod`, `end_pod`, `complete`, `fail`, `delete_job`."""

    def __init__(self, namespaces: set[str]) -> None:
        self.namespaces = namespaces
        self.objects: dict[str, dict[tuple[str, str], Json]] = {"jobs": {}, "pods": {}}
        self.history: dict[str, list[tuple[int, str, Json]]] = {"jobs": [], "pods": []}
        self.logs: dict[str, bytes] = {}
        self.log_gate = asyncio.Event()
        self.log_gate.set()
        self.calls: list[tuple[str, str]] = []
        self.down = False
        self.before_create: list[Fault] = []
        self.after_create: list[Fault] = []
        self.expired_before = 0
        self._version = 100
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    # The seam

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Answer:
        self.calls.append((method, path))
        await asyncio.sleep(0)
        if self.down:
            raise NotDone("no connection to the Kubernetes API: refused")
        if path == "/version":
            return _json(200, {"major": "1"})
        if path in ("/apis/batch/v1/jobs", "/api/v1/pods"):
            return self._list(path.rsplit("/", 1)[1], query)
        namespace, _, name = path.removeprefix("/apis/batch/v1/namespaces/").partition("/jobs")
        name = name.strip("/")
        if method == "POST":
            return self._create(namespace, json.loads(body or b"{}"), dry_run="dryRun" in query)
        job = self.objects["jobs"].get((namespace, name))
        if job is None:
            return _status(404, f'jobs.batch "{name}" not found')
        if method == "PATCH":
            assert content_type == "application/merge-patch+json"
            return _json(200, self._put("jobs", _merge(job, json.loads(body or b"{}")), "MODIFIED"))
        return _json(200, job)

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        if self.down:
            raise NotDone("no connection to the Kubernetes API: refused")
        if path.endswith("/log"):
            async for chunk in self._log(path.split("/")[-2]):
                yield chunk
            return
        kind, version = path.rsplit("/", 1)[1], int(query["resourceVersion"])
        if version < self.expired_before:
            raise StreamRefused(_status(410, "too old resource version"))
        yield b""
        while True:
            for at, type_, item in list(self.history[kind]):
                if at > version:
                    version = at
                    yield json.dumps({"type": type_, "object": item}).encode() + b"\n"
            async with self._news:
                while not self.down and (not self.history[kind] or self.history[kind][-1][0] <= version):
                    await self._news.wait()
            if self.down:
                raise Ambiguous("the connection to the Kubernetes API broke: reset")

    async def _log(self, pod: str) -> AsyncGenerator[bytes, None]:
        if "nodeName" not in self.pod(pod)["spec"]:
            raise StreamRefused(Answer(204, b""))
        if pod not in self.logs:
            raise StreamRefused(_status(400, "container is waiting to start: ContainerCreating"))
        yield b""
        yield self.logs[pod]
        await self.log_gate.wait()

    # The controllers

    def start_pod(self, job_name: str, *, running: bool = True, node: str | None = "node-1") -> str:
        """What the Job controller, the scheduler and the kubelet do to a new Job; returns the pod's name."""
        job = self.job(job_name)
        number = sum(
            pod["metadata"]["labels"]["runway.internal/job"] == job_name for pod in self.objects["pods"].values()
        )
        name = f"{job_name}-{'abcdefghij'[number]}"
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
        pod = {
            "metadata": {
                "name": name,
                "namespace": job["metadata"]["namespace"],
                "labels": labels,
                "uid": f"uid-{name}",
            },
            "spec": {"containers": template["spec"]["containers"]} | ({"nodeName": node} if node else {}),
            "status": {"phase": "Pending"},
        }
        self._put("pods", pod, "ADDED")
        if running:
            state = {"running": {"startedAt": NOW}}
            self._set_status(name, {"phase": "Running", "containerStatuses": [{"name": "job", "state": state}]})
        return name

    def end_pod(self, name: str, exit_code: int = 0, reason: str | None = None, message: str | None = None) -> None:
        """The container ended."""
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": message,
            "startedAt": NOW,
            "finishedAt": NOW,
        }
        phase = "Failed" if exit_code else "Succeeded"
        self._set_status(name, {"phase": phase, "containerStatuses": [{"name": "job", "state": {"terminated": ended}}]})

    def tell_pod_to_end(self, name: str) -> None:
        """Someone deleted the pod; it ends in its own time."""
        pod = deepcopy(self.pod(name))
        pod["metadata"]["deletionTimestamp"] = NOW
        self._put("pods", pod, "MODIFIED")

    def remove_pod(self, name: str) -> None:
        """The kubelet has confirmed that nothing of the pod is left."""
        pod = self.pod(name)
        self._remove("pods", pod)

    def complete(self, job_name: str) -> None:
        """The Job controller's verdict: it succeeded."""
        self._verdict(job_name, "Complete", None)

    def fail(self, job_name: str, reason: str = "BackoffLimitExceeded") -> None:
        """The Job controller's verdict: it failed."""
        self._verdict(job_name, "Failed", reason)

    def delete_job(self, job_name: str) -> None:
        """The Job is gone; its pods may not be."""
        self._remove("jobs", self.job(job_name))

    def go_down(self) -> None:
        """The API server stops: calls are refused, watches break."""
        self.down = True
        self._wake()

    def come_back(self) -> None:
        """The API server is there again, with what it had."""
        self.down = False

    def job(self, name: str) -> Json:
        """The Job by this name, in whatever namespace."""
        return next(job for (_, known), job in self.objects["jobs"].items() if known == name)

    def pod(self, name: str) -> Json:
        """The pod by this name, in whatever namespace."""
        return next(pod for (_, known), pod in self.objects["pods"].items() if known == name)

    # Inside

    def _create(self, namespace: str, manifest: Json, *, dry_run: bool) -> Answer:
        for fault in self.before_create[:1]:
            self.before_create.pop(0)
            if (answer := fault()) is not None:
                return answer
        name = manifest["metadata"]["name"]
        if namespace not in self.namespaces:
            return _status(404, f'namespaces "{namespace}" not found')
        if (namespace, name) in self.objects["jobs"]:
            return _status(409, f'jobs.batch "{name}" already exists')
        if dry_run:
            return Answer(201, json.dumps(manifest).encode(), warnings=('299 - "a warning of the API server"',))
        manifest["metadata"]["uid"] = f"uid-{name}-{self._version}"
        job = self._put("jobs", {**manifest, "status": {}}, "ADDED")
        for fault in self.after_create[:1]:
            self.after_create.pop(0)
            if (answer := fault()) is not None:
                return answer
        return _json(201, job)

    def _list(self, kind: str, query: Mapping[str, str]) -> Answer:
        items = sorted(self.objects[kind].values(), key=lambda item: item["metadata"]["name"])
        start, limit = int(query.get("continue", "0")), int(query["limit"])
        more = str(start + limit) if start + limit < len(items) else None
        meta = {"resourceVersion": str(self._version), "continue": more}
        return _json(200, {"metadata": meta, "items": items[start : start + limit]})

    def _put(self, kind: str, item: Json, type_: str) -> Json:
        self._version += 1
        item = deepcopy(item)
        meta = item["metadata"]
        meta["resourceVersion"] = str(self._version)
        meta.setdefault("creationTimestamp", NOW)
        self.objects[kind][meta["namespace"], meta["name"]] = item
        self.history[kind].append((self._version, type_, item))
        self._wake()
        return item

    def _remove(self, kind: str, item: Json) -> None:
        meta = item["metadata"]
        self._put(kind, item, "DELETED")
        del self.objects[kind][meta["namespace"], meta["name"]]

    def _set_status(self, name: str, status: Json) -> None:
        pod = deepcopy(self.pod(name))
        pod["status"] = status
        self._put("pods", pod, "MODIFIED")

    def _verdict(self, job_name: str, type_: str, reason: str | None) -> None:
        job = deepcopy(self.job(job_name))
        job["status"] = {"conditions": [{"type": type_, "status": "True", "reason": reason, "lastTransitionTime": NOW}]}
        self._put("jobs", job, "MODIFIED")

    def _wake(self) -> None:
        async def notify() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _merge(target: Json, patch: Json) -> Json:
    merged = deepcopy(target)
    for key, value in patch.items():
        merged[key] = _merge(merged.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


def _json(status: int, document: Json) -> Answer:
    return Answer(status, json.dumps(document).encode())


def _status(code: int, message: str) -> Answer:
    return _json(code, {"kind": "Status", "code": code, "message": message})
