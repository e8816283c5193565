"""Compute tenants' usage from the API server's objects, independent of Runway.

A job uses its GPUs while its Job is unfinished or any of its pods is not terminal. That includes terminating pods and
pods of deleted Jobs. CPU, memory and the number of jobs follow the same rule. This module uses none of Runway's code
for observed usage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from typing import Any, Final, NamedTuple

from runway.quantity import parse_bytes, parse_cpu
from tests.support.fake_cluster import FakeKubernetes

Json = dict[str, Any]

NODE: Final = "node-1"
NO_IMAGE: Final = "failed to resolve reference: x: not found"
NO_REGISTRY: Final = "dial tcp: i/o timeout"
CAUSES: Final = {NO_IMAGE: "image_not_found", NO_REGISTRY: "registry_unavailable"}
"""Failure codes by the messages of waiting containers."""
JOB_UID: Final = "batch.kubernetes.io/controller-uid"


class Usage(NamedTuple):
    """Whole GPUs, milli-CPU, bytes, jobs."""

    gpu: int = 0
    cpu: int = 0
    memory: int = 0
    jobs: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage(*(one + two for one, two in zip(self, other, strict=True)))

    def times(self, number: int) -> Usage:
        """Return the product."""
        return Usage(*(one * number for one in self))

    def at_least(self, other: Usage) -> Usage:
        """Return the maximum of each component."""
        return Usage(*(max(one, two) for one, two in zip(self, other, strict=True)))


def uid(item: Json) -> str:
    """Return the uid of an object."""
    return str(item["metadata"]["uid"])


def owner_uid(pod: Json) -> str | None:
    """Return the uid of the pod's Job, by its label."""
    label = pod["metadata"].get("labels", {}).get(JOB_UID)
    return None if label is None else str(label)


def requests(pod_spec: Json) -> Usage:
    """Return the sum of the requests of a pod's containers."""
    total = Usage()
    for container in pod_spec["containers"]:
        asked = container["resources"]["requests"]
        gpu, cpu, memory = asked.get("nvidia.com/gpu", "0"), asked.get("cpu", "0"), asked.get("memory", "0")
        total = total.plus(Usage(int(gpu), parse_cpu(cpu), parse_bytes(memory)))
    return total


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
            pods[owner] = pods[owner].plus(requests(pod["spec"]))
    total = Usage()
    for (space, _), job in server.objects["jobs"].items():
        if space != namespace:
            continue
        to_come = Usage()
        if may_start(server, job) and uid(job) not in hidden:
            to_come = requests(job["spec"]["template"]["spec"]).times(job["spec"].get("parallelism", 1))
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
            total = total.plus(requests(pod["spec"]))
    return total


def _one_job(usage: Usage) -> Usage:
    """Count one job, whatever its number of pods, or none without usage."""
    return usage._replace(jobs=1) if any(usage) else usage
