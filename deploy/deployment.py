"""Deploy Runway in the local cluster, connect to it, and remove it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Self

import httpx2

from deploy import image
from deploy.helm import NAMESPACE, RELEASE, VALUES, Helm, HelmFailed, policy_option
from localcluster.images import ctr
from localcluster.progress import step
from testbed.kubectl import Document, Kubectl, KubectlFailed
from testbed.ports import ReservedPort
from testbed.storage import provide_storage
from testbed.tenants import apply_tenants
from testbed.waiting import TimedOut, wait_for

LEASE = ("runway-writer", "default")
"""Name and namespace, as in values/local.yaml."""
PODS = (
    f"--namespace={NAMESPACE}",
    "--selector=app.kubernetes.io/name=runway,app.kubernetes.io/component=control-plane",
)
"""Not the pod of the policy check, which stays after a failure."""
ROLLOUT_SECONDS = 120
DELETE_SECONDS = 180
CONTAINER_PORT = 8000


class DeployFailed(Exception):
    """The deployment failed; the message has the state of the pods."""


def up(kubernetes: Kubectl, policy: Path) -> None:
    """Build, import and install it, and wait until it is the leader.

    Raises DeployFailed, KubectlFailed, LocalClusterError and TenantsFailed.
    """
    name = image.ensure_imported()
    apply_tenants(kubernetes, policy)
    provide_storage(kubernetes, policy)
    with step("chart installed"):
        create_namespace(kubernetes)
        try:
            Helm(kubernetes.kubeconfig).upgrade(*local_options(name, policy), f"--timeout={ROLLOUT_SECONDS}s")
        except HelmFailed as error:
            raise DeployFailed(f"{error}\n{_describe_pods(kubernetes)}") from error
    with step("leader"):
        _wait_for_lease(kubernetes)
    _remove_other_images(name)


def local_options(image_name: str, policy: Path) -> tuple[str, ...]:
    """Return Helm's options for this image and policy on the local cluster."""
    tag = image_name.rpartition(":")[2]
    return (f"--values={VALUES / 'local.yaml'}", f"--set=image.tag={tag}", policy_option(policy))


