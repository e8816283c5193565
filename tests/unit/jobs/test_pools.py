"""The pool of a pod, for its GPU type and its hourly price."""

from __future__ import annotations

import pytest

from runway.jobs.annotations import LABEL_POOL, Price
from runway.jobs.pools import pod_amounts, possible_pools
from runway.jobs.resources import ResourceVector
from runway.kube.objects import GPU_RESOURCE, Container, ContainerResources, PodSpec
from runway.policy import parse_policy
from tests.support.builders import policy_text

POOLS = parse_policy(
    policy_text(
        ('cpu: "16", memory: 64Gi}', 'cpu: "16", memory: 64Gi, node_selector: {pool: cpu}}'),
        ("gpu: 4, gpu_type: a10g}", "gpu: 4, gpu_type: a10g, node_selector: {pool: a10g}}"),
        ("gpu: 8, gpu_type: h100}", "gpu: 8, gpu_type: h100, node_selector: {pool: h100, zone: a}}"),
    )
).pools


@pytest.mark.parametrize(
    ("name", "selector", "gpu", "pools"),
    [
        ("h100", {}, 1, ["h100"]),
        ("h100", {"pool": "a10g"}, 1, ["h100"]),
        ("cpu", {}, 1, ["a10g", "h100"]),
        ("removed", {"pool": "a10g"}, 1, ["a10g"]),
        (None, {"pool": "h100", "zone": "a", "disk": "ssd"}, 1, ["h100"]),
        (None, {"pool": "a10g"}, 0, ["a10g"]),
        (None, {"zone": "b"}, 1, ["a10g"]),
        (None, {}, 1, ["a10g", "h100"]),
        (None, {}, 0, ["cpu"]),
        (None, {"pool": "elsewhere"}, 1, ["a10g", "h100"]),
        (None, {"pool": "cpu"}, 2, ["a10g", "h100"]),
    ],
)
def test_possible_pools_of_pod(name: str | None, selector: dict[str, str], gpu: int, pools: list[str]) -> None:
    found = possible_pools(name, selector, gpu, POOLS)
    assert [known for known, pool in POOLS.items() if any(pool is other for other in found)] == pools


def amounts(
    requests: dict[str, str], pool: str | None = None, selector: dict[str, str] | None = None
) -> ResourceVector:
    spec = PodSpec(containers=(Container("main", ContainerResources(requests)),), node_selector=selector or {})
    return pod_amounts(spec, {} if pool is None else {LABEL_POOL: pool}, None, POOLS)


def test_pod_that_several_pools_may_run_counts_for_each_type_at_the_highest_price() -> None:
    found, dear = amounts({GPU_RESOURCE: "1"}), amounts({GPU_RESOURCE: "1"}, "h100")
    assert found.gpu_types == (("a10g", 1), ("h100", 1))
    assert dear.gpu_types == (("h100", 1),)
    assert found.usd_per_hour == dear.usd_per_hour > 0


def test_pod_without_gpu_on_gpu_nodes_has_their_price_and_no_type() -> None:
    found = amounts({"cpu": "48", "memory": "192Gi"}, pool="a10g")
    assert found == amounts({"cpu": "48", "memory": "192Gi"}, selector=POOLS["a10g"].node_selector)
    assert found.gpu_types == ()
    assert found.usd_per_hour == round(5_672_000 * (48 * 9 + 192) / (48 * 9 + 192 + 4 * 220))


def test_job_of_version_0_7_has_the_pool_of_its_rate_card() -> None:
    spec = PodSpec(containers=(Container("job", ContainerResources({GPU_RESOURCE: "2"})),))
    found = pod_amounts(spec, {}, Price(hourly=7, ceiling=8, pool="h100"), POOLS)
    assert (found.gpu_types, found.usd_per_hour) == ((("h100", 2),), 7)
