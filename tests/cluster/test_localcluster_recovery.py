"""The local cluster after removal, after a kill, and with a second checkout.

These tests run last, because every job of the cluster ends. The first removes it, so that no pod of an earlier test
starts again in the others. The last one leaves the cluster up and empty.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from localcluster import LocalCluster
from testbed.waiting import GUARD_SECONDS, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.recovery]

SUFFIX = os.environ.get("RUNWAY_CLUSTER_SUFFIX", "")
NAME = f"runway-localcluster{SUFFIX}"


@pytest.fixture
def cluster() -> LocalCluster:
    local = LocalCluster.default()
    local.up()
    return local


def test_down_removes_everything_and_up_starts_again(cluster: LocalCluster) -> None:
    start_sleeping_pod(cluster)
    sockets = shim_sockets()
    interfaces = [link for link in Path("/sys/class/net").iterdir() if (link / "master").resolve().name == "rwbr0"]
    assert traces() != []
    assert sockets != []
    assert interfaces != []
    cluster.down()

    assert traces() == []
    assert sleeping_pods() == []
    assert [path for path in [*sockets, *interfaces, cluster.kubeconfig] if path.exists()] == []
    cluster.down()
    cluster.up()
    assert cluster.problems() == []


def test_up_recovers_after_all_processes_were_killed(cluster: LocalCluster) -> None:
    cluster.kubectl("create", "configmap", "survivor", "-n", "default")
    sleeper = start_sleeping_pod(cluster)
    kill_everything()
    cluster.up()

    assert cluster.problems() == []
    # etcd's data remains, so Runway finds its jobs. The pod has failed, as after a reboot, and does not restart.
    cluster.kubectl("get", "configmap", "survivor", "-n", "default")
    cluster.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Failed", f"pod/{sleeper}", f"--timeout={GUARD_SECONDS:.0f}s"
    )
    assert sleeping_pods() == []


def test_second_checkout_is_refused_until_first_cluster_is_gone(cluster: LocalCluster, tmp_path: Path) -> None:
    shutil.copytree(Path(cluster.checkout, "localcluster"), tmp_path / "localcluster")
    cluster.kubectl("create", "namespace", "of-the-first-checkout")
    start_sleeping_pod(cluster)

    refused = localcluster(tmp_path, "up")
    assert refused.returncode == 1
    assert str(cluster.checkout) in refused.stderr
    assert "localcluster down" in refused.stderr
    assert cluster.problems() == []

    kill_everything()
    taken_over = localcluster(tmp_path, "up")
    assert taken_over.returncode == 0, taken_over.stderr
    assert sleeping_pods() == []
    other = LocalCluster(tmp_path)
    assert "of-the-first-checkout" not in other.kubectl("get", "namespaces", "-o", "name")

    start_sleeping_pod(other)
    kill_everything()
    shutil.rmtree(tmp_path / "localcluster")
    cluster.up()
    assert cluster.problems() == []
    assert sleeping_pods() == []


def traces() -> list[str]:
    """Return everything of a local cluster on this machine, found without the code under test."""
    found = [f"process {pid}" for pid in marked_pids()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{NAME}/" in line]
    found += [str(path) for path in Path("/sys/class/net").glob("rwbr0")]
    found += [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name == NAME]
    for program in ("iptables-save", "ip6tables-save"):
        rules = subprocess.run([program], capture_output=True, text=True, timeout=GUARD_SECONDS, check=True).stdout
        found += [line for line in rules.splitlines() if "KUBE-" in line]
    found += [str(path) for path in Path("/var/lib/cni/results").glob("*") if f"{NAME}/" in read(path)]
    found += [str(path) for path in Path("/var/log/containers").glob("*") if f"{NAME}/" in target(path)]
    places = [f"/run/{NAME}", f"/var/lib/{NAME}"]
    places += [f"/var/lib/kubelet/device-plugins/{name}" for name in ("kubelet.sock", "runway-simulated-gpu.sock")]
    return found + [place for place in places if Path(place).exists()]


def read(path: Path) -> str:
    """Return the content of a file; nothing if the other cluster has removed it meanwhile."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def target(path: Path) -> str:
    """Return the target of a link; nothing if the other cluster has removed the link meanwhile."""
    try:
        return str(path.readlink()) if path.is_symlink() else ""
    except FileNotFoundError:
        return ""


def shim_sockets() -> list[Path]:
    """Return the sockets of containerd's shims, which are outside the cluster's directories."""
    bundles = Path(f"/run/{NAME}/containerd/io.containerd.runtime.v2.task/k8s.io")
    return [Path(file.read_text().removeprefix("unix://")) for file in bundles.glob("*/address")]


def marked_pids() -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"\0RUNWAY_LOCALCLUSTER{SUFFIX}=".encode() in b"\0" + (entry / "environ").read_bytes():
                    pids.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                # The process has exited, or even root may not read it; neither is a process of the cluster.
                continue
    return pids


def kill_everything() -> None:
    """Send SIGKILL to all components and shims, as an out-of-memory machine or a stopped CI runner does."""
    pids = marked_pids()
    assert pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    # A process in uninterruptible disk wait exits only after the wait.
    wait_for(lambda: True if not set(pids) & set(marked_pids()) else None, "killed processes have exited")


def sleeping_pods() -> list[str]:
    """Return the running processes of start_sleeping_pod."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if command.read_bytes() == b"sleep\x004321\x00":
                found.append(command.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def start_sleeping_pod(cluster: LocalCluster) -> str:
    """Start a pod that sleeps, and return its name."""
    name = f"sleeper-{uuid.uuid4().hex[:8]}"
    container = {"name": "main", "image": "runway.local/busybox:1", "command": ["sleep", "4321"]}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("apply", "-f-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={GUARD_SECONDS:.0f}s")
    assert len(sleeping_pods()) == 1
    return name


def localcluster(checkout: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localcluster", command],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
