"""Compute tenants' usage from the API server's objects, independent of Runway.

A job uses its GPUs while its Job is unfinished or any of its pods is not terminal. That includes terminating pods and
pods of deleted Jobs. CPU, memory, disk, hourly price and the number of jobs follow the same rule. A budget counts the
Jobs of Runway alone, at their ceilings until a record has their cost, which counts up to the ceiling. This module uses
none of Runway's code for observed usage, budgets and actual cost, except its prices.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Set
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from runway.jobs.cost import hourly_micro_usd
from runway.jobs.resources import ResourceVector
from runway.policy import Quota
from runway.quantity import parse_bytes, parse_cpu
from tests.model.policy import POLICY
from tests.support.fake_cluster import FakeKubernetes

Json = dict[str, Any]

NODE: Final = "node-1"
NO_IMAGE: Final = "failed to resolve reference: x: not found"
NO_REGISTRY: Final = "dial tcp: i/o timeout"
CAUSES: Final = {NO_IMAGE: "image_not_found", NO_REGISTRY: "registry_unavailable"}
"""Failure codes by the messages of waiting containers."""
JOB_UID: Final = "batch.kubernetes.io/controller-uid"


class Usage(NamedTuple):
    """Whole GPUs, and those by type, milli-CPU, bytes of memory, bytes of disk, jobs, micro-USD an hour."""

    gpu: int = 0
    a10g: int = 0
    h100: int = 0
    cpu: int = 0
    memory: int = 0
    disk: int = 0
    jobs: int = 0
    usd: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage(*(one + two for one, two in zip(self, other, strict=True)))

    def times(self, number: int) -> Usage:
        """Return the product."""
        return Usage(*(one * number for one in self))

    def at_least(self, other: Usage) -> Usage:
        """Return the maximum of each component."""
        return Usage(*(max(one, two) for one, two in zip(self, other, strict=True)))


UNLIMITED: Final = 10**18


def _limits(quota: Quota) -> Usage:
    a10g, h100 = (quota.gpu_types.get(name, UNLIMITED) for name in ("a10g", "h100"))
    disk, usd = (UNLIMITED if limit is None else limit for limit in (quota.disk, quota.usd_per_hour))
    return Usage(quota.gpu, a10g, h100, quota.cpu, quota.memory, disk, quota.jobs, usd)


TENANTS: Final = {name: _limits(tenant.quota) for name, tenant in POLICY.tenants.items()}


def usage_in(amounts: ResourceVector) -> Usage:
    """Return the amounts of a ledger."""
    a10g, h100 = (dict(amounts.gpu_types).get(name, 0) for name in ("a10g", "h100"))
    of_one = (amounts.cpu, amounts.memory, amounts.disk, amounts.jobs, amounts.usd_per_hour)
    return Usage(amounts.gpu, a10g, h100, *of_one)


def uid(item: Json) -> str:
    """Return the uid of an object."""
    return str(item["metadata"]["uid"])


def owner_uid(pod: Json) -> str | None:
    """Return the uid of the pod's Job, by its label."""
    label = pod["metadata"].get("labels", {}).get(JOB_UID)
    return None if label is None else str(label)


def requests_of(item: Json) -> Usage:
    """Return the requests of one pod of a Job, or of a pod, with its price in the pool of its label.

    A pod without the label, created outside Runway, counts for each GPU type at the highest price.
    """
    total, pools = Usage(), POLICY.pools
    spec = item["spec"]["template"]["spec"] if "template" in item["spec"] else item["spec"]
    for container in spec["containers"]:
        asked = container["resources"]["requests"]
        gpu, cpu = int(asked.get("nvidia.com/gpu", "0")), parse_cpu(asked.get("cpu", "0"))
        memory, disk = (parse_bytes(asked.get(name, "0")) for name in ("memory", "ephemeral-storage"))
        total = total.plus(Usage(gpu=gpu, cpu=cpu, memory=memory, disk=disk))
    named = pools.get(item["metadata"].get("labels", {}).get("runway.internal/pool", ""))
    possible = [named] if named else [pool for pool in pools.values() if bool(pool.gpu) == bool(total.gpu)]
    types = {pool.gpu_type: total.gpu for pool in possible}
    prices = [hourly_micro_usd(pool, total.cpu, total.memory, total.gpu) for pool in possible]
    return total._replace(a10g=types.get("a10g", 0), h100=types.get("h100", 0), usd=max(prices))


def is_finished(job: Json) -> bool:
    """Whether the Job is Complete or Failed."""
    return any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", []))


def is_terminal(pod: Json) -> bool:
    """Whether the pod's phase is terminal."""
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def is_terminating(pod: Json) -> bool:
    """Whether the pod has a deletion timestamp."""
    return "deletionTimestamp" in pod["metadata"]


