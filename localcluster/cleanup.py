"""Find and remove every trace of a local cluster, also after a kill.

Each trace has our mark: a variable in a process's environment, our cgroup, our bridge, or a path below our two
directories. The code touches nothing else.
"""

import shutil
from pathlib import Path

from localcluster import addresses, cgroups, conflicts, files, network, paths, processes, sysctls
from localcluster.commands import run
from localcluster.errors import LocalClusterError


def remove_pods() -> None:
    """Remove every container with its processes, mounts and interfaces, as a reboot does.

    containerd must not run. Its data on disk stays. At the next start it reports the containers as exited, and the
    kubelet reports their pods as failed. So no container runs twice.
    """
    # Shims first: they would report the exits and run hooks.
    processes.kill([found.process for found in processes.marked() if not found.is_component])
    cgroups.kill_processes()
    _remove_shim_sockets()
    for directory in (paths.RUN_DIR, paths.KUBELET_DIR):
        _unmount_below(directory)
    network.remove_pod_interfaces()
    for result in _cni_results():
        result.unlink()
    _remove_if_empty(paths.CNI_RESULT_DIR, paths.CNI_RESULT_DIR.parent)
    cgroups.remove(keep_parent=True)
    for directory in (paths.CONTAINERD_RUN_DIR, paths.RUNC_DIR, paths.CNI_DIR):
        _remove_tree(directory)


def remove_all() -> None:
    """Remove every trace of the local cluster except the cache of binaries.

    Raises LocalClusterError if a trace remains.
    """
    # First, so that an `up` after an interrupted `down` does not continue with partial state.
    paths.OWNER_FILE.unlink(missing_ok=True)
    _stop_components()
    remove_pods()
    cgroups.remove()
    network.remove_kube_proxy_chains()
    network.remove_bridge()
    for found in (*_device_plugin_files(), *_container_log_links()):
        found.unlink(missing_ok=True)
    # Its parent stays: to remove a directory is to unmount what an isolated part has mounted there.
    _remove_if_empty(paths.DEVICE_PLUGIN_DIR, paths.CONTAINER_LOG_LINK_DIR)
    sysctls.restore()
    for directory in (paths.RUN_DIR, paths.STATE_DIR):
        _unmount_below(directory)
        _remove_tree(directory)
    if remaining := inventory():
        raise LocalClusterError("these could not be removed:\n" + "\n".join(f"  {item}" for item in remaining))


def inventory() -> list[str]:
    """List every trace of the cluster on this machine, one line each; empty after `down`."""
    return [
        *(f"process {found.process.pid} ({found.component})" for found in processes.marked()),
        *(f"mount {point}" for directory in (paths.RUN_DIR, paths.STATE_DIR) for point in _mounts_below(directory)),
        *(f"cgroup {group}" for group in cgroups.ours()),
        *([f"interface {addresses.BRIDGE}"] if network.bridge_exists() else []),
        *(f"chain {chain}" for chain in network.kube_proxy_chains()),
        *(f"file {file}" for file in (*_device_plugin_files(), *_container_log_links(), *_cni_results())),
        *(f"directory {directory}" for directory in (paths.RUN_DIR, paths.STATE_DIR) if directory.exists()),
    ]


def _stop_components() -> None:
    """Stop clients before servers: without open watches and with a running etcd, the API server stops at once."""
    servers = ("kube-apiserver", "etcd")
    running = [found for found in processes.marked() if found.is_component]
    processes.stop([found.process for found in running if found.component not in servers])
    for server in servers:
        processes.stop([found.process for found in running if found.component == server])


def _remove_shim_sockets() -> None:
    # The address file of each bundle has the path of its shim's socket.
    for address in paths.CONTAINERD_RUN_DIR.glob("io.containerd.runtime.v2.task/*/*/address"):
        socket = Path(address.read_text(encoding="utf-8").strip().removeprefix("unix://"))
        if socket.parent == paths.SHIM_SOCKET_DIR:
            socket.unlink(missing_ok=True)
    _remove_if_empty(paths.SHIM_SOCKET_DIR, paths.SHIM_SOCKET_DIR.parent)


def _mounts_below(directory: Path) -> list[Path]:
    """Return the mount points at or below `directory`, the last mounted first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    # The file has octal escapes for spaces and similar characters (proc_pid_mountinfo(5)).
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [point for point in reversed(points) if point.is_relative_to(directory)]


def _unmount_below(directory: Path) -> None:
    for point in _mounts_below(directory):
        run(["umount", str(point)])


def _remove_tree(directory: Path) -> None:
    # Removing files through a mount would delete them in the mounted file system.
    if mounts := _mounts_below(directory):
        raise LocalClusterError(f"still mounted below {directory}: {', '.join(map(str, mounts))}")
    if directory.exists():
        shutil.rmtree(directory)


def _remove_if_empty(*directories: Path) -> None:
    for directory in directories:
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _cni_results() -> list[Path]:
    """Return the CNI results of our pods, by network namespace: loopback results lack our network's name."""
    mark = f'"sandbox":"{paths.CONTAINERD_RUN_DIR}/'
    return files.containing(paths.CNI_RESULT_DIR, mark)


def _container_log_links() -> list[Path]:
    return files.links_below(paths.CONTAINER_LOG_LINK_DIR, paths.POD_LOG_DIR)


def _device_plugin_files() -> list[Path]:
    """Return the files of our kubelet and plugin, or none if another kubelet has started since."""
    if conflicts.another_kubelet_listens():
        return []
    names = ("kubelet.sock", "kubelet_internal_checkpoint", "runway-simulated-gpu.sock")
    return [path for name in names if (path := paths.DEVICE_PLUGIN_DIR / name).exists()]
