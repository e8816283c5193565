"""The paths of the local cluster.

One cluster per machine, or per part of it (isolated.py): its paths do not depend on the checkout. STATE_DIR survives a
reboot, RUN_DIR does not. The checkout holds only the kubeconfig and a link to kubectl, the user's cache only what was
built.
"""

import os
from pathlib import Path

from localcluster.addresses import CLUSTER, SUFFIX

STATE_DIR = Path("/var/lib") / CLUSTER
RUN_DIR = Path("/run") / CLUSTER
# Locked during up and down, and never removed: removing a lock file that another process waits for lets two processes
# hold the lock.
LOCK_FILE = Path("/run") / f"{CLUSTER}.lock"

OWNER_FILE = STATE_DIR / "owner.json"
SYSCTL_FILE = STATE_DIR / "sysctl.json"
LOG_DIR = STATE_DIR / "logs"
CONFIG_DIR = STATE_DIR / "config"
PKI_DIR = STATE_DIR / "pki"
IMAGE_DIR = STATE_DIR / "images"
ETCD_DIR = STATE_DIR / "etcd"
CONTAINERD_DIR = STATE_DIR / "containerd"
KUBELET_DIR = STATE_DIR / "kubelet"
POD_LOG_DIR = STATE_DIR / "pod-logs"
PROMETHEUS_DIR = STATE_DIR / "prometheus"
# The tenants' volumes, made by testbed/storage.py.
VOLUME_DIR = STATE_DIR / "volumes"

PROCESS_DIR = RUN_DIR / "processes"
CONTAINERD_RUN_DIR = RUN_DIR / "containerd"
CONTAINERD_SOCKET = RUN_DIR / "containerd.sock"
RUNC_DIR = RUN_DIR / "runc"
CNI_DIR = RUN_DIR / "cni"

CNI_PLUGIN_DIR = Path("/usr/lib/cni")

# Four paths that cannot be configured; cleanup.py removes our files from them.
# The kubelet's plugin directory is a constant of the device-plugin API.
DEVICE_PLUGIN_DIR = Path("/var/lib/kubelet/device-plugins")
# The kubelet's links to the logs under POD_LOG_DIR.
CONTAINER_LOG_LINK_DIR = Path("/var/log/containers")
# Sockets of containerd's shims, named by a hash.
SHIM_SOCKET_DIR = Path("/run/containerd/s")
# libcni's record of each attached pod.
CNI_RESULT_DIR = Path("/var/lib/cni/results")

COMPONENT_SOURCE_DIR = Path(__file__).resolve().parent / "components"


def this_checkout() -> Path:
    """Return the root of the repository of this file."""
    return Path(__file__).resolve().parents[1]


def kubeconfig(checkout: Path) -> Path:
    """Return the path of the administrator's kubeconfig in the checkout that started the cluster."""
    return checkout / ".local" / f"kubeconfig{SUFFIX}"


def kubectl_link(checkout: Path) -> Path:
    """Return the path of a checkout's link to the cluster's kubectl."""
    return checkout / ".local" / "bin" / "kubectl"


def build_cache() -> Path:
    """Return the user's cache of binaries and images, shared by all checkouts (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "runway"