def create_namespace(kubernetes: Kubectl) -> None:
    """Create Runway's namespace with Pod Security "restricted". The chart cannot: its release is stored there."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    kubernetes.apply(json.dumps(namespace))


def down(kubernetes: Kubectl) -> None:
    """Remove the release and its namespace if they exist; tenants and their jobs remain."""
    with step("removed"):
        # The process first, while RBAC still lets it release the Lease.
        kubernetes.run(
            *("delete", "deployment/runway", f"--namespace={NAMESPACE}", "--ignore-not-found"),
            *("--cascade=foreground", "--wait", f"--timeout={DELETE_SECONDS}s"),
            timeout=DELETE_SECONDS + 5,
        )
        try:
            Helm(kubernetes.kubeconfig).run("uninstall", RELEASE, "--ignore-not-found", "--wait")
        except HelmFailed as error:
            raise DeployFailed(str(error)) from error
        kubernetes.run(
            *("delete", f"namespace/{NAMESPACE}", "--ignore-not-found", "--wait", f"--timeout={DELETE_SECONDS}s"),
            timeout=DELETE_SECONDS + 5,
        )


def is_deployed(kubernetes: Kubectl) -> bool:
    """Whether the Deployment exists, ready or not."""
    return kubernetes.get("deployment", "runway", NAMESPACE) is not None


def find_pod(kubernetes: Kubectl) -> Document | None:
    """Return the only non-terminating pod, or None."""
    staying = [pod for pod in kubernetes.select("pods", *PODS) if "deletionTimestamp" not in pod["metadata"]]
    return staying[0] if len(staying) == 1 else None


class DeployedRunway:
    """The deployed Runway on a loopback port of this machine. A context manager.

    Like `testbed.server.Server` it can be killed and started, but Kubernetes starts it. It does not use `kubectl
    port-forward`, which needs the API server, because tests stop the API server.
    """

    def __init__(self, kubernetes: Kubectl) -> None:
        self._kubernetes = kubernetes
        self._claim = ReservedPort()
        self._port = self._claim.number
        self._forwarder: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.lease = LEASE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()
        self._claim.release()

    @property
    def pid(self) -> int | None:
        """The process ID of the container's process on this machine; None if it does not run."""
        pod = find_pod(self._kubernetes)
        states = pod["status"].get("containerStatuses", []) if pod else []
        ids = [state["containerID"].removeprefix("containerd://") for state in states if "running" in state["state"]]
        tasks = [line.split() for line in ctr("tasks", "list").splitlines()]
        return next((int(task[1]) for task in tasks if task[0] in ids and task[2] == "RUNNING"), None)

    def start(self) -> None:
        """Wait until its current pod is the leader and reachable. Raises DeployFailed."""
        try:
            pod = wait_for(lambda: _started(find_pod(self._kubernetes)), "a pod that runs")
            self._connect(pod["status"]["podIP"])
            wait_for(self._ready, "Runway ready")
        except TimedOut as error:
            raise DeployFailed(f"{error}\n{_describe_pods(self._kubernetes)}") from error

    def kill(self) -> None:
        """Send SIGKILL to the process in the container. The kubelet restarts the container in the same pod."""
        pid = self.pid
        if pid is None:
            raise DeployFailed("Runway does not run, so it cannot be killed")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: None if Path("/proc", str(pid)).exists() else True, "the killed process is gone")

    def _ready(self) -> bool | None:
        try:
            answer = httpx2.get(f"{self.url}/readyz", timeout=2, trust_env=False)
        except httpx2.TransportError:
            return None
        return (answer.status_code == 200 and answer.json()["role"] == "writer") or None

    def _connect(self, pod_address: str) -> None:
        self._disconnect()
        listen = f"TCP4-LISTEN:{self._port},bind=127.0.0.1,fork,reuseaddr,backlog=128,max-children=256"
        command = ["socat", listen, f"TCP4:{pod_address}:{CONTAINER_PORT}"]
        # A new session, because it has a child per connection. Its messages about broken connections are discarded.
        self._forwarder = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def _disconnect(self) -> None:
        if self._forwarder is not None:
            os.killpg(self._forwarder.pid, signal.SIGTERM)
            self._forwarder.wait(10)
            self._forwarder = None


def _started(pod: Document | None) -> Document | None:
    if pod is None or "podIP" not in pod["status"]:
        return None
    return pod if any("running" in state["state"] for state in pod["status"].get("containerStatuses", [])) else None


def _wait_for_lease(kubernetes: Kubectl) -> None:
    holder: list[str] = []

    def is_held_by_pod() -> bool | None:
        lease, pod = kubernetes.get("lease", *LEASE), find_pod(kubernetes)
        holder[:] = [str(lease["spec"]["holderIdentity"])] if lease else []
        return (pod is not None and holder == [pod["metadata"]["name"]]) or None

    try:
        wait_for(is_held_by_pod, "the deployed Runway is the leader")
    except TimedOut as error:
        raise DeployFailed(f"{error}: the Lease is held by {holder or 'nobody'}; is another Runway running?") from error


def _describe_pods(kubernetes: Kubectl) -> str:
    """Return the status and the end of the log of each pod, if available."""
    try:
        pods = kubernetes.run("get", "pods", *PODS, "--output=wide")
        return pods + kubernetes.run("logs", *PODS, "--tail=15", "--ignore-errors")
    except KubectlFailed as error:
        return str(error)


def _remove_other_images(name: str) -> None:
    """Remove older images: each has 300 MB on the node, and the cluster never collects images."""
    others = [other for other in ctr("images", "list", "--quiet").split() if other.startswith(f"{image.REPOSITORY}:")]
    for other in others:
        if other != name:
            ctr("images", "remove", other)
