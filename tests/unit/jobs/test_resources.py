"""The resources that the scheduler reserves for a pod."""

from __future__ import annotations

import pytest

from runway.jobs.resources import requests_of
from runway.kube.objects import Container, ContainerResources, PodSpec


def container(cpu: str, *, sidecar: bool = False) -> Container:
    return Container("any", ContainerResources({"cpu": cpu}), "Always" if sidecar else None)


@pytest.mark.parametrize(
    ("init", "milli_cpu"),
    [
        ((), 2000),
        ((container("1"),), 2000),
        ((container("4"),), 4000),
        ((container("1", sidecar=True),), 3000),
        ((container("1", sidecar=True), container("4")), 5000),
        ((container("4"), container("1", sidecar=True)), 4000),
        ((container("1", sidecar=True), container("3"), container("1", sidecar=True)), 4000),
    ],
    ids=[
        "without init containers",
        "a small init container",
        "a large init container",
        "a sidecar",
        "a sidecar that runs beside a later init container",
        "a sidecar after the init container",
        "only the sidecars before an init container run beside it",
    ],
)
def test_pod_requests_its_containers_or_its_largest_init_step(init: tuple[Container, ...], milli_cpu: int) -> None:
    assert requests_of(PodSpec(containers=(container("2"),), init_containers=init)).cpu == milli_cpu
