"""Node readiness: a pure function of the Node object."""

from datetime import datetime
from typing import Any

from localcluster import addresses

# Heartbeats and the boot time, which gives a process's start time, have whole seconds.
CLOCK_SLACK_SECONDS = 2.0


def why_node_not_ready(node: Any | None, *, kubelet_started_at: float) -> str | None:
    """Return None if the kubelet started at this epoch second has reported Ready with all GPUs, else the reason.

    Reports of an earlier kubelet stay in etcd, so older heartbeats are ignored.
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
