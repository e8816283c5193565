"""A fake API server on loopback with any number of Jobs and pods, none running.

Deleting 50,000 real Jobs takes the local cluster longer than all measurements. The objects here have the size of real
ones: Runway's manifests with the fields that Kubernetes adds, the record of finished jobs, and one pod each. Every job
has a different spec. A created Job is only answered and reported to the watches, and gets no pod.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from aiohttp import web

from bench.kubernetes import NAMESPACE
from runway.admission.validation import validate
from runway.jobs.annotations import ANNOTATION_RECORD
from runway.jobs.idempotency import request_hash
from runway.jobs.manifest import Placement, job_manifest
from runway.jobs.record import encode, final_record
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.spec import read_draft
from runway.kube.objects import Job, Pod
from runway.policy import Policy

Json = dict[str, Any]

FIRST_VERSION: Final = 1000
RUNNING_EVERY: Final = 10
"""Each tenth job runs; the others have succeeded."""
CREATED_WITHIN: Final = timedelta(hours=10)
"""The jobs were created, and finished, evenly within this time. It began `BEGAN_BEFORE` the start of the server."""
BEGAN_BEFORE: Final = timedelta(hours=12)
DOCUMENT: Final[Json] = {
    "name": "train-resnet",
    "image": "runway.local/busybox:1",
    "command": ["python", "train.py"],
    "env": {"EPOCHS": "3"},
    "resources": {"cpu": "100m", "memory": "64Mi"},
}
"""The request of each job, but for its number at the end of the command."""
_NAME, _UID, _POD_UID, _NUMBER = "rw-" + "n" * 20, "u" * 36, "p" * 36, "0123456789"
_POD_SUFFIX: Final = "abcde"
_CREATED: Final = "2026-11-24T08:00:00Z"
_CREATED_AT: Final = datetime(2026, 11, 24, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Text:
    """A JSON template of a Job or pod, with placeholders for name, uids, version, time and number."""

    text: str
    begun: datetime

    def of(self, number: int, version: int, later: int = 0) -> bytes:
        """Return the text for this job; `later` moves all of its times by this number of seconds."""
        name = name_of(number)
        filled = (
            self.text.replace(_NAME, name).replace(_UID, _uid("job", number)).replace(_POD_UID, _uid("pod", number))
        )
        filled = filled.replace(_NUMBER, f"{number:010d}").replace(
            '"resourceVersion":"0"', f'"resourceVersion":"{version}"'
        )
        created = self.begun + timedelta(seconds=number % CREATED_WITHIN.seconds + later)
        return filled.replace(_CREATED, f"{created:%Y-%m-%dT%H:%M:%SZ}").encode()


def name_of(number: int) -> str:
    """Return the name of the job with this number."""
    return "rw-" + sha256(str(number).encode()).hexdigest()[:20].translate(str.maketrans("0189", "wxyz"))


def pod_of(number: int) -> str:
    """Return the name of this job's pod."""
    return f"{name_of(number)}-{_POD_SUFFIX}"


