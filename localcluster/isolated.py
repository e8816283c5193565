"""Run a command in a part of this machine where a second local cluster does not meet the first.

The part has its own network, mounts and processes, and it ends with the command. Files, CPUs, memory and cgroups are
those of the machine, so the second cluster's directories and cgroup have names with a suffix.
https://man7.org/linux/man-pages/man7/namespaces.7.html
"""

import os
import subprocess
from collections.abc import Sequence

from localcluster.addresses import SUFFIX_VARIABLE

SECOND_SUFFIX = "-isolated"
# The first process of the part: bash, since it reaps orphans.
SCRIPT = """
ip link set lo up
# /sys lists the interfaces of the network in which it was mounted.
groups=$(mktemp --directory)
mount --move /sys/fs/cgroup "$groups"
umount --lazy /sys
mount -t sysfs sysfs /sys
mount --move "$groups" /sys/fs/cgroup
rmdir "$groups"
# The path of the kubelet's plugins is a constant.
mkdir --parents /var/lib/kubelet
mount -t tmpfs tmpfs /var/lib/kubelet
"$@"
"""


def run_isolated(command: Sequence[str]) -> int:
    """Run a command as root and return its exit code. All its processes end with it, or with the caller."""
    # unshare(1) ignores SIGTERM, so it would outlive a caller that is stopped.
    unshare = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork"]
    environment = os.environ | {SUFFIX_VARIABLE: SECOND_SUFFIX}
    return subprocess.run(
        [*unshare, "--kill-child", "bash", "-euc", SCRIPT, "bash", *command], env=environment, check=False
    ).returncode
