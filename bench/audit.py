"""Compute each tenant's GPU usage over time from watches, independent of Runway.

A job uses its GPUs while its Job is unfinished or one of its pods is not terminal. A succeeded pod counts as the end of
its Job, because no pod follows (docs/architecture.md, "When quota is released"). Two watches report Jobs and pods, and
either may lag. The audit replays their events by resourceVersion, the order of the writes in the API server.
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
    status: _Status = msgspec.field(default_factory=_Status)
    spec: _JobSpec = msgspec.field(default_factory=_JobSpec)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    """The part of an object that a bookmark has. An error, such as an expired version, lacks it."""

    metadata: _Metadata


class _List(msgspec.Struct):
    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Metadata


_event = msgspec.json.Decoder(_Event)
_bookmark = msgspec.json.Decoder(_Bookmark)
_object = msgspec.json.Decoder(_Object)


@dataclass(frozen=True, slots=True, order=True)
class Observation:
    """One watch event; the resourceVersion comes first, so events sort in write order."""

    version: int
    kind: str
    name: str
    job: str
    tenant: str
    gpus: int
    finished: bool
    """Whether the Job is finished or deleted, or the pod terminal or deleted."""
    succeeded: bool


@dataclass(slots=True)
class Audit:
    """All recorded watch events of Runway's jobs."""

    observations: list[Observation] = field(default_factory=list)
    gap: str | None = None
    """The reason for a gap in the record, if any."""

    def peak_usage(self) -> dict[str, int]:
        """Return the highest GPU usage of each tenant. Raises RuntimeError if the record has a gap."""
        if self.gap is not None:
            raise RuntimeError(f"the audit has a gap: {self.gap}")
        usage: dict[str, int] = defaultdict(int)
        peak: dict[str, int] = defaultdict(int)
        jobs: dict[str, _Job] = {}
        for observation in sorted(self.observations):
            job, tenant = jobs.setdefault(observation.job, _Job()), observation.tenant
            usage[tenant] -= job.usage
            job.apply(observation)
            usage[tenant] += job.usage
            peak[tenant] = max(peak[tenant], usage[tenant])
        return dict(peak)


@dataclass(slots=True)
class _Job:
    gpus: int = 0
    unfinished: bool = False
    succeeded: bool = False
    pods: set[str] = field(default_factory=set)

    def apply(self, observation: Observation) -> None:
        if observation.kind == "jobs":
            self.gpus, self.unfinished = observation.gpus, not observation.finished
        elif observation.finished:
            self.pods.discard(observation.name)
            self.succeeded = self.succeeded or observation.succeeded
        else:
            self.pods.add(observation.name)

    @property
    def usage(self) -> int:
        return self.gpus if self.pods or (self.unfinished and not self.succeeded) else 0


@asynccontextmanager
async def audit(api: ApiServer) -> AsyncIterator[Audit]:
    """Record both watches until the context exits."""
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
            # It resets the open watches. A cancelled task would leave its connection waiting for the end of TLS.
            await session.close()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _version(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url, params={"labelSelector": SELECTOR, "limit": "1"}) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.read(), type=_List).metadata.resource_version


async def _watch(session: aiohttp.ClientSession, url: str, kind: str, version: str, found: Audit) -> None:
    """Record one watch. If the API server closes it, resume from the last resourceVersion."""
    params = {"watch": "1", "labelSelector": SELECTOR, "allowWatchBookmarks": "true", "timeoutSeconds": "7200"}
    try:
        while True:
            async with session.get(url, params=params | {"resourceVersion": version}) as answer:
                answer.raise_for_status()
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for event in map(_event.decode, lines):
                        version = _bookmark.decode(event.object).metadata.resource_version
                        if event.type != "BOOKMARK":
                            found.observations.append(_observation(kind, event.type, _object.decode(event.object)))
            await asyncio.sleep(RESUME_SECONDS)
    except (aiohttp.ClientError, msgspec.MsgspecError, TimeoutError) as error:
        found.gap = f"the watch of {kind} failed: {error!r}"


def _observation(kind: str, event_type: str, item: _Object) -> Observation:
    labels = item.metadata.labels
    outcome = {each.type for each in item.status.conditions if each.status == "True"} & {"Complete", "Failed"}
    finished = bool(outcome) if kind == "jobs" else item.status.phase in ("Succeeded", "Failed")
    gpus = 0
    if item.spec.template is not None:
        gpus = sum(int(each.resources.limits.get(GPU, "0")) for each in item.spec.template.spec.containers)
    return Observation(
        version=int(item.metadata.resource_version),
        kind=kind,
        name=item.metadata.name,
        job=labels["runway.internal/job"],
        tenant=labels["runway.internal/tenant"],
        gpus=gpus,
        finished=event_type == "DELETED" or finished,
        succeeded=kind == "pods" and item.status.phase == "Succeeded",
    )
