"""containerd, kubelet, kube-proxy, api-forwarder and GPU device plugin.

Each setting differs from the default and has its reason.
"""

import json
from typing import Any

from localcluster import addresses, api, cgroups, paths, pki
from localcluster.build import Build
from localcluster.component import ComponentSpec
from localcluster.images import SANDBOX_IMAGE

CONTAINERD_CONFIG = paths.CONFIG_DIR / "containerd.toml"
CNI_CONFIG_DIR = paths.CONFIG_DIR / "cni"
KUBELET_CONFIG = paths.CONFIG_DIR / "kubelet.json"
KUBELET_KUBECONFIG = paths.CONFIG_DIR / "kubelet.kubeconfig"
KUBE_PROXY_CONFIG = paths.CONFIG_DIR / "kube-proxy.json"
KUBE_PROXY_KUBECONFIG = paths.CONFIG_DIR / "kube-proxy.kubeconfig"


def containerd() -> ComponentSpec:
    return ComponentSpec(
        name="containerd",
        argv=("containerd", f"--config={CONTAINERD_CONFIG}"),
        files={
            CONTAINERD_CONFIG: _containerd_config(),
            CNI_CONFIG_DIR / "10-runway-localcluster.conflist": json.dumps(_cni_config(), indent=2) + "\n",
        },
        why_not_healthy=lambda: api.why_not_listening(str(paths.CONTAINERD_SOCKET)),
        timeout=30,
        # The pods inherit it.
        niceness=0,
    )


def api_forwarder() -> ComponentSpec:
    """Return the forwarder from the bridge's address, which pods use, to the API server on loopback."""
    port = addresses.API_SERVER_PORT
    return ComponentSpec(
        name="api-forwarder",
        argv=(
            "socat",
            f"TCP4-LISTEN:{port},bind={addresses.BRIDGE_ADDRESS},fork,reuseaddr,backlog=128,max-children=256",
            f"TCP4:{addresses.LOOPBACK}:{port}",
        ),
        why_not_healthy=lambda: api.why_not_listening((addresses.BRIDGE_ADDRESS, port)),
        timeout=10,
    )


def kubelet(build: Build) -> ComponentSpec:
    labels = ",".join(f"{key}={value}" for key, value in addresses.NODE_LABELS.items())
    return ComponentSpec(
        name="kubelet",
        argv=(
            str(build.binary("kubelet")),
            f"--config={KUBELET_CONFIG}",
            f"--kubeconfig={KUBELET_KUBECONFIG}",
            f"--root-dir={paths.KUBELET_DIR}",
            f"--cert-dir={paths.KUBELET_DIR / 'pki'}",
            f"--hostname-override={addresses.NODE_NAME}",
            f"--node-ip={addresses.BRIDGE_ADDRESS}",
            f"--node-labels={labels}",
            # Deprecated but required: without it cAdvisor finds no containers, and CPU and memory series are 0.
            f"--containerd={paths.CONTAINERD_SOCKET}",
            # The default of 10 s misses most of a demo job's run time.
            "--housekeeping-interval=2s",
        ),
        files={
            KUBELET_CONFIG: json.dumps(_kubelet_config(), indent=2) + "\n",
            KUBELET_KUBECONFIG: pki.kubeconfig("node-user"),
        },
        why_not_healthy=lambda: api.why_not_healthy(
            f"http://{addresses.LOOPBACK}:{addresses.KUBELET_HEALTH_PORT}/healthz"
        ),
    )


def kube_proxy(build: Build) -> ComponentSpec:
    return ComponentSpec(
        name="kube-proxy",
        argv=(str(build.binary("kube-proxy")), f"--config={KUBE_PROXY_CONFIG}"),
        files={
            KUBE_PROXY_CONFIG: json.dumps(_kube_proxy_config(), indent=2) + "\n",
            KUBE_PROXY_KUBECONFIG: pki.kubeconfig("proxy-user"),
        },
        why_not_healthy=lambda: api.why_not_healthy(
            f"http://{addresses.LOOPBACK}:{addresses.KUBE_PROXY_HEALTH_PORT}/healthz"
        ),
    )


def gpu_device_plugin(build: Build) -> ComponentSpec:
    """Return the plugin for SIMULATED GPUs (components/gpu-device-plugin); the node's status shows them."""
    return ComponentSpec(
        name="gpu-device-plugin",
        argv=(
            str(build.binary("gpu-device-plugin")),
            f"-count={addresses.GPU_COUNT}",
            f"-directory={paths.DEVICE_PLUGIN_DIR}",
        ),
        why_not_healthy=lambda: None,
    )