def is_disrupted(pod: Json) -> bool:
    """Whether the pod has the condition DisruptionTarget."""
    return any(item["type"] == "DisruptionTarget" for item in pod["status"].get("conditions", []))


def has_started(pod: Json) -> bool:
    """Whether a container of the pod runs or ran."""
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return any("running" in state or "terminated" in state for state in states)


def cause_of(pod: Json) -> str | None:
    """Return the code of the cause that keeps the pod from starting; None without one."""
    if is_terminal(pod) or is_terminating(pod):
        return None
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return next((CAUSES.get(state.get("waiting", {}).get("message", "")) for state in states), None)


def has_succeeded(pod: Json) -> bool:
    """Whether the Job controller must count this pod as a success."""
    return pod["status"]["phase"] == "Succeeded" and not is_terminating(pod) and not is_disrupted(pod)


def pods_of(server: FakeKubernetes, job: Json) -> list[Json]:
    """Return the pods of this Job by uid, including terminal ones."""
    return [
        pod for pod in server.objects["pods"].values() if pod["metadata"].get("labels", {}).get(JOB_UID) == uid(job)
    ]


def may_start(server: FakeKubernetes, job: Json) -> bool:
    """Whether the Job controller may still start a pod: the Job is unfinished and lacks its success."""
    single = job["spec"].get("completions") == 1 and job["spec"].get("parallelism") == 1
    return not is_finished(job) and not (single and any(has_succeeded(pod) for pod in pods_of(server, job)))


def usage_of(server: FakeKubernetes, namespace: str, hidden: Set[str] = frozenset()) -> Usage:
    """Return the usage of a tenant's Jobs and pods, without those whose uid is in `hidden`."""
    pods: defaultdict[str, Usage] = defaultdict(Usage)
    for (space, _), pod in server.objects["pods"].items():
        if space == namespace and not is_terminal(pod) and uid(pod) not in hidden:
            owner = pod["metadata"].get("labels", {}).get(JOB_UID, uid(pod))
            pods[owner] = pods[owner].plus(requests_of(pod))
    total = Usage()
    for (space, _), job in server.objects["jobs"].items():
        if space != namespace:
            continue
        to_come = Usage()
        if may_start(server, job) and uid(job) not in hidden:
            to_come = requests_of(job).times(job["spec"].get("parallelism", 1))
        usage = to_come.at_least(pods.pop(uid(job), Usage()))
        total = total.plus(_one_job(usage))
    for usage in pods.values():
        total = total.plus(_one_job(usage))
    return total


def terminating(server: FakeKubernetes, namespace: str) -> Usage:
    """Return the usage of terminating pods, without the number of jobs."""
    total = Usage()
    for (space, _), pod in server.objects["pods"].items():
        if space == namespace and not is_terminal(pod) and is_terminating(pod):
            total = total.plus(requests_of(pod))
    return total._replace(jobs=0)


class Budget(NamedTuple):
    """Micro-USD: the cost of finished jobs, and the ceilings of others."""

    spent: int
    committed: int


def budget_of(
    server: FakeKubernetes, namespace: str, now: datetime, seconds: int, hidden: Set[str] = frozenset()
) -> Budget:
    """Return what a tenant's Jobs count in a budget at this time, without those whose uid is in `hidden`."""
    spent = committed = 0
    for (space, _), job in server.objects["jobs"].items():
        notes = job["metadata"].get("annotations", {})
        if space != namespace or uid(job) in hidden or "runway.internal/cost" not in notes:
            continue
        ceiling = _micro(json.loads(notes["runway.internal/cost"])["ceiling"])
        if not is_finished(job):
            committed += ceiling
            continue
        (condition,) = job["status"]["conditions"]
        ended = datetime.fromisoformat(condition["lastTransitionTime"])
        if ended + timedelta(seconds=seconds) > now:
            record = json.loads(notes.get("runway.internal/record", "{}"))
            spent += min(_micro(record["actual"]), ceiling) if record.get("actual") else ceiling
    return Budget(spent, committed)


def cost_of_attempts(hourly: str, attempts: list[Json]) -> Decimal | None:
    """Return the exact cost of recorded attempts in USD, without a ceiling; None if a time is unknown."""
    bound = [attempt for attempt in attempts if attempt["node"] is not None]
    if any(attempt["bound_at"] is None or attempt["finished_at"] is None for attempt in bound):
        return None
    seconds = sum(max(0, _second(attempt["finished_at"]) - _second(attempt["bound_at"])) for attempt in bound)
    micro_usd = round(Fraction(hourly) * 1_000_000 * (max(seconds, 1) if bound else 0) / 3600)
    return Decimal(micro_usd).scaleb(-6)


def _second(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp())


def _micro(usd: str) -> int:
    return int(Decimal(usd) * 1_000_000)


def _one_job(usage: Usage) -> Usage:
    """Count one job, whatever its number of pods, or none without usage."""
    return usage._replace(jobs=1) if any(usage) else usage
