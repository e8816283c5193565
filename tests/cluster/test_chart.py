"""The Helm chart on the local cluster: policy check, upgrade, rollback, removal, and the first five minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from deploy import deployment, image
from deploy.deployment import DeployedRunway, create_namespace, find_pod, local_options
from deploy.helm import NAMESPACE, RELEASE, Helm, HelmFailed
from testbed.context import Context, Tools
from testbed.http_client import RunwayClient, shell
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl
from testbed.server import CHECKOUT
from testbed.tenants import apply_tenants
from tests.cluster.conftest import POLICY
from tests.support.documented import Block, blocks, environment, play, played

pytestmark = pytest.mark.cluster

SLEEP: Final = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
VISION_QUOTA: Final = "quota: {gpu: 4, cpu:"
FIRST_JOB_SECONDS: Final = 300


@pytest.fixture(scope="module")
def tools(deployed: DeployedRunway, kubernetes: Kubectl) -> Iterator[Tools]:
    with RunwayClient(deployed.url) as api, Kernel() as kernel:
        yield Tools(api, kubernetes, kernel, deployed)


@pytest.fixture
def helm(kubeconfig: Path) -> Helm:
    return Helm(kubeconfig)


def options(policy: Path) -> tuple[str, ...]:
    return local_options(image.ensure_imported(), policy)


def edited(folder: Path, old: str, new: str) -> Path:
    """Write the local policy with one change."""
    text = POLICY.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file = folder / "policy.yaml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    return file


def pod_uid(kubernetes: Kubectl) -> str:
    pod = find_pod(kubernetes)
    assert pod is not None
    return str(pod["metadata"]["uid"])


def revision(helm: Helm) -> int:
    return int(json.loads(helm.run("status", RELEASE, "--output=json"))["version"])


def test_faulty_policy_fails_the_hook_and_the_old_revision_keeps_serving(
    context: Context, helm: Helm, tmp_path: Path
) -> None:
    before = pod_uid(context.kubernetes)
    faulty = edited(tmp_path, VISION_QUOTA, "quota: {gpu: -1, cpu:")
    with pytest.raises(HelmFailed, match="runway-policy-check"):
        helm.upgrade(*options(faulty), "--timeout=90s")
    log = context.kubernetes.run("logs", "job/runway-policy-check", f"--namespace={NAMESPACE}")
    assert log.startswith("tenants.vision.quota.gpu: ")
    assert pod_uid(context.kubernetes) == before
    view = context.until_finished(context.submit("vision", shell("true"))["id"])
    assert view["state"] == "succeeded"


def test_values_that_break_the_schema_change_nothing(context: Context, helm: Helm) -> None:
    before = pod_uid(context.kubernetes)
    with pytest.raises(HelmFailed, match="/networkPolicy/apiServerPorts"):
        helm.upgrade(*options(POLICY), "--set=networkPolicy.apiServerPorts={}")
    assert pod_uid(context.kubernetes) == before


def test_upgrade_changes_the_policy_and_the_documented_rollback_restores_it(
    context: Context, deployed: DeployedRunway, helm: Helm, kubeconfig: Path, tmp_path: Path
) -> None:
    """A job runs meanwhile."""
    running = context.submit("vision", shell(SLEEP))["id"]
    context.until_log(running, "started")
    seen = []
    helm.upgrade(*options(POLICY), "--timeout=120s")
    deployed.start()
    before = revision(helm)
    helm.upgrade(*options(edited(tmp_path, VISION_QUOTA, "quota: {gpu: 3, cpu:")), "--timeout=120s")
    deployed.start()
    seen.append(context.runway.policy()["tenants"]["vision"]["quota"]["gpu"])
    command = "helm -n runway rollback runway --wait"
    assert f"`{command}`" in (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    played(Block("", "rollback", (command,)), environment(KUBECONFIG=str(kubeconfig)))
    deployed.start()
    seen.append(context.runway.policy()["tenants"]["vision"]["quota"]["gpu"])
    assert seen == [3, 4]
    assert revision(helm) == before + 2
    assert context.runway.job(running)["state"] == "running"


def test_unchanged_values_start_no_new_pod(context: Context, deployed: DeployedRunway, helm: Helm) -> None:
    helm.upgrade(*options(POLICY), "--timeout=120s")
    deployed.start()
    before = pod_uid(context.kubernetes)
    helm.upgrade(*options(POLICY), "--timeout=120s")
    assert pod_uid(context.kubernetes) == before


def test_removed_release_leaves_tenants_and_running_jobs(
    context: Context, deployed: DeployedRunway, helm: Helm, kubeconfig: Path
) -> None:
    view = context.submit("vision", shell(SLEEP))
    context.until_log(view["id"], "started")
    text = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = (
        "kubectl -n runway delete deployment runway --cascade=foreground",
        "helm -n runway uninstall runway",
    )
    assert all(f"`{command}`" in text for command in commands)
    played(Block("", "remove", commands), environment(KUBECONFIG=str(kubeconfig)))
    kubernetes = context.kubernetes
    assert kubernetes.get("clusterrole", "runway-observer") is None
    assert kubernetes.get("namespace", view["kubernetes"]["namespace"]) is not None
    [pod] = kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    assert pod["status"]["phase"] == "Running"

    helm.upgrade(*options(POLICY), "--timeout=120s")
    deployed.start()
    assert context.runway.job(view["id"])["state"] == "running"


@pytest.mark.usefixtures("deployed")
def test_doctor_finds_no_failure_and_expects_the_unenforced_network_policy(kubeconfig: Path) -> None:
    """The only node counts for pool a10g. It has no taint, no DCGM exporter and no plugin that enforces policies."""
    problems = [item for item in doctor(kubeconfig, "--as-runway") if item["status"] != "ok"]
    assert {(item["status"], item["check"], item["subject"]) for item in problems} == {
        ("warning", "pools", "cpu"),
        ("warning", "pools", "large"),
        ("warning", "pools", "a10g"),
        ("warning", "prometheus", "DCGM"),
        ("warning", "network policy", "cluster"),
    }


def test_doctor_names_a_removed_permission(context: Context, kubeconfig: Path) -> None:
    context.kubernetes.run("delete", "rolebinding", "runway", "--namespace=runway-vision")
    try:
        failed = [item for item in doctor(kubeconfig, "--as-runway") if item["status"] == "failed"]
    finally:
        apply_tenants(context.kubernetes, POLICY)
    assert {(item["check"], item["subject"]) for item in failed} == {
        ("permissions", "runway-vision"),
        ("tenant objects", "runway-vision"),
    }


def test_doctor_in_the_pod_reports_what_it_may_not_read(context: Context) -> None:
    """Runway's service account can read nodes, but neither namespaces nor the objects in them."""
    command = ("exec", "deployment/runway", f"--namespace={NAMESPACE}", "--", "runway", "doctor", "-o", "json")
    findings = json.loads(context.kubernetes.run(*command))["findings"]
    unreadable = {item["check"] for item in findings if item["status"] == "unknown"}
    assert unreadable == {"service account", "tenant objects", "volumes", "network policy"}
    assert {item["status"] for item in findings} == {"ok", "warning", "unknown"}


