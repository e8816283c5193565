"""Whether the node can run a job: pure functions of what the API server says."""

from datetime import datetime
from typing import Any

from localcluster import addresses

# Heartbeats have whole seconds, and a process's start time is computed from the boot time, in whole seconds too.
CLOCK_SLACK_SECONDS = 2.0


def why_node_not_ready(node: Any | None, *, kubelet_started_at: float) -> str | None:
    """None when the Node object is Ready with all GPUs, as reported by the kubelet started at that epoch second.

    What an earlier kubelet reported stays in etcd, so an older heartbeat counts for nothing.
    https://kubernetes.io/docs/reference/node/node-status/
    """
    if node is None:
        return f"the API server has no node {addresses.NODE_NAME}"
    conditions = {condition["type"]: condition for condition in node["status"].get("conditions", [])}
    ready = conditions.get("Ready")
    if ready is None:
        return "the kubelet has not reported yet"
    heartbeat = datetime.fromisoformat(ready["lastHeartbeatTime"]).timestamp()
    if heartbeat < kubelet_started_at - CLOCK_SLACK_SECONDS:
        return "the kubelet has not reported since it started"
    if ready["status"] != "True":
        return f"Ready is {ready['status']}: {ready.get('message', '')}"
    if taints := node["spec"].get("taints", []):
        return f"tainted: {', '.join(taint['key'] for taint in taints)}"
    gpus = int(node["status"].get("allocatable", {}).get(addresses.GPU_RESOURCE, "0"))
    if gpus != addresses.GPU_COUNT:
        return f"{gpus} of {addresses.GPU_COUNT} {addresses.GPU_RESOURCE} allocatable"
    return None
