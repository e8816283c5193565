"""A real single-node Kubernetes on this machine, for Runway's demo and tests.

`python -m localcluster up | down | status | build | isolated`, or from a test:

    cluster = LocalCluster.default()
    cluster.component("kube-apiserver").freeze()   # SIGSTOP; .thaw(), .kill(), .start(), .wait_healthy()

It builds Kubernetes from source. It needs root, Linux, Go and Debian packages (it installs missing ones), and no
container registry, Docker or systemd. It uses only Python's standard library, so it needs no virtual environment.

Read in this order:

- `addresses` and `paths`: names and places
- `cluster`: the steps of up and down
- `preparation`: what a first up installs and builds side by side
- `control_plane` and `node`: the flags of each component, with reasons
- `cleanup`: finding and removing traces of an earlier run

Tested only on cgroup v1 with Debian 12's containerd 1.6. The code detects and configures cgroup v2, untested.
"""

from localcluster.cluster import LocalCluster
from localcluster.errors import LocalClusterError

__all__ = ["LocalCluster", "LocalClusterError"]
