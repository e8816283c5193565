"""Nodes and warning events of a fake cluster."""

from __future__ import annotations

from typing import Any

from tests.support.fake_cluster import NOW, FakeKubernetes, Json


def put_node(kubernetes: FakeKubernetes, name: str = "node-1", *, ready: bool = True, **more: Any) -> None:
    """Add or change a node. `more` is `labels`, `spec`, `allocatable` or `conditions`."""
    allocatable = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "8"}
    status = {
        "conditions": [
            {"type": "Ready", "status": "True" if ready else "Unknown", "lastTransitionTime": NOW},
            *more.get("conditions", []),
        ],
        "allocatable": allocatable | more.get("allocatable", {}),
    }
    metadata = {"name": name, "uid": f"uid-{name}", "labels": more.get("labels", {})}
    known = ("", name) in kubernetes.objects["nodes"]
    node = {"metadata": metadata, "spec": more.get("spec", {}), "status": status}
    kubernetes.put("nodes", node, "MODIFIED" if known else "ADDED")


def warn(
    kubernetes: FakeKubernetes, kind: str, about: Json, reason: str, message: str, *, type_: str = "Warning"
) -> None:
    """Add an event about an object."""
    meta = about["metadata"]
    event = {
        "metadata": {"name": f"{meta['name']}.{kubernetes.version}", "namespace": meta["namespace"]},
        "involvedObject": {"kind": kind, **{name: meta[name] for name in ("namespace", "name", "uid")}},
        "reason": reason,
        "message": message,
        "type": type_,
        "lastTimestamp": kubernetes.now(),
    }
    kubernetes.add("events", event)
