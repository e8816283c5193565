"""Free capacity for a pending pod, and the jobs that a node change affects."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from runway.jobs.snapshot import FreeCapacity, PoolSize
from runway.kube.objects import Node, Pod
from runway.state.job_store import JobKey
from runway.state.node_capacity import NodeCache, PoolNodes
from tests.support.builders import JOB, NAMESPACE, ended, pod, policy, running, unschedulable

KEY = JobKey(NAMESPACE, JOB)
GIB = 1 << 30
POOL = {"pool": "a10g"}


def node(name: str = "node-1", *, ready: str = "True", **more: Any) -> Node:
    allocatable = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "4"} | more.get("allocatable", {})
    return msgspec.convert(
        {
            "metadata": {"name": name, "labels": more.get("labels", POOL), "annotations": more.get("annotations", {})},
            "spec": {"unschedulable": more.get("cordoned", False), "taints": more.get("taints", [])},
            "status": {
                "allocatable": allocatable,
                "conditions": [{"type": "Ready", "status": ready}, *more.get("conditions", [])],
            },
        },
        Node,
    )


def waits(selector: dict[str, str] | None = None, tolerations: list[dict[str, str]] | None = None) -> Pod:
    """Return a pod without a node."""
    found = pod("waits", node=None, conditions=[unschedulable()])
    asked = msgspec.convert({"nodeSelector": selector or {}, "tolerations": tolerations or []}, type(found.spec))
    spec = msgspec.structs.replace(found.spec, node_selector=asked.node_selector, tolerations=asked.tolerations)
    return msgspec.structs.replace(found, spec=spec)


def holds(name: str, on: str = "node-1", gpu: int = 0, state: Any = None) -> Pod:
    requests = {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": str(gpu)}
    return pod(name, node=on, state=state or running(), requests=requests, namespace="elsewhere")


def cluster(*nodes: Node, pods: tuple[Pod, ...] = ()) -> NodeCache:
    found = NodeCache()
    found.replace_nodes(nodes)
    for _ in found.replace_pods((item, None) for item in pods):
        pass
    return found


def test_pods_of_all_namespaces_reduce_free_capacity() -> None:
    found = cluster(node(), node("node-2"), pods=(holds("a", gpu=3), holds("b", gpu=1), holds("c", "node-2", gpu=3)))
    assert found.free_capacity_for(waits()) == FreeCapacity(nodes=2, cpu=6000, memory=24 * GIB, gpu=1, gpu_in_all=1)


def test_terminal_pod_frees_capacity_and_terminating_pod_does_not() -> None:
    found = cluster(node(), pods=(holds("a", gpu=3),))
    found.upsert_pod(holds("a", gpu=3, state=ended(1)), None)
    found.upsert_pod(pod("b", deleted=50, state=running(), requests={"nvidia.com/gpu": "1"}), None)
    room = found.free_capacity_for(waits())
    assert room is not None
    assert room.gpu == 3
    found.delete_pod(pod("b").metadata.uid)
    assert found.free_capacity_for(waits()) == FreeCapacity(nodes=1, cpu=8000, memory=32 * GIB, gpu=4, gpu_in_all=4)


def test_free_capacity_is_never_negative() -> None:
    found = cluster(node(allocatable={"cpu": "1"}), pods=(holds("a"),))
    room = found.free_capacity_for(waits())
    assert room is not None
    assert room.cpu == 0


def test_only_schedulable_nodes_count() -> None:
    tainted = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    preferred = [{"key": "spot", "effect": "PreferNoSchedule"}]
    found = cluster(
        node("fits", taints=preferred),
        node("not-ready", ready="Unknown"),
        node("cordoned", cordoned=True),
        node("other-pool", labels={"pool": "h100"}),
        node("tainted", taints=tainted),
    )

    def nodes(**asked: Any) -> int:
        room = found.free_capacity_for(waits(**asked))
        assert room is not None
        return room.nodes

    assert nodes(selector=POOL) == 1
    assert nodes() == 2
    assert nodes(selector=POOL, tolerations=[{"key": "gpu", "operator": "Exists"}]) == 2
    assert nodes(selector=POOL, tolerations=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]) == 2
    assert nodes(selector=POOL, tolerations=[{"key": "gpu", "value": "no"}]) == 1
    assert nodes(selector=POOL, tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]) == 1
    assert nodes(selector=POOL, tolerations=[{"operator": "Exists"}]) == 2


def test_free_capacity_is_unknown_without_nodes() -> None:
    assert NodeCache().free_capacity_for(waits()) is None
    assert cluster(node(ready="False")).free_capacity_for(waits()) == FreeCapacity(0, 0, 0, 0, 0)


def test_heartbeat_changes_no_job_and_lost_node_changes_its_jobs() -> None:
    found = cluster(node(), node("node-2"))
    found.upsert_pod(pod(node="node-1", state=running()), KEY)
    found.upsert_pod(pod("other", node="node-2", state=running()), JobKey(NAMESPACE, "other"))
    assert found.upsert_node(node(annotations={"heartbeat": "now"})) == set()
    assert found.upsert_node(node(ready="Unknown")) == {KEY}
    assert found.of([pod(node="node-1")])["node-1"].status.conditions[0].status == "Unknown"
    assert found.delete_node(node()) == {KEY}
    assert found.of([pod(node="node-1"), pod("w", node=None)]) == {}
    assert found.replace_nodes([node()]) == {KEY, JobKey(NAMESPACE, "other")}


def test_invalid_quantity_counts_as_zero() -> None:
    found = cluster(node(allocatable={"cpu": "many"}), node("node-2"), pods=(holds("a", "node-2"),))
    found.upsert_pod(pod("b", node="node-2", state=running(), requests={"cpu": "1" * 40}), None)
    room = found.free_capacity_for(waits())
    assert room is not None
    assert (room.nodes, room.cpu) == (2, 6000)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["put", "end", "drop", "move"])), max_size=60))
def test_free_capacity_is_independent_of_event_order(history: list[tuple[int, str]]) -> None:
    found, alive = cluster(node(), node("node-2")), dict[str, Pod]()
    for number, what in history:
        name = f"p{number}"
        item = holds(name, "node-2" if what == "move" else "node-1", gpu=number % 2)
        if what == "drop":
            found.delete_pod(item.metadata.uid)
        else:
            found.upsert_pod(holds(name, state=ended()) if what == "end" else item, None)
        alive.pop(name, None)
        if what in ("put", "move"):
            alive[name] = item
        assert found.free_capacity_for(waits()) == cluster(
            node(), node("node-2"), pods=tuple(alive.values())
        ).free_capacity_for(waits())


POOLS = policy(
    ("memory: 64Gi}", "memory: 64Gi, max_nodes: 3}"),
    (
        'cpu: "48", memory: 192Gi, gpu: 4, gpu_type: a10g}\n',
        """cpu: "8", memory: 32Gi, gpu: 4, gpu_type: a10g, max_nodes: 2, node_selector: {pool: a10g},
    tolerations: [{key: nvidia.com/gpu, operator: Exists}]}
  a10g-spot: {instance_type: g5.12xlarge, hourly_usd: "2.1", cpu: "8", memory: 32Gi, gpu: 4, gpu_type: a10g,
    spot: true, node_selector: {pool: a10g, capacity: spot}}
