"""A real, single-node Kubernetes on this machine, from source, for Runway's demo and tests.

`python -m localcluster up | down | status`, or from a test:

    cluster = LocalCluster.default()
    cluster.component("kube-apiserver").freeze()   # SIGSTOP; .thaw(), .kill(), .start(), .wait_healthy()

It needs root, Linux, Go and Debian's packages (installed when missing), and no container registry, Docker or systemd.
Only Python's standard library is used, so that it runs before any virtual environment exists.

Read in this order: `addresses` and `paths` (where everything is), `cluster` (what up and down do), `control_plane` and
`node` (each component's flags and why), `cleanup` (how traces of an earlier run are found and removed).

The one machine it was tried on has cgroup v1 and Debian 12's containerd 1.6. cgroup v2 is detected and configured for,
but was not tried.
"""

from localcluster.cluster import LocalCluster
from localcluster.errors import LocalClusterError

__all__ = ["LocalCluster", "LocalClusterError"]
