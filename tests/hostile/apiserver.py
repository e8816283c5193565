"""Fake API server for hostile tests: `python -m tests.hostile.apiserver PORT`.

Each Job gets a running pod. The first argument of a Job's command selects its log: `flood`, `endless`, `line`, `empty`,
`steering`, `nostamps`, `year0` to `year7`, or `quiet`. The second, if it is a number, is the size of that log in bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from aiohttp import web

Json = dict[str, Any]

NOW: Final = "2026-11-24T08:00:00Z"
STAMP: Final = b"2026-11-24T08:00:00.123456789Z "
CHUNK: Final = 1 << 16
SIZE: Final = 8 << 20
LETTERS: Final = str.maketrans("0123456789", "abcdefghij")
"""A Job's name contains no digits except 2 to 7."""
STEERING: Final = (
    b"\x1b[2J\x1b[H\x1b]0;owned\x07\x1b]52;c;cm0gLXJm\x07 screen",
    b"\x1bP+q544e\x1b\\\x1b[6n\x1b[?1049h\x1bc reset",
    "\u202egnp.exe \u2066hidden\u2069 \u200b\u061c \u2028\u2029".encode(),
    b"\x00\x07\x08\x0b\x0c\x0e\x0f\x7f controls",
    b"\xff\xfe\xc0\xaf\xed\xa0\x80\xf8 not UTF-8",
    b"\x9b31m \xc2\x9b2J C1",
    b"10%\r20%\r100%\r done",
    b"\x1b[" + b"1;" * 5000 + b"m long",
    b"\x1b",
    b"\x1b[31mred",
)
"""Lines that control a terminal, hide text or are not text."""
YEARS: Final = (
    b"0000-00-00T00:00:00Z", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"9999-12-31T23:59:60Z",
    b"2026-13-45T99:99:99Z", b"2026-11-24T08:00:00+99:99", b"1969-12-31T23:59:59Z", b"2026-11-24T08:00:00.1234567890Z",
)  # fmt: skip
"""Times of log lines that do not exist, or that Python cannot convert to seconds since 1970."""


