"""What each tenant held at every moment, counted apart from Runway, from what Kubernetes told.

A job holds its GPUs while its Job is unfinished, or while one of its pods has not ended; a pod's success ends the
first, since nothing follows it (docs/architecture.md, "When quota is released"). Jobs and pods come by two watches,
which may lag behind each other; replayed in the order of their resource versions they stand in the order in which the
API server wrote them, and so does what Runway created because of them.
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec

from bench.kubernetes import ApiServer

GPU = "nvidia.com/gpu"
SELECTOR = "app.kubernetes.io/managed-by=runway"
RESUME_SECONDS = 0.2


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str
    name: str = ""
    labels: dict[str, str] = {}


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    phase: str = ""
    conditions: list[_Condition] = []


class _Resources(msgspec.Struct):
    limits: dict[str, str] = {}


class _Container(msgspec.Struct):
    resources: _Resources


class _PodSpec(msgspec.Struct):
    containers: list[_Container]


class _Template(msgspec.Struct):
    spec: _PodSpec


class _JobSpec(msgspec.Struct):
    template: _Template | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata
    """An error, the version being too old for example, has none, and so ends the record."""
    status: _Status = msgspec.field(default_factory=_Status)
    spec: _JobSpec = msgspec.field(default_factory=_JobSpec)


class _Event(msgspec.Struct):
    type: str
    object: _Object


class _List(msgspec.Struct):
    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Metadata


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """One thing that Kubernetes told, by its place in the API server's order."""

    version: int
    kind: str
    name: str
    job: str
    tenant: str
    gpus: int
    over: bool
    """A Job that is finished or deleted, or a pod that has ended or is deleted."""
    succeeded: bool


@dataclass(slots=True)
class Audit:
    """Everything that was told about Runway's jobs while it was recorded."""

    seen: list[Seen] = field(default_factory=list)
    broken: str | None = None
    """Why the record has a gap, if it has."""

    def most_held(self) -> dict[str, int]:
        """The most GPUs that each tenant ever held. Raises RuntimeError where the record has a gap."""
        if self.broken is not None:
            raise RuntimeError(f"the audit has a gap: {self.broken}")
        held: dict[str, int] = defaultdict(int)
        most: dict[str, int] = defaultdict(int)
        jobs: dict[str, _Job] = {}
        for seen in sorted(self.seen):
            job = jobs.setdefault(seen.job, _Job())
            held[seen.tenant] -= job.held
            job.tell(seen)
            held[seen.tenant] += job.held
            most[seen.tenant] = max(most[seen.tenant], held[seen.tenant])
        return dict(most)


@dataclass(slots=True)
class _Job:
    gpus: int = 0
    unfinished: bool = False
    succeeded: bool = False
    pods: set[str] = field(default_factory=set)

    def tell(self, seen: Seen) -> None:
        if seen.kind == "jobs":
            self.gpus, self.unfinished = seen.gpus, not seen.over
        elif seen.over:
            self.pods.discard(seen.name)
            self.succeeded = self.succeeded or seen.succeeded
        else:
            self.pods.add(seen.name)

    @property
    def held(self) -> int:
        return self.gpus if self.pods or (self.unfinished and not self.succeeded) else 0


@asynccontextmanager
async def audit(api: ApiServer) -> AsyncIterator[Audit]:
    """Record both watches meanwhile."""
    found = Audit()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls), timeout=timeout) as session:
        paths = {"jobs": "/apis/batch/v1/jobs", "pods": "/api/v1/pods"}
        began = {kind: await _version(session, f"{api.url}{path}") for kind, path in paths.items()}
        tasks = [
            asyncio.create_task(_watch(session, f"{api.url}{path}", kind, began[kind], found))
            for kind, path in paths.items()
        ]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _version(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url, params={"labelSelector": SELECTOR, "limit": "1"}) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.read(), type=_List).metadata.resource_version


async def _watch(session: aiohttp.ClientSession, url: str, kind: str, version: str, found: Audit) -> None:
    """Record one watch. Where the API server ends it, it goes on from the last version told, so nothing is missed."""
    decoder = msgspec.json.Decoder(_Event)
    params = {"watch": "1", "labelSelector": SELECTOR, "allowWatchBookmarks": "true", "timeoutSeconds": "7200"}
    try:
        while True:
            async with session.get(url, params=params | {"resourceVersion": version}) as answer:
                answer.raise_for_status()
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for event in map(decoder.decode, lines):
                        version = event.object.metadata.resource_version
                        if event.type != "BOOKMARK":
                            found.seen.append(_seen(kind, event))
            await asyncio.sleep(RESUME_SECONDS)
    except (aiohttp.ClientError, msgspec.MsgspecError, TimeoutError) as error:
        found.broken = f"the watch of {kind} failed: {error!r}"


def _seen(kind: str, event: _Event) -> Seen:
    told, labels = event.object, event.object.metadata.labels
    ended = {item.type for item in told.status.conditions if item.status == "True"} & {"Complete", "Failed"}
    gpus = 0
    if told.spec.template is not None:
        gpus = sum(int(each.resources.limits.get(GPU, "0")) for each in told.spec.template.spec.containers)
    return Seen(
        version=int(told.metadata.resource_version),
        kind=kind,
        name=told.metadata.name,
        job=labels["runway.internal/job"],
        tenant=labels["runway.internal/tenant"],
        gpus=gpus,
        over=event.type == "DELETED" or bool(ended if kind == "jobs" else told.status.phase in ("Succeeded", "Failed")),
        succeeded=kind == "pods" and told.status.phase == "Succeeded",
    )
