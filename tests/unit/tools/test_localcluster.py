"""Parts of the local cluster that need no cluster: processes, readiness, images."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from localcluster import (
    LocalCluster,
    addresses,
    files,
    images,
    monitoring,
    packages,
    processes,
    readiness,
    train_image,
    waiting,
)
from localcluster.errors import LocalClusterError
from localcluster.processes import Process
from testbed.waiting import GUARD_SECONDS

KUBELET_STARTED = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)


def node(
    *,
    ready: str = "True",
    heartbeat_after: float = 5,
    gpus: str | None = str(addresses.GPU_COUNT),
    taint: str | None = None,
) -> Any:
    heartbeat = KUBELET_STARTED + timedelta(seconds=heartbeat_after)
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return {
        "spec": {"taints": [{"key": taint}]} if taint else {},
        "status": {"conditions": [condition], "allocatable": {"nvidia.com/gpu": gpus} if gpus else {}},
    }


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (node(), None),
        (None, "has no node"),
        ({"spec": {}, "status": {}}, "has not reported yet"),
        (node(heartbeat_after=-60), "since it started"),
        (node(ready="Unknown"), "Ready is Unknown"),
        (node(taint="node.kubernetes.io/not-ready"), "tainted: node.kubernetes.io/not-ready"),
        (node(gpus=None), f"0 of {addresses.GPU_COUNT} nvidia.com/gpu"),
        (node(gpus="7"), f"7 of {addresses.GPU_COUNT} nvidia.com/gpu"),
    ],
)
def test_node_is_ready_only_if_running_kubelet_reported_it(observed: Any, reason: str | None) -> None:
    why = readiness.why_node_not_ready(observed, kubelet_started_at=KUBELET_STARTED.timestamp())

    assert (why is None) if reason is None else (why is not None and reason in why)


def test_wait_times_out_with_last_reason_within_its_bounds() -> None:
    now = 0.0
    pauses = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    with pytest.raises(LocalClusterError, match="etcd: not within 10 s: refused"):
        waiting.until(lambda: "refused", what="etcd", timeout=10, clock=lambda: now, sleep=sleep)
    assert max(pauses) <= 1.25 * waiting.LONGEST_PAUSE_SECONDS
    assert now < 11


def spawn(tmp_path: Path, *argv: str) -> Process:
    return processes.spawn(argv, log=tmp_path / "log", component="test", checkout=tmp_path)


def test_frozen_process_is_alive_and_can_be_stopped(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sleep", "600")
    process.send(signal.SIGSTOP)

    waiting.until(lambda: None if process.stopped else "runs", what="SIGSTOP", timeout=GUARD_SECONDS)
    assert process.alive
    processes.stop([process])
    assert not process.alive


def test_process_with_reused_pid_is_not_signalled(tmp_path: Path) -> None:
    process = spawn(tmp_path, "sleep", "600")
    predecessor = Process(process.pid, process.start_ticks - 1)

    assert not predecessor.alive
    predecessor.send(signal.SIGKILL)
    processes.kill([predecessor])
    assert process.alive
    processes.kill([process])


def test_children_are_found_but_not_mistaken_for_component(tmp_path: Path) -> None:
    parent = spawn(tmp_path, "sh", "-c", "sleep 600 & wait")

    def family() -> dict[bool, list[int]]:
        found = [one for one in processes.marked() if one.checkout == str(tmp_path)]
        return {kind: [one.process.pid for one in found if one.is_component is kind] for kind in (True, False)}

    waiting.until(lambda: None if family()[False] else "no child yet", what="the child", timeout=GUARD_SECONDS)
    assert family()[True] == [parent.pid]
    processes.kill([one.process for one in processes.marked() if one.checkout == str(tmp_path)])


def test_component_inherits_no_file_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        process = spawn(tmp_path, "sleep", "600")
    try:
        # During exec, the kernel already shows the new name and no descriptors; then the dynamic linker opens files.
        waiting.until(
            lambda: None if is_sleep(process.pid) and descriptors(process.pid) == [0, 1, 2] else "not yet",
            what="sleep with the descriptors 0, 1 and 2",
            timeout=GUARD_SECONDS,
        )
    finally:
        processes.kill([process])


def descriptors(pid: int) -> list[int]:
    return sorted(int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir())


def is_sleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "sleep"


def test_image_archive_is_reproducible() -> None:
    layer = images.image_layer(b"busybox", ["bin/busybox", "bin/sh", "usr/bin/env", "linuxrc"])
    archive = images.image_archive("runway.local/busybox:1", ["/bin/sh"], layer)

    assert archive == images.image_archive("runway.local/busybox:1", ["/bin/sh"], layer)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("tmp").mode == 0o1777
        assert tar.getmember("usr/bin/env").linkname == "/bin/busybox"
        assert tar.getmember("home/user").uid == 1000
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == ["runway.local/busybox:1"]


def test_train_image_is_built_once_and_kept_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # No debootstrap, so that a build fails.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(LocalClusterError, match="debootstrap is not installed"):
        train_image.ensure_built()
    train_image.archive().touch()
    assert train_image.ensure_built().parent == tmp_path / "runway"


def test_train_image_is_made_for_no_platform() -> None:
    document, _ = images.archive_documents(images.TRAIN_IMAGE, train_image.CONFIG, "0" * 64)
    config = json.loads(document)["config"]

    assert "User" not in config  # root
    assert "HOME=/root" in config["Env"]
    assert config["WorkingDir"] == "/workspace"
    assert config["Entrypoint"] == ["/usr/local/bin/entrypoint"]


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Neither Prometheus nor apt-get is installed.
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(LocalClusterError, match=r"missing: .*\bprometheus\b.*; install them"):
        packages.ensure_installed()


def test_prometheus_listens_on_loopback_with_bounded_storage() -> None:
    arguments = monitoring.prometheus().argv

    assert "--web.listen-address=127.0.0.1:16290" in arguments
    assert "--storage.tsdb.path=/var/lib/runway-localcluster/prometheus" in arguments
    assert {name.split("=")[0] for name in arguments} >= {
        "--storage.tsdb.retention.time",
        "--storage.tsdb.retention.size",
    }


def test_prometheus_scrapes_kubelet_by_certificate_and_runway_by_file() -> None:
    written = monitoring.prometheus().files
    cadvisor, runway = json.loads(written[monitoring.PROMETHEUS_CONFIG])["scrape_configs"]

    assert (cadvisor["scheme"], cadvisor["metrics_path"]) == ("https", "/metrics/cadvisor")
    assert cadvisor["static_configs"] == [{"targets": ["10.231.0.1:16250"]}]
    assert cadvisor["tls_config"]["cert_file"].endswith("/prometheus.pem")
    assert runway["file_sd_configs"][0]["files"] == [f"{monitoring.TARGET_DIR}/*.json"]
    assert json.loads(written[monitoring.TARGET_DIR / "runway.json"]) == [{"targets": ["127.0.0.1:8000"]}]


def test_makefile_has_local_prometheus_url() -> None:
    makefile = Path(__file__).parents[3] / "Makefile"

    assert f"RUNWAY_PROMETHEUS_URL ?= {LocalCluster.default().prometheus_url}\n" in makefile.read_text()


@pytest.mark.parametrize(("kubeconfig", "is_ours"), [(None, True), (".local/kubeconfig", True), ("kind.yaml", False)])
def test_exported_local_kubeconfig_still_means_the_local_cluster(kubeconfig: str | None, is_ours: bool) -> None:
    checkout = Path(__file__).parents[3]
    environment = {"PATH": os.environ["PATH"]} | ({"KUBECONFIG": str(checkout / kubeconfig)} if kubeconfig else {})
    plan = subprocess.run(
        ["make", "--dry-run", "serve"], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert ("localcluster up" in plan) is is_ours
    assert ("policy.local.yaml" in plan) is is_ours


def test_search_of_a_directory_survives_files_that_vanish(tmp_path: Path) -> None:
    """Another cluster on the machine starts and removes containers meanwhile."""
    ours = tmp_path / "ours"
    (tmp_path / "kept").write_text("ours")
    (tmp_path / "link").symlink_to(ours / "log")
    come_and_go = "import os\nwhile True:\n os.symlink('theirs', 'passing')\n os.unlink('passing')"
    # A process: a thread would hardly ever run between the two steps of the search.
    with subprocess.Popen([sys.executable, "-c", come_and_go], cwd=tmp_path) as other:
        try:
            for _ in range(1000):
                assert files.links_below(tmp_path, ours) == [tmp_path / "link"]
                assert files.containing(tmp_path, "ours") == [tmp_path / "kept"]
        finally:
            other.kill()
