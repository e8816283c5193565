"""What a pod asks of its node: pure, from its specification."""

from __future__ import annotations

import msgspec

from runway.jobs.manifest import GPU_RESOURCE
from runway.kube.objects import Container, PodSpec
from runway.quantity import ceil_units


class Requests(msgspec.Struct, frozen=True, gc=False):
    """Whole GPUs, milli-CPU and bytes of memory."""

    gpu: int = 0
    cpu: int = 0
    memory: int = 0

    def __add__(self, other: Requests) -> Requests:
        return Requests(self.gpu + other.gpu, self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: Requests) -> Requests:
        return Requests(self.gpu - other.gpu, self.cpu - other.cpu, self.memory - other.memory)

    def maximum(self, other: Requests) -> Requests:
        """The larger of each."""
        return Requests(max(self.gpu, other.gpu), max(self.cpu, other.cpu), max(self.memory, other.memory))


def requests_of(spec: PodSpec) -> Requests:
    """What the scheduler sets aside for such a pod: the sum of what runs together, or a larger init step.

    Raises ValueError where a quantity cannot be read.
    https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    steps = spec.init_containers or ()
    sidecars = [container for container in steps if container.restart_policy == "Always"]
    together = sum((_requests(container) for container in [*(spec.containers or ()), *sidecars]), Requests())
    for container in steps:
        together = together.maximum(_requests(container))
    if not spec.resources.requests:
        return together
    of_pod = amounts_of(spec.resources.requests)
    return Requests(
        gpu=together.gpu,  # Only CPU and memory can be requested for a pod as a whole.
        cpu=of_pod.cpu if "cpu" in spec.resources.requests else together.cpu,
        memory=of_pod.memory if "memory" in spec.resources.requests else together.memory,
    )


def amounts_of(quantities: dict[str, str]) -> Requests:
    """Amounts by resource name, as a container's requests and a node's allocatable are written.

    Raises ValueError where a quantity cannot be read.
    """
    return Requests(
        gpu=ceil_units(quantities.get(GPU_RESOURCE, "0")),
        cpu=ceil_units(quantities.get("cpu", "0"), 1000),
        memory=ceil_units(quantities.get("memory", "0")),
    )


def _requests(container: Container) -> Requests:
    return amounts_of(container.resources.requests)