def _containerd_config() -> str:
    # Own directories and socket, to disturb no other containerd.
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE, lowering oom_score_adj fails, and every sandbox would exit with
    #   "can't get final child's PID from pipe: EOF".
    # netns_mounts_under_state_dir: network namespaces below our directory, not in the machine's /run/netns.
    # SystemdCgroup = false: no systemd required; matches the kubelet's cgroupDriver.
    # https://github.com/containerd/containerd/blob/release/1.6/docs/cri/config.md
    return f"""version = 2
root = "{paths.CONTAINERD_DIR}"
state = "{paths.CONTAINERD_RUN_DIR}"
oom_score = 0

[grpc]
  address = "{paths.CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{paths.CONTAINERD_DIR}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "{addresses.LOOPBACK}"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{paths.CNI_PLUGIN_DIR}"
    conf_dir = "{CNI_CONFIG_DIR}"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{paths.RUNC_DIR}"
"""


def _cni_config() -> dict[str, Any]:
    """Return the network of the pods: they reach each other, the node and the API server, and nothing outside.

    The cluster pulls no images and enforces no NetworkPolicy, so no egress is the safer default.
    https://www.cni.dev/plugins/current/main/bridge/
    """
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": addresses.POD_SUBNET, "gateway": addresses.BRIDGE_ADDRESS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        # The default, /var/lib/cni/networks, is shared with other networks and survives a reboot.
        "dataDir": str(paths.CNI_DIR),
    }
    bridge = {
        "type": "bridge",
        "bridge": addresses.BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        # Lets a pod reach itself through a Service.
        "hairpinMode": True,
        "ipam": ipam,
    }
    return {"cniVersion": "1.0.0", "name": addresses.CNI_NETWORK, "plugins": [bridge]}


def _kubelet_config() -> dict[str, Any]:
    """https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.BRIDGE_ADDRESS,
        "port": addresses.KUBELET_PORT,
        "healthzBindAddress": addresses.LOOPBACK,
        "healthzPort": addresses.KUBELET_HEALTH_PORT,
        "tlsCertFile": str(pki.certificate("kubelet")),
        "tlsPrivateKeyFile": str(pki.key("kubelet")),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.CA)},
        },
        "authorization": {"mode": "Webhook"},
        # A registry that does not answer must not delay the pulls of other jobs.
        "serializeImagePulls": False,
        "containerRuntimeEndpoint": f"unix://{paths.CONTAINERD_SOCKET}",
        # Our own parent, so that its processes are known to be pods of this cluster.
        "cgroupRoot": f"/{addresses.CGROUP}",
        "cgroupDriver": "cgroupfs",
        # Since 1.35 the kubelet fails on cgroup v1 by default.
        "failCgroupV1": cgroups.is_v2(),
        "failSwapOn": False,
        # The default is a minute, and an eviction for a full volume waits for it.
        "volumeStatsAggPeriod": "10s",
        # The kubelet renews it four times in this period. https://kubernetes.io/docs/reference/node/node-status/#heartbeats
        "nodeLeaseDurationSeconds": 8,
        # The default, -999, needs CAP_SYS_RESOURCE, which a container may lack.
        "oomScoreAdj": 0,
        # A developer's disk is often 90 % full. Image garbage collection stays off: no image can be pulled again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "podLogsDir": str(paths.POD_LOG_DIR),
        "volumePluginDir": str(paths.KUBELET_DIR / "volume-plugins"),
        # The kubelet's chains would remain after `down`; kube-proxy creates all required ones.
        "makeIPTablesUtilChains": False,
    }


def _kube_proxy_config() -> dict[str, Any]:
    """https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/"""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": addresses.BRIDGE_ADDRESS,
        "healthzBindAddress": f"{addresses.LOOPBACK}:{addresses.KUBE_PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"{addresses.LOOPBACK}:{addresses.KUBE_PROXY_METRICS_PORT}",
        "clientConnection": {"kubeconfig": str(KUBE_PROXY_KUBECONFIG)},
        "hostnameOverride": addresses.NODE_NAME,
        "mode": "iptables",
        "clusterCIDR": addresses.POD_SUBNET,
        # Zero keeps the machine's connection tracking settings; changing them is often not permitted.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {
            # Without br_netfilter, pods of one bridge answer directly and bypass the address translation of a Service.
            # Masquerading routes every response back through it.
            "masqueradeAll": True,
            # True would set route_localnet, which lets pods reach servers on the node's loopback.
            "localhostNodePorts": False,
        },
    }