def _uid(kind: str, number: int) -> str:
    text = sha256(f"{kind} {number}".encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


class FakeApiServer:
    """A fake API server. Call `serve`, then start a Runway with the kubeconfig that it yields."""

    def __init__(self, policy: Policy, jobs: int, document: Json = DOCUMENT) -> None:
        self.jobs = jobs
        self.version = FIRST_VERSION + 2 * jobs
        begun = datetime.now(UTC) - BEGAN_BEFORE
        running, finished = [
            [_Text(_compact(item), begun) for item in _job(policy, document, finished=finished)]
            for finished in (False, True)
        ]
        self._texts = {"jobs": (running[0], finished[0]), "pods": (running[1], finished[1])}
        self._lease: Json = {}
        self._readers: defaultdict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)
        """The open streams: watches by kind, logs by pod."""
        self._ending = asyncio.Event()

    @asynccontextmanager
    async def serve(self, scratch: Path) -> Any:
        """Serve until the context exits; yield the kubeconfig."""
        app = web.Application()
        for kind, path in (("jobs", "apis/batch/v1"), ("pods", "api/v1"), ("events", "api/v1"), ("nodes", "api/v1")):
            app.router.add_get(f"/{path}/{kind}", self._listing_of(kind))
        app.router.add_post("/apis/batch/v1/namespaces/{namespace}/jobs", self._create)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/log", self._log)
        leases = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        app.router.add_post(leases, self._write_lease)
        app.router.add_put(leases + "/{name}", self._write_lease)
        app.router.add_get(leases + "/{name}", self._read_lease)
        app.router.add_get("/version", self._version)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        kubeconfig = scratch / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.url)))
        try:
            yield kubeconfig
        finally:
            self._ending.set()
            for reader in tuple(self._readers):
                self._send(reader, b"")
            await runner.cleanup()

    def change_pod(self, number: int, later: int) -> None:
        """Send the watches an event of this running job's pod, with a start time that is `later` seconds later."""
        self.version += 1
        self._send("pods", _event(b"MODIFIED", self._texts["pods"][0].of(number, self.version, later)))

    def write_log(self, number: int) -> None:
        """Send the readers of this running job's log a line."""
        self._send(pod_of(number), _log_line())

    def _send(self, reader: str, text: bytes) -> None:
        for queue in self._readers[reader]:
            queue.put_nowait(text)

    def _listing_of(self, kind: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if "watch" in request.query:
                return await self._stream(request, kind)
            if kind not in self._texts:
                return _answer(_page(b"", self.version, ""))
            start = int(request.query.get("continue", "0"))
            end = min(start + int(request.query["limit"]), self.jobs)
            items = b",".join(self._item(kind, number) for number in range(start, end))
            return _answer(_page(items, self.version, str(end) if end < self.jobs else ""))

        return handle

    def _item(self, kind: str, number: int) -> bytes:
        running, finished = self._texts[kind]
        text = running if number % RUNNING_EVERY == 0 else finished
        return text.of(number, FIRST_VERSION + number)

    async def _create(self, request: web.Request) -> web.Response:
        job, now = msgspec.json.decode(await request.read()), datetime.now(UTC)
        self.version += 1
        job["metadata"] |= {"namespace": request.match_info["namespace"], **_added(str(uuid.uuid4()))}
        job["metadata"] |= {"resourceVersion": str(self.version), "creationTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        item = msgspec.json.encode(_managed(_with_selector(job) | {"status": {}}))
        self._send("jobs", _event(b"ADDED", item))
        return web.Response(status=201, body=item, content_type="application/json")

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """Serve one line, and with `follow` those of `write_log`."""
        if request.query["follow"] == "true":
            return await self._stream(request, request.match_info["pod"], _log_line())
        return web.Response(body=_log_line())

    async def _stream(self, request: web.Request, reader: str, first: bytes = b"") -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._readers[reader].add(queue)
        try:
            await response.write(first)
            while not self._ending.is_set():
                await response.write(await queue.get())
        except ConnectionError:
            pass  # The reading Runway has exited.
        finally:
            self._readers[reader].discard(queue)
        return response

    async def _version(self, _: web.Request) -> web.Response:
        return _answer(b"{}")

    async def _read_lease(self, _: web.Request) -> web.Response:
        return _answer(msgspec.json.encode(self._lease)) if self._lease else web.Response(status=404, text="{}")

    async def _write_lease(self, request: web.Request) -> web.Response:
        self.version += 1
        self._lease = json.loads(await request.read())
        self._lease["metadata"]["resourceVersion"] = str(self.version)
        return _answer(msgspec.json.encode(self._lease))


def _job(policy: Policy, document: Json, *, finished: bool) -> tuple[Json, Json]:
    """Return a Job of Runway and its pod with the fields that Kubernetes adds."""
    document = document | {"command": [*document["command"], "--run", _NUMBER]}
    tenant = next(iter(policy.tenants))
    passed = validate(read_draft(document), policy, tenant)
    placement = Placement(_NAME, tenant, NAMESPACE, request_hash(document), policy.pools[passed.pool], passed.price)
    job: Json = msgspec.json.decode(msgspec.json.encode(job_manifest(passed.spec, placement, policy.limits)))
    job["metadata"] |= _added(_UID)
    job = _with_selector(job)
    job["status"] = {"startTime": _CREATED, "ready": 0, "uncountedTerminatedPods": {}}
    job["status"] |= {"succeeded": 1, "completionTime": _CREATED} if finished else {"active": 1}
    if finished:
        job["status"]["conditions"] = [
            _condition(name, "CompletionsReached") for name in ("SuccessCriteriaMet", "Complete")
        ]
    pod = _pod(job, finished=finished)
    if finished:
        case = JobSnapshot(tenant, msgspec.convert(job, Job), (msgspec.convert(pod, Pod),))
        job["metadata"]["annotations"][ANNOTATION_RECORD] = encode(
            final_record(case, None, None, None, _CREATED_AT), case.job
        )
    return _managed(job), _managed(pod)


def _pod(job: Json, *, finished: bool) -> Json:
    template = job["spec"]["template"]
    tolerations = [
        {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for taint in ("not-ready", "unreachable")
    ]
    state = {"startedAt": _CREATED, "containerID": f"containerd://{'c' * 64}"}
    ended = {"terminated": state | {"exitCode": 0, "reason": "Completed", "finishedAt": _CREATED}}
    names = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    status = {
        "phase": "Succeeded" if finished else "Running",
        "conditions": [_condition(name, None) for name in names],
        "hostIP": "10.0.0.1",
        "podIP": "10.0.0.2",
        "startTime": _CREATED,
        "qosClass": "Guaranteed",
        "containerStatuses": [
            {
                "name": "job",
                "image": "runway.local/busybox:1",
                "imageID": f"sha256:{'i' * 64}",
                "containerID": f"containerd://{'c' * 64}",
                "restartCount": 0,
                "lastState": {},
                "state": ended if finished else {"running": {"startedAt": _CREATED}},
            }
        ],
    }
    metadata = template["metadata"] | {"name": f"{_NAME}-{_POD_SUFFIX}", "namespace": NAMESPACE, **_added(_POD_UID)}
    spec = template["spec"] | {"nodeName": "node-1", "tolerations": tolerations, "schedulerName": "default-scheduler"}
    return {"metadata": metadata, "spec": spec, "status": status}


def _with_selector(job: Json) -> Json:
    """Add the labels of the pods, and the selector of these labels."""
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    labels = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
    job["spec"]["template"]["metadata"]["labels"] |= labels | {"controller-uid": uid, "job-name": name}
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    return job


def _added(uid: str) -> Json:
    return {"uid": uid, "resourceVersion": "0", "generation": 1, "creationTimestamp": _CREATED}


def _condition(name: str, reason: str | None) -> Json:
    found = {"type": name, "status": "True", "lastProbeTime": None, "lastTransitionTime": _CREATED}
    return (
        found if reason is None else found | {"reason": reason, "message": "Reached expected number of succeeded pods"}
    )


def _managed(item: Json) -> Json:
    """Add the managed fields of the API server, about a third of the object.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#managed-fields
    """
    fields = {name: _fields(item[name]) for name in ("metadata", "spec")}
    entry = {"manager": "runway", "operation": "Update", "time": _CREATED, "fieldsType": "FieldsV1", "fieldsV1": fields}
    item["metadata"]["managedFields"] = [entry]
    return item


def _fields(part: object) -> Json:
    if isinstance(part, dict):
        return {f"f:{name}": _fields(inner) for name, inner in part.items()}
    if isinstance(part, list):
        return {f'k:{{"{index}"}}': _fields(inner) for index, inner in enumerate(part)}
    return {}


def _compact(item: Json) -> str:
    return msgspec.json.encode(item).decode()


def _event(kind: bytes, item: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind, item)


def _log_line() -> bytes:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z a line of the log\n".encode()


def _page(items: bytes, version: int, token: str) -> bytes:
    rest = f',"continue":"{token}"' if token else ""
    return b'{"metadata":{"resourceVersion":"%d"%s},"items":[%s]}' % (version, rest.encode(), items)


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _kubeconfig(url: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }
