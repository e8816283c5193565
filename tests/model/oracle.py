"""What every tenant holds, worked out from product.md section 4 alone and from what the API server has.

"Per job the booking is its GPUs while the Job is unfinished or any of its pods has not ended, terminating pods and pods
of deleted Jobs included." CPU, memory and the number of jobs work the same way. Runway's own booking is not used here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from typing import Any, Final, NamedTuple

from runway.quantity import parse_bytes, parse_cpu
from tests.support.fake_cluster import FakeKubernetes

Json = dict[str, Any]

JOB_UID: Final = "batch.kubernetes.io/controller-uid"


class Held(NamedTuple):
    """Whole GPUs, milli-CPU, bytes, jobs."""

    gpu: int = 0
    cpu: int = 0
    memory: int = 0
    jobs: int = 0

    def plus(self, other: Held) -> Held:
        """Both together."""
        return Held(*(one + two for one, two in zip(self, other, strict=True)))

    def times(self, number: int) -> Held:
        """So many of them."""
        return Held(*(one * number for one in self))

    def at_least(self, other: Held) -> Held:
        """The larger of each."""
        return Held(*(max(one, two) for one, two in zip(self, other, strict=True)))


def uid(item: Json) -> str:
    """An object's uid."""
    return str(item["metadata"]["uid"])


def requests(pod_spec: Json) -> Held:
    """What the containers of one pod ask for."""
    total = Held()
    for container in pod_spec["containers"]:
        asked = container["resources"]["requests"]
        gpu, cpu, memory = asked.get("nvidia.com/gpu", "0"), asked.get("cpu", "0"), asked.get("memory", "0")
        total = total.plus(Held(int(gpu), parse_cpu(cpu), parse_bytes(memory)))
    return total


def finished(job: Json) -> bool:
    """Whether Kubernetes has given its verdict."""
    return any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", []))


def ended(pod: Json) -> bool:
    """Whether nothing of the pod runs or will run."""
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def told_to_end(pod: Json) -> bool:
    """Whether someone has deleted the pod."""
    return "deletionTimestamp" in pod["metadata"]


def disrupted(pod: Json) -> bool:
    """Whether Kubernetes took the pod's place away."""
    return any(item["type"] == "DisruptionTarget" for item in pod["status"].get("conditions", []))


def succeeded(pod: Json) -> bool:
    """Whether the Job controller can only count this pod as a success: nobody had told it to end."""
    return pod["status"]["phase"] == "Succeeded" and not told_to_end(pod) and not disrupted(pod)


def pods_of(server: FakeKubernetes, job: Json) -> list[Json]:
    """The pods of this very Job, ended ones included."""
    return [
        pod for pod in server.objects["pods"].values() if pod["metadata"].get("labels", {}).get(JOB_UID) == uid(job)
    ]


def may_start(server: FakeKubernetes, job: Json) -> bool:
    """Whether the Job controller may yet start a pod: the Job is open, and the one success it needs is not there."""
    single = job["spec"].get("completions") == 1 and job["spec"].get("parallelism") == 1
    return not finished(job) and not (single and any(succeeded(pod) for pod in pods_of(server, job)))


def use(server: FakeKubernetes, namespace: str, hidden: Set[str] = frozenset()) -> Held:
    """What a tenant's Jobs and pods hold, those whose uid is in `hidden` left out."""
    pods: defaultdict[str, Held] = defaultdict(Held)
    for (space, _), pod in server.objects["pods"].items():
        if space == namespace and not ended(pod) and uid(pod) not in hidden:
            owner = pod["metadata"].get("labels", {}).get(JOB_UID, uid(pod))
            pods[owner] = pods[owner].plus(requests(pod["spec"]))
    total = Held()
    for (space, _), job in server.objects["jobs"].items():
        if space != namespace:
            continue
        to_come = Held()
        if may_start(server, job) and uid(job) not in hidden:
            to_come = requests(job["spec"]["template"]["spec"]).times(job["spec"].get("parallelism", 1))
        held = to_come.at_least(pods.pop(uid(job), Held()))
        total = total.plus(_one_job(held))
    for held in pods.values():
        total = total.plus(_one_job(held))
    return total


def terminating(server: FakeKubernetes, namespace: str) -> Held:
    """What pods hold that were told to end and have not, without the number of jobs."""
    total = Held()
    for (space, _), pod in server.objects["pods"].items():
        if space == namespace and not ended(pod) and told_to_end(pod):
            total = total.plus(requests(pod["spec"]))
    return total


def _one_job(held: Held) -> Held:
    """However many pods a job has, it is one job; it is none when it holds nothing."""
    return held._replace(jobs=1) if any(held) else held
