"""The commands up, down and status of the local cluster.

Steps of `up`, each skipped if already done:

 1. check that we are root, and that no other checkout's cluster and no other Kubernetes runs;
 2. install packages, build the components and the image of `train_image`, side by side (`preparation`);
 3. remove all of a cluster of another checkout, or the pods of ours if its containerd has died (etcd's data stays, and
    the pods fail as after a reboot);
 4. create bridge, cgroup and certificates;
 5. start etcd, containerd and the forwarder; then the API server; then its clients;
 6. wait until the node is Ready with its GPUs.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from localcluster import (
    addresses,
    api,
    cgroups,
    cleanup,
    conflicts,
    control_plane,
    files,
    images,
    monitoring,
    network,
    node,
    paths,
    pki,
    processes,
    readiness,
    sysctls,
    train_image,
    waiting,
)
from localcluster.build import Build, current
from localcluster.commands import run
from localcluster.component import Component, ComponentSpec
from localcluster.errors import LocalClusterError
from localcluster.locking import only_one
from localcluster.preparation import prepare
from localcluster.progress import say, step

NOT_UP = "the local cluster is not up"
NODE_READY_TIMEOUT_SECONDS = 90.0
# Longer than `kubectl wait` in tests, so that it can report why it failed.
KUBECTL_TIMEOUT_SECONDS = 220.0
# `up` of everything takes less than a minute, `down` up to one minute.
LOCK_TIMEOUT_SECONDS = 300.0
# A running component that does not answer has this time to recover before `up` restarts it.
RECOVERY_SECONDS = 10.0


class LocalCluster:
    """The local cluster of this machine, used from the given checkout."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout

    @classmethod
    def default(cls) -> "LocalCluster":
        """Return the cluster for the checkout of this file."""
        return cls(paths.this_checkout())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it exists while the cluster is up."""
        return paths.kubeconfig(self.checkout)

    @property
    def prometheus_url(self) -> str:
        """The URL of its Prometheus."""
        return addresses.PROMETHEUS_URL

    @property
    def kubectl_binary(self) -> Path:
        """The kubectl of the cluster's own version."""
        return current().binary("kubectl")

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = KUBECTL_TIMEOUT_SECONDS) -> str:
        """Run kubectl as the administrator and return its output. Raises LocalClusterError."""
        command = [str(self.kubectl_binary), f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(command, stdin=stdin, timeout=timeout)

    def component(self, name: str) -> Component:
        """Return a component by name, such as "kube-apiserver". The cluster must have been up before."""
        for component in self.components():
            if component.name == name:
                return component
        raise LocalClusterError(f"no component {name!r}; there are {[one.name for one in self.components()]}")

    def components(self) -> list[Component]:
        """Return all components in start order. The cluster must have been up before."""
        if not _has_state():
            raise LocalClusterError(f"{NOT_UP}: run `python -m localcluster up`")
        return [Component(spec, self.checkout) for spec in _specs(current())]

    def up(self, beside: Sequence[str] = ()) -> None:
        """Start or repair all components and wait until the node is ready. The command `beside` runs beside the builds.

        Raises LocalClusterError with the end of the failing component's log. The other components keep running, and the
        next `up` continues from there.
        """
        _require_root()
        self._refuse_other_owner()
        prepare(beside)
        with only_one(paths.LOCK_FILE, what="up or down", timeout=LOCK_TIMEOUT_SECONDS):
            self._refuse_other_owner()
            if self._is_up():
                self._write_access()
                say(f"already up: node {addresses.NODE_NAME} is Ready")
                return
            self._start()
        say(f"up: node {addresses.NODE_NAME} is Ready with {addresses.GPU_COUNT} SIMULATED GPUs")

    def down(self, *, force: bool = False) -> None:
        """Stop and remove everything, except the cache of binaries. With `force`, another checkout's cluster too."""
        _require_root()
        with only_one(paths.LOCK_FILE, what="up or down", timeout=LOCK_TIMEOUT_SECONDS):
            if not force:
                self._refuse_other_owner()
            owner = _owner()
            if not cleanup.inventory():
                say("already down")
            else:
                with step("stopped and removed"):
                    cleanup.remove_all()
            for checkout in {self.checkout, owner or self.checkout}:
                paths.kubeconfig(checkout).unlink(missing_ok=True)

    def problems(self) -> list[str]:
        """List the problems of the components and the node; empty if the cluster is up."""
        _require_root()
        if not _has_state():
            return [NOT_UP]
        found = [f"{one.name}: {why}" for one in self.components() if (why := one.why_not_healthy()) is not None]
        return found or [f"node: {why}" for why in [self._why_node_not_ready()] if why is not None]

    def wait_ready(self, timeout: float = NODE_READY_TIMEOUT_SECONDS) -> None:
        """Wait until the node is Ready, with its GPUs, and pods can be created. Raises LocalClusterError."""
        try:
            waiting.until(self._why_node_not_ready, what="node ready", timeout=timeout)
        except LocalClusterError as error:
            log = self.component("kubelet").log
            raise LocalClusterError(f"{error}\nThe end of {log}:\n{files.tail(log)}") from error

    def _is_up(self) -> bool:
        if _owner() != self.checkout or self.problems():
            return False
        return not any(one.outdated for one in self.components()) and cgroups.ours() != []

    def _start(self) -> None:
        self._remove_leftovers()
        files.write_json(paths.OWNER_FILE, {"checkout": str(self.checkout)})
        sysctls.remember()
        sysctls.keep_addresses()
        network.ensure_bridge()
        cgroups.ensure_parent()
        with step("certificates"):
            if pki.ensure_made():
                processes.stop([found.process for found in processes.marked() if found.is_component])
        self._write_access()

        # The components of a launch start concurrently. containerd imports images while the API server starts.
        self._launch("etcd", "containerd", "api-forwarder")
        self._wait("etcd")
        self._launch("kube-apiserver")
        self._wait("containerd")
        with step("images"):
            images.ensure_imported(train_image.archive())
        self._wait("api-forwarder", "kube-apiserver")
        self._launch("kube-controller-manager", "kube-scheduler", "kubelet", "gpu-device-plugin", "kube-proxy")
        # Before Prometheus starts: the kubelet caches a denial for 30 s.
        self.kubectl("apply", "--filename=-", stdin=monitoring.kubelet_reader())
        self._launch("prometheus")
        self._wait("kube-controller-manager", "kube-scheduler", "kubelet", "gpu-device-plugin", "kube-proxy")
        self._wait("prometheus")
        with step("node ready"):
            self.wait_ready()

    def _remove_leftovers(self) -> None:
        if _owner() != self.checkout:
            if cleanup.inventory():
                with step("removed traces of an earlier local cluster"):
                    cleanup.remove_all()
            conflicts.require_no_other_node()
            return
        recorded = {one.name: one.process for one in self.components()} if _has_state() else {}
        # A killed `up` leaves a component without a record, or a second one.
        strays = [found for found in processes.marked() if found.is_component]
        processes.stop([found.process for found in strays if recorded.get(found.component) != found.process])
        if recorded.get("containerd") is None:
            with step("removed the pods of a containerd that has died"):
                # A running kubelet would restart the removed pods.
                processes.stop(
                    [process for name in ("kubelet", "gpu-device-plugin") if (process := recorded.get(name))]
                )
                cleanup.remove_pods()

    def _launch(self, *names: str) -> None:
        for component in map(self.component, names):
            if component.process and not component.outdated:
                _recover(component)
            else:
                component.stop()
                component.launch()

    def _wait(self, *names: str) -> None:
        for component in map(self.component, names):
            with step(component.name):
                component.wait_healthy()

    def _why_node_not_ready(self) -> str | None:
        kubelet = self.component("kubelet").process
        if kubelet is None:
            return "kubelet is not running"
        status = api.get_object(f"/api/v1/nodes/{addresses.NODE_NAME}")
        if why := readiness.why_node_not_ready(status, kubelet_started_at=kubelet.started_at):
            return why
        # The API server rejects pods until the controller manager has created it.
        if api.get_object("/api/v1/namespaces/default/serviceaccounts/default") is None:
            return "the default service account does not exist yet"
        return None

    def _write_access(self) -> None:
        """Write the kubeconfig and a link to kubectl into the checkout."""
        text = pki.kubeconfig("admin")
        if not self.kubeconfig.exists() or self.kubeconfig.read_text(encoding="utf-8") != text:
            files.write(self.kubeconfig, text)
        link = paths.kubectl_link(self.checkout)
        if not link.is_symlink() or link.readlink() != self.kubectl_binary:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self.kubectl_binary)

    def _refuse_other_owner(self) -> None:
        for found in processes.marked():
            if found.is_component and found.checkout != str(self.checkout):
                raise LocalClusterError(
                    f"the local cluster of {found.checkout} runs on this machine (pid {found.process.pid}, "
                    f"{found.component}), and only one can run. Stop it with `python -m localcluster down` there, or "
                    "with `python -m localcluster down --force` here."
                )


def _specs(build: Build) -> list[ComponentSpec]:
    return [
        control_plane.etcd(),
        node.containerd(),
        node.api_forwarder(),
        control_plane.kube_apiserver(build),
        control_plane.kube_controller_manager(build),
        control_plane.kube_scheduler(build),
        node.kubelet(build),
        node.gpu_device_plugin(build),
        node.kube_proxy(build),
        monitoring.prometheus(),
    ]


def _recover(component: Component) -> None:
    """Thaw a component that does not answer, or restart it."""
    process = component.process
    if process and process.stopped:
        component.thaw()
    try:
        component.wait_healthy(RECOVERY_SECONDS)
    except LocalClusterError:
        say(f"{component.name} does not answer; restarting it")
        component.stop()
        component.launch()


def _has_state() -> bool:
    """Whether an `up` has created the certificates and no `down` has begun since."""
    return paths.OWNER_FILE.exists() and pki.CA.exists()


def _owner() -> Path | None:
    owner = files.read_json(paths.OWNER_FILE)
    return Path(owner["checkout"]) if owner else None


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LocalClusterError("containers, cgroups and network interfaces need root: use sudo")