""",
    ),
    ("gpu_type: h100}", "gpu_type: h100, node_selector: {pool: h100}}"),
).pools


def pools(*nodes: Node, pods: tuple[Pod, ...] = ()) -> dict[str, PoolNodes]:
    found = NodeCache(POOLS)
    found.replace_nodes(nodes)
    for item in pods:
        found.upsert_pod(item, None)
    return found.pools()


def test_node_belongs_to_the_pool_with_the_longest_matching_selector() -> None:
    gpu_taint = [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
    passing = [
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
        {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"},
        {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"},
    ]
    found = pools(
        node("on-demand", taints=gpu_taint),
        node("leaving", ready="Unknown", taints=passing),
        node("spot", labels={"pool": "a10g", "capacity": "spot"}),
        node("plain", labels={}),
        node(
            "control-plane",
            labels={},
            taints=[{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
        ),
        node("preferred", labels={}, taints=[{"key": "anything", "effect": "PreferNoSchedule"}]),
    )
    assert {name: (each.ready, each.not_ready) for name, each in found.items()} == {
        "cpu": (2, 0),
        "a10g": (1, 1),
        "a10g-spot": (1, 0),
        "h100": (0, 0),
    }


def test_pool_sums_allocatable_and_requested_of_ready_nodes() -> None:
    found = pools(
        node(),
        node("node-2"),
        node("node-3", ready="Unknown"),
        pods=(holds("a", gpu=3), holds("b", "node-2"), holds("c", "node-3", gpu=1)),
    )["a10g"]
    assert (found.allocatable.gpu, found.allocatable.cpu, found.allocatable.memory) == (8, 16_000, 64 * GIB)
    assert (found.requested.gpu, found.requested.cpu, found.requested.memory) == (3, 4000, 16 * GIB)
    assert (found.ready, found.not_ready, found.total, found.without_gpu_pods) == (2, 1, 3, 1)


def test_ready_node_without_allocatable_gpus_is_counted_apart_from_idle_ones() -> None:
    """The device plugin has registered none. A node that is not ready, or of a pool without GPUs, does not count."""
    found = pools(
        node(),
        node("node-2", allocatable={"nvidia.com/gpu": "0"}),
        node("node-3", allocatable={"nvidia.com/gpu": "0"}, ready="False"),
        node("node-4", allocatable={"nvidia.com/gpu": "0"}, labels={"pool": "cpu"}),
    )
    assert (found["a10g"].without_gpus, found["a10g"].without_gpu_pods) == (1, 1)
    assert found["cpu"].without_gpus == 0


def test_free_gpus_without_their_share_of_cpu_or_memory_are_stranded() -> None:
    def stranded(*pods: Pod, **more: Any) -> int:
        return pools(node(**more), pods=pods)["a10g"].stranded_gpus

    def takes(gpu: int, cpu: str, memory: str) -> Pod:
        return pod("p", state=running(), requests={"cpu": cpu, "memory": memory, "nvidia.com/gpu": str(gpu)})

    assert stranded(takes(1, "2", "8Gi")) == 0
    assert stranded(takes(1, "8", "8Gi")) == 3
    assert stranded(takes(1, "2", "17Gi")) == 2
    assert stranded(takes(4, "8", "32Gi")) == 0
    assert stranded(takes(1, "8", "8Gi"), cordoned=True) == 0


def test_nodes_smaller_than_the_policy_are_counted() -> None:
    found = pools(
        node("right"),
        node("few-cpus", allocatable={"cpu": "2"}),
        node("no-gpus", allocatable={"nvidia.com/gpu": "0"}),
        node("starting", ready="False", allocatable={"cpu": "1"}),
    )
    assert found["a10g"].undersized == 2
    assert found["cpu"].undersized == 0


def test_log_names_the_pool_whose_nodes_are_smaller_than_in_the_policy() -> None:
    with capture_logs() as logged:
        pools(node("right"), node("few-cpus", allocatable={"cpu": "2"}), node("little", allocatable={"memory": "8Gi"}))
    assert logged == [
        {
            "event": "nodes smaller than in the policy",
            "log_level": "warning",
            "pool": "a10g",
            "nodes": 2,
            "least": {"gpu": 4, "cpu": "2", "memory": "8Gi"},
            "policy": {"gpu": 4, "cpu": "8", "memory": "32Gi"},
        }
    ]


def test_nodes_with_faulty_gpus_are_counted_ready_or_not() -> None:
    def faulty(status: str, reason: str = "NvidiaXID79Error") -> list[dict[str, str]]:
        return [{"type": "AcceleratedHardwareReady", "status": status, "reason": reason}]

    assert pools(node(conditions=faulty("False")))["a10g"].faulty_gpu_nodes == 1
    found = pools(
        node("healthy", conditions=faulty("True")),
        node("unmeasured", conditions=faulty("False", "DCGMError")),
        node("faulty", conditions=faulty("False")),
        node("away", ready="Unknown", conditions=faulty("False")),
    )
    assert found["a10g"].faulty_gpu_nodes == 2


def test_schedulable_nodes_of_a_gpu_pool_without_registered_gpus_are_counted() -> None:
    found = NodeCache(POOLS)
    away: dict[str, Any] = {"allocatable": {"nvidia.com/gpu": "0"}}
    found.replace_nodes(
        [node("right"), node("away", **away), node("plain", labels={}, **away), node("down", ready="False", **away)]
    )
    room = found.free_capacity_for(waits())
    assert room is not None
    assert (room.nodes, room.without_gpus) == (3, 1)
    found.upsert_node(node("away"))
    room = found.free_capacity_for(waits())
    assert room is not None
    assert room.without_gpus == 0


def test_pool_size_follows_nodes_and_labels() -> None:
    found = NodeCache(POOLS)
    assert found.pool_size("a10g") is None  # No node is known, so neither is the size.
    found.replace_nodes([node(), node("node-2")])
    assert found.pool_size("a10g") == PoolSize("a10g", 2, 2)
    assert found.pool_size("gone-from-the-policy") is None
    found.upsert_node(node("node-2", labels={"pool": "h100"}))
    assert found.pool_size("a10g") == PoolSize("a10g", 1, 2)
    assert found.pool_size("h100") == PoolSize("h100", 1, None)
    found.delete_node(node())
    assert found.pool_size("a10g") == PoolSize("a10g", 0, 2)