class Log:
    """The chunks of one log, with or without a time before each line."""

    def __init__(self, kind: str, size: int) -> None:
        self._kind = kind
        self._size = size

    def chunks(self, *, stamps: bool) -> Iterator[bytes]:
        stamp = STAMP if stamps else b""
        match self._kind:
            case "flood" | "endless":
                line = stamp + b"x" * 80 + b"\n"
                block = line * (CHUNK // len(line))
                count = itertools.count() if self._kind == "endless" else range(self._size // len(block))
                yield from (block for _ in count)
            case "empty":
                block = (stamp + b"\n") * (CHUNK // len(stamp + b"\n"))
                yield from (block for _ in range(self._size // len(block)))
            case "line":
                yield stamp
                yield from (b"x" * CHUNK for _ in range(self._size // CHUNK))
            case "steering":
                yield from (stamp + line + b"\n" for line in STEERING)
            case "nostamps":
                yield b"a line without a time\n" * 100
            case name if name.startswith("year"):
                yield stamp + b"first\n"
                yield (YEARS[int(name[4:])] + b" " if stamps else b"") + b"second\n"
            case _:
                yield stamp + b"hello\n"

    @property
    def stays_open(self) -> bool:
        return self._kind == "quiet"


class ApiServer:
    """Jobs, pods, events, their watches, the Lease and the logs."""

    def __init__(self) -> None:
        self._version = 1000
        self._jobs: dict[tuple[str, str], Json] = {}
        self._pods: dict[str, Json] = {}
        self._events: dict[str, Json] = {}
        self._watches: dict[str, set[asyncio.Queue[bytes]]] = {kind: set() for kind in ("jobs", "pods", "events")}
        self._connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._lease: Json = {}
        self.created = 0
        self.log_bytes = 0
        self.log_reads = 0
        self.open_logs = 0
        self.lease_writes = 0
        self.tokens: set[str] = set()
        """The accepted bearer tokens. A token is the time of its expiry."""

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._remember], client_max_size=64 << 20)
        for kind, path in (("jobs", "apis/batch/v1"), ("pods", "api/v1"), ("events", "api/v1"), ("nodes", "api/v1")):
            app.router.add_get(f"/{path}/{kind}", self._list)
        jobs = "/apis/batch/v1/namespaces/{namespace}/jobs"
        app.router.add_post(jobs, self._create)
        app.router.add_get(jobs + "/{name}", self._read)
        app.router.add_patch(jobs + "/{name}", self._patch)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._pods_of)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self._log)
        leases = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        app.router.add_post(leases, self._write_lease)
        app.router.add_put(leases + "/{name}", self._write_lease)
        app.router.add_get(leases + "/{name}", self._read_lease)
        app.router.add_get("/version", self._version_of)
        app.router.add_get("/counts", self._counts)
        app.router.add_post("/add/{kind}", self._add)
        app.router.add_post("/finish/{name}", self._finish)
        app.router.add_post("/break", self._break)
        app.router.add_post("/delete-pod/{name}", self._delete_pod)
        return app

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.rpartition("/")[2]
        if "watch" in request.query:
            return await self._watch(kind, request)
        items = list(self._objects(kind).values())
        start = int(request.query.get("continue", "0"))
        end = start + int(request.query["limit"])
        following = {"continue": str(end)} if end < len(items) else {}
        return _answer({"metadata": {"resourceVersion": str(self._version), **following}, "items": items[start:end]})

    async def _add(self, request: web.Request) -> web.Response:
        """Create `count` objects like this one outside Runway, with four letters for `NUMBER`."""
        kind, text = request.match_info["kind"], await request.text()
        for number in range(int(request.query.get("count", "1"))):
            item = self._put(kind, json.loads(text.replace("NUMBER", f"{number:04}".translate(LETTERS))), "ADDED")
            meta = item["metadata"]
            self._objects(kind)[(meta["namespace"], meta["name"]) if kind == "jobs" else meta["name"]] = item
            await asyncio.sleep(0)
        return _answer({})

    def _objects(self, kind: str) -> dict[Any, Json]:
        known: dict[str, dict[Any, Json]] = {"jobs": self._jobs, "pods": self._pods, "events": self._events}
        return known.get(kind, {})

    async def _watch(self, kind: str, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        watches = self._watches.setdefault(kind, set())
        watches.add(queue)
        try:
            while True:
                await response.write(await queue.get())
        except ConnectionError:
            pass  # The client has closed its watch.
        finally:
            watches.discard(queue)
        return response

    @web.middleware
    async def _remember(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.transport is not None:
            self._connections.add(request.transport)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token:
            if time.time() > float(token):
                return _answer({"kind": "Status", "code": 401, "reason": "Unauthorized"}, 401)
            self.tokens.add(token)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _break(self, request: web.Request) -> web.Response:
        """Abort every other connection, as a restart of the API server does."""
        for transport in set(self._connections) - {request.transport}:
            transport.abort()
        self._connections.clear()
        return _answer({})

    async def _create(self, request: web.Request) -> web.Response:
        manifest = msgspec.json.decode(await request.read())
        namespace, name = request.match_info["namespace"], manifest["metadata"]["name"]
        if "dryRun" in request.query:
            return _answer(manifest, 201)
        if (namespace, name) in self._jobs:
            return _answer({"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "already exists"}, 409)
        self.created += 1
        meta = manifest["metadata"] | {"uid": f"uid-{name}", "namespace": namespace, "creationTimestamp": NOW}
        job = self._put("jobs", manifest | {"metadata": meta, "status": {"active": 1, "startTime": NOW}}, "ADDED")
        self._jobs[namespace, name] = job
        pod = _pod(job)
        self._pods[pod["metadata"]["name"]] = self._put("pods", pod, "ADDED")
        return _answer(job, 201)

    async def _finish(self, request: web.Request) -> web.Response:
        """Terminate the job's container and complete the Job."""
        name = request.match_info["name"]
        pod = self._pods[f"{name}-0"]
        ended = {"exitCode": 0, "reason": "Completed", "startedAt": NOW, "finishedAt": NOW}
        pod["status"] = {"phase": "Succeeded", "containerStatuses": [{"name": "job", "state": {"terminated": ended}}]}
        self._put("pods", pod, "MODIFIED")
        job = next(job for (_, known), job in self._jobs.items() if known == name)
        conditions = [{"type": "Complete", "status": "True", "lastTransitionTime": NOW}]
        job["status"] = {"succeeded": 1, "startTime": NOW, "completionTime": NOW, "conditions": conditions}
        self._put("jobs", job, "MODIFIED")
        return _answer({})

    async def _delete_pod(self, request: web.Request) -> web.Response:
        """Set the deletion timestamp of the job's pod, and never remove the pod."""
        pod = self._pods[f"{request.match_info['name']}-0"]
        pod["metadata"] |= {"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 30}
        self._put("pods", pod, "MODIFIED")
        return _answer({})

    async def _read(self, request: web.Request) -> web.Response:
        job = self._jobs.get((request.match_info["namespace"], request.match_info["name"]))
        return _answer(job) if job else _answer({"kind": "Status", "code": 404}, 404)

    async def _patch(self, request: web.Request) -> web.Response:
        job = self._jobs[request.match_info["namespace"], request.match_info["name"]]
        patch = json.loads(await request.read())
        job["metadata"].setdefault("annotations", {}).update(patch["metadata"].get("annotations", {}))
        return _answer(self._put("jobs", job, "MODIFIED"))

    async def _pods_of(self, request: web.Request) -> web.Response:
        name = request.query["labelSelector"].partition("=")[2]
        pods = [pod for key, pod in self._pods.items() if key == f"{name}-0"]
        return _answer({"metadata": {"resourceVersion": str(self._version)}, "items": pods})

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = self._pods[request.match_info["name"]]
        command = pod["spec"]["containers"][0]["command"]
        log = Log(command[0], int(command[1]) if command[1:] and command[1].isdigit() else SIZE)
        response = web.StreamResponse()
        await response.prepare(request)
        self.open_logs += 1
        self.log_reads += 1
        try:
            await self._send(log.chunks(stamps=request.query.get("timestamps") == "true"), response)
            if log.stays_open and request.query.get("follow") == "true":
                await asyncio.Event().wait()
        finally:
            self.open_logs -= 1
        return response

    async def _send(self, chunks: Iterator[bytes], response: web.StreamResponse) -> None:
        for chunk in chunks:
            await response.write(chunk)
            self.log_bytes += len(chunk)

    async def _write_lease(self, request: web.Request) -> web.Response:
        self._version += 1
        self.lease_writes += 1
        self._lease = json.loads(await request.read())
        self._lease["metadata"]["resourceVersion"] = str(self._version)
        return _answer(self._lease)

    async def _read_lease(self, _: web.Request) -> web.Response:
        return _answer(self._lease) if self._lease else _answer({"kind": "Status", "code": 404}, 404)

    async def _version_of(self, _: web.Request) -> web.Response:
        return _answer({})

    async def _counts(self, _: web.Request) -> web.Response:
        return _answer(
            {
                "created": self.created,
                "log_bytes": self.log_bytes,
                "log_reads": self.log_reads,
                "open_logs": self.open_logs,
                "holder": self._lease.get("spec", {}).get("holderIdentity"),
                "lease_transitions": self._lease.get("spec", {}).get("leaseTransitions"),
                "lease_writes": self.lease_writes,
                "tokens": sorted(self.tokens),
            }
        )

    def _put(self, kind: str, item: Json, type_: str) -> Json:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        line = msgspec.json.encode({"type": type_, "object": item}) + b"\n"
        for queue in self._watches[kind]:
            queue.put_nowait(line)
        return item


def _pod(job: Json) -> Json:
    name, template = job["metadata"]["name"], job["spec"]["template"]
    labels = template["metadata"]["labels"] | {
        "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
        "batch.kubernetes.io/job-name": name,
    }
    running = [{"name": "job", "state": {"running": {"startedAt": NOW}}}]
    return {
        "metadata": {
            "name": f"{name}-0",
            "namespace": job["metadata"]["namespace"],
            "uid": f"uid-{name}-0",
            "labels": labels,
            "creationTimestamp": NOW,
        },
        "spec": template["spec"] | {"nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": NOW}],
            "containerStatuses": running,
        },
    }


def _answer(document: Json, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    runner = web.AppRunner(ApiServer().application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