def test_first_job_finishes_within_five_minutes_of_an_empty_cluster(
    context: Context, deployed: DeployedRunway, helm: Helm, kubeconfig: Path, tmp_path: Path
) -> None:
    """The commands of the documents, with the image and the tools already built."""
    deployment.down(context.kubernetes)
    try:
        name = image.ensure_imported()
        began = time.monotonic()
        venv = tmp_path / "venv"
        uv = CHECKOUT / ".local" / "uv" / "bin" / "uv"
        constraints = CHECKOUT / "requirements" / "runtime.txt"
        run(uv, "venv", "--quiet", f"--python={sys.executable}", venv)
        run(uv, "pip", "install", "--quiet", f"--python={venv}", f"--constraint={constraints}", f"{CHECKOUT}[server]")
        create_namespace(context.kubernetes)
        runway = venv / "bin" / "runway"
        run(runway, "tenants", "apply", f"--policy={POLICY}", KUBECONFIG=str(kubeconfig))
        helm.upgrade(*local_options(name, POLICY), "--timeout=120s")
        deployed.start()
        said = run(
            *(runway, "run", f"--url={deployed.url}", "--tenant=vision", "--image=runway.local/busybox:1"),
            *("--cpu=100m", "--memory=32Mi", "--", "echo", "first job"),
        )
        assert "first job" in said
        assert time.monotonic() - began < FIRST_JOB_SECONDS
    finally:
        helm.upgrade(*options(POLICY), "--timeout=120s")
        deployed.start()


def doctor(kubeconfig: Path, *arguments: str) -> list[dict[str, str]]:
    [block] = [each for each in blocks("docs/operations.md", "Deploy") if "runway doctor" in each.script]
    assert "runway doctor --policy policy.yaml --as-runway" in block.commands
    command = ("runway", "doctor", f"--policy={POLICY}", "--lease-namespace=default", "-o json", *arguments)
    variables = environment(KUBECONFIG=str(kubeconfig), RUNWAY_PROMETHEUS_URL="http://127.0.0.1:16290")
    done = play(Block("", "doctor", (" ".join(command),)), variables)
    assert done.returncode in (0, 1), done.stderr
    return list(json.loads(done.stdout)["findings"])


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
