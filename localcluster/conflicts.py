"""Detect another Kubernetes node on this machine, which would conflict.

kube-proxy's chains and the kubelet's device-plugin directory have fixed names, and a kubelet empties that directory
when it starts. So this cluster does not start beside another one.
"""

from localcluster import api, network, paths, processes
from localcluster.errors import LocalClusterError


def require_no_other_node() -> None:
    """Raise LocalClusterError if another Kubernetes node runs on this machine."""
    if network.other_kube_proxy():
        other = "iptables holds another kube-proxy's rules"
    elif another_kubelet_listens():
        other = f"another kubelet listens in {paths.DEVICE_PLUGIN_DIR}"
    else:
        return
    raise LocalClusterError(
        f"{other}: a second Kubernetes on this machine would break it. Set KUBECONFIG to use that cluster, or stop it."
    )


def another_kubelet_listens() -> bool:
    """Whether a process listens on the device-plugin socket while our kubelet does not run."""
    if any(found.component == "kubelet" for found in processes.marked()):
        return False
    return api.why_not_listening(str(paths.DEVICE_PLUGIN_DIR / "kubelet.sock")) is None
