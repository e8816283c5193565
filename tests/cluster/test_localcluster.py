"""The running local cluster: node, idempotent up, addresses, restart, networking."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from localcluster import LocalCluster, addresses
from localcluster.isolated import run_isolated
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.support.held_jobs import HeldJob, unique_duration

pytestmark = pytest.mark.cluster

WAIT = f"--timeout={GUARD_SECONDS:.0f}s"


@pytest.fixture
def cluster() -> LocalCluster:
    local = LocalCluster.default()
    wait_until_healthy(local)
    return local


def wait_until_healthy(cluster: LocalCluster) -> None:
    wait_for(lambda: cluster.problems() == [] or None, "no problems")


@pytest.fixture
def namespace(cluster: LocalCluster) -> Iterator[str]:
    name = f"localcluster-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.kubectl("apply", "-f-", stdin=json.dumps(manifest))
    # Kubernetes creates the default service account a moment after the namespace.
    cluster.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default", WAIT)
    yield name
    cluster.kubectl("delete", "namespace", name)


def create_pod(cluster: LocalCluster, namespace: str, script: str) -> None:
    container = {
        "name": "main",
        "image": "runway.local/busybox:1",
        "command": ["sh", "-c", script],
        "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}
    cluster.kubectl("-n", namespace, "apply", "-f-", stdin=json.dumps(pod))


def wait_for_pod(cluster: LocalCluster, namespace: str, condition: str) -> None:
    cluster.kubectl("-n", namespace, "wait", f"--for={condition}", "pod/client", WAIT)


def test_node_is_ready_and_labels_gpus_as_simulated(cluster: LocalCluster) -> None:
    node = json.loads(cluster.kubectl("get", "node", addresses.NODE_NAME, "-o", "json"))

    assert node["status"]["allocatable"]["nvidia.com/gpu"] == str(addresses.GPU_COUNT)
    labels = node["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-A10G"
    assert labels["runway.local/gpu-type"] == "a10g"
    assert labels["runway.local/simulated-gpus"] == "true"


@pytest.mark.alone
def test_up_is_idempotent(cluster: LocalCluster) -> None:
    before = {component.name: component.pid for component in cluster.components()}

    cluster.up()

    assert {component.name: component.pid for component in cluster.components()} == before


def test_every_server_listens_on_loopback_or_the_bridge(cluster: LocalCluster) -> None:
    pids = [component.pid for component in cluster.components() if component.pid]
    listening = {address for pid in pids for address in listening_addresses(pid)}

    assert ("127.0.0.1", addresses.API_SERVER_PORT) in listening
    assert ("10.231.0.1", addresses.KUBELET_PORT) in listening
    assert {host for host, _ in listening} == {"127.0.0.1", "10.231.0.1"}


def test_isolated_command_meets_no_other_cluster_and_leaves_no_process(
    cluster: LocalCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "rwbr0" in [link.name for link in Path("/sys/class/net").iterdir()]
    duration = unique_duration()
    script = f"ls --almost-all /sys/class/net /var/lib/kubelet; cat /proc/[0-9]*/comm | sort; sleep {duration} & exit 7"
    assert run_isolated(["bash", "-c", script]) == 7
    shown = capfd.readouterr().out.split()
    assert shown[:3] == ["/sys/class/net:", "lo", "/var/lib/kubelet:"]
    assert {"bash"} <= set(shown[3:]) <= {"bash", "cat", "sort"}
    assert not HeldJob(script, f"sleep\0{duration}\0").runs()
    wait_until_healthy(cluster)


def test_isolated_command_ends_with_its_caller() -> None:
    duration = unique_duration()
    sleeping = HeldJob(f"sleep {duration}", f"sleep\0{duration}\0")
    caller = subprocess.Popen([sys.executable, "-m", "localcluster", "isolated", "sleep", duration])
    try:
        wait_for(lambda: sleeping.runs() or None, "it runs")
    finally:
        caller.terminate()
        caller.wait(GUARD_SECONDS)
    wait_for(lambda: not sleeping.runs() or None, "it has ended")


@pytest.mark.alone
def test_killed_scheduler_can_be_started_again(cluster: LocalCluster) -> None:
    scheduler = cluster.component("kube-scheduler")
    killed = scheduler.pid
    scheduler.kill()

    assert scheduler.pid is None
    assert cluster.problems() == ["kube-scheduler: not running"]
    scheduler.start()
    assert scheduler.pid != killed
    assert cluster.problems() == []


def test_restricted_pod_reaches_api_server_service(cluster: LocalCluster, namespace: str) -> None:
    # busybox has no TLS; the API server's response to plain HTTP proves the connection.
    create_pod(cluster, namespace, r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 $KUBERNETES_SERVICE_HOST 443")
    wait_for_pod(cluster, namespace, "jsonpath={.status.phase}=Succeeded")

    assert "HTTP request to an HTTPS server" in cluster.kubectl("-n", namespace, "logs", "client")


def test_running_pod_adds_no_address_to_the_machine(cluster: LocalCluster, namespace: str) -> None:
    """Chromium fails connections with ERR_NETWORK_CHANGED when an address of the machine changes."""
    create_pod(cluster, namespace, "sleep 600")
    wait_for_pod(cluster, namespace, "condition=Ready")

    names = [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith("veth")]
    assert names != []
    assert [line for line in Path("/proc/net/if_inet6").read_text().splitlines() if line.split()[-1] in names] == []


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    """Return the listening TCP sockets of the process from /proc/net (proc_pid_net(5)); IPv6 hosts stay in hex."""
    links, found = [], set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It is closed meanwhile.
            links.append(str(link.readlink()))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                found.add(
                    (".".join(map(str, reversed(bytes.fromhex(host)))) if len(host) == 8 else host, int(port, 16))
                )
    return found
