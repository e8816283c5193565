"""Resource vectors, and the resources that a job or a pod requests. Pure."""

from __future__ import annotations

import msgspec

from runway.jobs.spec import Resources
from runway.kube.objects import GPU_RESOURCE, PodSpec
from runway.quantity import ceil_units, format_bytes, format_cpu


class ResourceVector(msgspec.Struct, frozen=True, gc=False):
    """Whole GPUs, milli-CPU, bytes of memory and jobs. A Struct takes a tenth of the time of a frozen dataclass."""

    gpu: int = 0
    cpu: int = 0
    memory: int = 0
    jobs: int = 0

    def __add__(self, other: ResourceVector) -> ResourceVector:
        return ResourceVector(
            self.gpu + other.gpu, self.cpu + other.cpu, self.memory + other.memory, self.jobs + other.jobs
        )

    def __sub__(self, other: ResourceVector) -> ResourceVector:
        return ResourceVector(
            self.gpu - other.gpu, self.cpu - other.cpu, self.memory - other.memory, self.jobs - other.jobs
        )

    def maximum(self, other: ResourceVector) -> ResourceVector:
        return ResourceVector(
            max(self.gpu, other.gpu),
            max(self.cpu, other.cpu),
            max(self.memory, other.memory),
            max(self.jobs, other.jobs),
        )

    def to_json(self) -> dict[str, object]:
        """Return the amounts as Kubernetes quantities."""
        return {"gpu": self.gpu, "cpu": format_cpu(self.cpu), "memory": format_bytes(self.memory), "jobs": self.jobs}


ZERO = ResourceVector()


def vector_of(resources: Resources) -> ResourceVector:
    """Return the usage of one job with these resources: it runs in one pod at a time."""
    return ResourceVector(resources.gpu, resources.cpu, resources.memory, jobs=1)


def amounts_of(quantities: dict[str, str]) -> ResourceVector:
    """Read quantities by resource name, as in a container's requests or a node's allocatable.

    Raises ValueError for an invalid quantity.
    """
    return ResourceVector(
        gpu=ceil_units(quantities.get(GPU_RESOURCE, "0")),
        cpu=ceil_units(quantities.get("cpu", "0"), 1000),
        memory=ceil_units(quantities.get("memory", "0")),
    )


def requests_of(spec: PodSpec) -> ResourceVector:
    """Return the resources that the scheduler reserves for a pod: the sum of its containers, or a larger init step.

    Raises ValueError for an invalid quantity.
    https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    steps = spec.init_containers or ()
    sidecars = [container for container in steps if container.restart_policy == "Always"]
    containers = [*(spec.containers or ()), *sidecars]
    total = sum((amounts_of(container.resources.requests) for container in containers), ZERO)
    for container in steps:
        total = total.maximum(amounts_of(container.resources.requests))
    if not spec.resources.requests:
        return total
    of_pod = amounts_of(spec.resources.requests)
    return ResourceVector(
        gpu=total.gpu,  # Only CPU and memory can be requested for a pod as a whole.
        cpu=of_pod.cpu if "cpu" in spec.resources.requests else total.cpu,
        memory=of_pod.memory if "memory" in spec.resources.requests else total.memory,
    )
