"""Resource vectors, and the resources that a job or a pod requests. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runway.jobs.models import CostView
from runway.jobs.spec import Resources
from runway.kube.objects import DISK_RESOURCE, GPU_RESOURCE, PodSpec
from runway.quantity import ceil_units, format_bytes, format_cpu, format_usd, micro_usd

GpuTypes = tuple[tuple[str, int], ...]
"""Whole GPUs by type, sorted, without zeros."""


class ResourceVector(msgspec.Struct, frozen=True, gc=False):
    """Integer amounts. A Struct takes a tenth of the time of a frozen dataclass."""

    gpu: int = 0
    cpu: int = 0
    """Milli-CPU."""
    memory: int = 0
    """Bytes."""
    jobs: int = 0
    disk: int = 0
    """Bytes."""
    usd_per_hour: int = 0
    """The hourly price, in micro-USD."""
    ceiling: int = 0
    """The maximum cost of unfinished jobs, in micro-USD."""
    gpu_types: GpuTypes = ()

    def __add__(self, other: ResourceVector) -> ResourceVector:
        return ResourceVector(
            self.gpu + other.gpu,
            self.cpu + other.cpu,
            self.memory + other.memory,
            self.jobs + other.jobs,
            self.disk + other.disk,
            self.usd_per_hour + other.usd_per_hour,
            self.ceiling + other.ceiling,
            _by_type(int.__add__, self.gpu_types, other.gpu_types),
        )

    def __sub__(self, other: ResourceVector) -> ResourceVector:
        return ResourceVector(
            self.gpu - other.gpu,
            self.cpu - other.cpu,
            self.memory - other.memory,
            self.jobs - other.jobs,
            self.disk - other.disk,
            self.usd_per_hour - other.usd_per_hour,
            self.ceiling - other.ceiling,
            _by_type(int.__sub__, self.gpu_types, other.gpu_types),
        )

    def maximum(self, other: ResourceVector) -> ResourceVector:
        return ResourceVector(
            max(self.gpu, other.gpu),
            max(self.cpu, other.cpu),
            max(self.memory, other.memory),
            max(self.jobs, other.jobs),
            max(self.disk, other.disk),
            max(self.usd_per_hour, other.usd_per_hour),
            max(self.ceiling, other.ceiling),
            _by_type(max, self.gpu_types, other.gpu_types),
        )

    def minimum(self, other: ResourceVector) -> ResourceVector:
        return ZERO - (ZERO - self).maximum(ZERO - other)

    def times(self, number: int) -> ResourceVector:
        return ResourceVector(
            self.gpu * number,
            self.cpu * number,
            self.memory * number,
            self.jobs * number,
            self.disk * number,
            self.usd_per_hour * number,
            self.ceiling * number,
            tuple((name, amount * number) for name, amount in self.gpu_types),
        )

    def gpus_of(self, gpu_type: str) -> int:
        return next((amount for name, amount in self.gpu_types if name == gpu_type), 0)

    def to_json(self) -> dict[str, object]:
        """Return the amounts as Kubernetes quantities and USD, without the ceiling."""
        return {
            "gpu": self.gpu,
            "cpu": format_cpu(self.cpu),
            "memory": format_bytes(self.memory),
            "disk": format_bytes(self.disk),
            "jobs": self.jobs,
            "gpu_types": dict(self.gpu_types),
            "usd_per_hour": format_usd(self.usd_per_hour),
        }


ZERO = ResourceVector()


def _by_type(combine: Callable[[int, int], int], one: GpuTypes, two: GpuTypes) -> GpuTypes:
    if not one and not two:
        return ()
    if len(one) == len(two) == 1 and one[0][0] == two[0][0]:  # The common case.
        amount = combine(one[0][1], two[0][1])
        return ((one[0][0], amount),) if amount else ()
    first, second = dict(one), dict(two)
    combined = ((name, combine(first.get(name, 0), second.get(name, 0))) for name in sorted(first | second))
    return tuple((name, amount) for name, amount in combined if amount)


def vector_of(resources: Resources, price: CostView) -> ResourceVector:
    """Return the usage of one job with these resources and this price: it runs in one pod at a time."""
    return ResourceVector(
        resources.gpu,
        resources.cpu,
        resources.memory,
        jobs=1,
        disk=resources.disk,
        usd_per_hour=micro_usd(price.hourly),
        ceiling=micro_usd(price.ceiling),
        gpu_types=((resources.gpu_type, resources.gpu),) if resources.gpu_type and resources.gpu else (),
    )


def amounts_of(quantities: dict[str, str]) -> ResourceVector:
    """Read quantities by resource name, as in a container's requests or a node's allocatable.

    Raises ValueError for an invalid quantity.
    """
    return ResourceVector(
        gpu=ceil_units(quantities.get(GPU_RESOURCE, "0")),
        cpu=ceil_units(quantities.get("cpu", "0"), 1000),
        memory=ceil_units(quantities.get("memory", "0")),
        disk=ceil_units(quantities.get(DISK_RESOURCE, "0")),
    )


def requests_of(spec: PodSpec) -> ResourceVector:
    """Return the resources that the scheduler reserves for a pod: the sum of its containers, or a larger init step.

    An init step is an init container with the sidecars before it. Raises ValueError for an invalid quantity.
    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    sidecars = largest_step = ZERO
    for container in spec.init_containers or ():
        step = sidecars + amounts_of(container.resources.requests)
        largest_step = largest_step.maximum(step)
        if container.restart_policy == "Always":
            sidecars = step
    total = sum((amounts_of(container.resources.requests) for container in spec.containers or ()), sidecars)
    if spec.init_containers:
        total = total.maximum(largest_step)
    if not spec.resources.requests:
        return total
    of_pod = amounts_of(spec.resources.requests)
    return ResourceVector(
        gpu=total.gpu,  # Only CPU and memory can be requested for a pod as a whole.
        cpu=of_pod.cpu if "cpu" in spec.resources.requests else total.cpu,
        memory=of_pod.memory if "memory" in spec.resources.requests else total.memory,
        disk=total.disk,
    )
