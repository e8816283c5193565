"""Names, networks and ports of the local cluster.

They are fixed, so any checkout recognises the traces of an earlier run. They are unusual, so they do not collide with
another Kubernetes, Docker or service of this machine. Every server listens on loopback or on the bridge.
"""

import os

# Of a second cluster on the machine, see isolated.py.
SUFFIX_VARIABLE = "RUNWAY_CLUSTER_SUFFIX"
SUFFIX = os.environ.get(SUFFIX_VARIABLE, "")
CLUSTER = f"runway-localcluster{SUFFIX}"

NODE_NAME = "runway-local"

# Linux limits interface names to 15 characters.
BRIDGE = "rwbr0"
POD_SUBNET = "10.231.0.0/20"
POD_SUBNET_PREFIX = 20
# The bridge's own address: the pods' gateway, the node's InternalIP, and the API server as pods see it.
BRIDGE_ADDRESS = "10.231.0.1"
SERVICE_SUBNET = "10.231.16.0/20"
# The first address of the service subnet always belongs to the service kubernetes.default.
# https://kubernetes.io/docs/reference/networking/virtual-ips/#ip-address-objects
KUBERNETES_SERVICE_ADDRESS = "10.231.16.1"

LOOPBACK = "127.0.0.1"

API_SERVER_PORT = 16443
ETCD_CLIENT_PORT = 16379
ETCD_PEER_PORT = 16380
ETCD_METRICS_PORT = 16381
CONTROLLER_MANAGER_PORT = 16257
SCHEDULER_PORT = 16259
KUBELET_PORT = 16250
KUBELET_HEALTH_PORT = 16248
KUBE_PROXY_HEALTH_PORT = 16256
KUBE_PROXY_METRICS_PORT = 16249
PROMETHEUS_PORT = 16290
# Not a port of the cluster: Runway listens here under `make serve`.
RUNWAY_PORT = 8000

API_SERVER_URL = f"https://{LOOPBACK}:{API_SERVER_PORT}"
# The Makefile names it too, as RUNWAY_PROMETHEUS_URL.
PROMETHEUS_URL = f"http://{LOOPBACK}:{PROMETHEUS_PORT}"

CNI_NETWORK = CLUSTER
CGROUP = CLUSTER

GPU_RESOURCE = "nvidia.com/gpu"
# The quota of four Runways with config/policy.local.yaml: the cluster tests run several concurrently.
GPU_COUNT = 24
# The GPUs are simulated (see components/gpu-device-plugin), and the last label says so.
NODE_LABELS = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.product": "NVIDIA-A10G",
    "runway.local/gpu-type": "a10g",
    "runway.local/simulated-gpus": "true",
}
