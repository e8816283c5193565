"""Another Kubernetes on this machine: told apart from ours, and left alone.

Two things cannot be given a place of our own: kube-proxy's chains have fixed names, and so does the kubelet's
device-plugin directory, which a kubelet empties when it starts. So beside a running cluster, this one does not start.
"""

from localcluster import api, network, paths, processes
from localcluster.errors import LocalClusterError


def refuse() -> None:
    """Raise LocalClusterError when another Kubernetes node runs on this machine."""
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
    """Whether the device-plugin socket is answered while no kubelet of ours runs."""
    if any(found.component == "kubelet" for found in processes.marked()):
        return False
    return api.why_not_listening(str(paths.DEVICE_PLUGIN_DIR / "kubelet.sock")) is None
