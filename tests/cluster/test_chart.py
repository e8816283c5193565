"""The Helm chart on the local cluster: policy check, upgrade, rollback, removal, and the first five minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from deploy import deployment, image
from deploy.deployment import DeployedRunway, create_namespace, find_pod, local_options
from deploy.helm import NAMESPACE, RELEASE, Helm, HelmFailed
from testbed.context import Context, Tools
from testbed.http_client import IMAGE, RunwayClient, shell
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl
from testbed.server import CHECKOUT, Server
from testbed.storage import provide_storage
from testbed.tenants import apply_tenants
from tests.cluster.conftest import POLICY
from tests.support.documented import Block, blocks, environment, play, played
from tests.support.installation import build_wheel, install
from tests.support.locks import one_at_a_time

pytestmark = pytest.mark.cluster

SLEEP: Final = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
VISION_QUOTA: Final = "quota: {gpu: 4, cpu:"
FIRST_JOB_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Installed:
    """Runway as the README installs it, and the seconds of each step."""

    runway: DeployedRunway
    variables: dict[str, str]
    first_job: Block
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def installed(
    server: Server, kubernetes: Kubectl, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """Run the README's commands up to Helm's, with the local image, policy and values.

    The shared server stops meanwhile. The wheel replaces the checkout.
    """
    [block] = blocks("README.md", "Install it", skip=("pip install '.[server]'",))
    tag, place, seconds = image.ensure_imported().rpartition(":")[2], tmp_path_factory.mktemp("cli"), dict[str, float]()
    replaced = {
        r"config/policy\.any-cluster\.yaml": str(POLICY),
        r"--set image\.repository=\S+": f"--values=deploy/values/local.yaml --set=image.tag={tag}",
    }
    with one_at_a_time("names-of-the-documents"):
        server.stop()
        try:
            with timed(seconds, "pip install"):
                programs = install(f"{build_wheel(place)}[server]", place)
            variables = environment(KUBECONFIG=str(kubeconfig))
            variables["PATH"] = f"{programs}:{variables['PATH']}"
            variables.pop("PYTHONPATH", None)
            *steps, forward, first_job = block.commands
            for command in steps:
                with timed(seconds, command.partition(" -")[0]):
                    played(replace(block, commands=(command,)), variables, replaced)
            with DeployedRunway(kubernetes) as running:
                with timed(seconds, "ready"):
                    running.start()
                commands = ("trap 'kill $(jobs -p)' EXIT", forward, first_job)
                yield Installed(running, variables, replace(block, commands=commands), seconds)
        finally:
            deployment.down(kubernetes)
            server.start()


@pytest.fixture(scope="module")
def tools(installed: Installed, kubernetes: Kubectl) -> Iterator[Tools]:
    provide_storage(kubernetes, POLICY)
    with RunwayClient(installed.runway.url) as api, Kernel() as kernel:
        yield Tools(api, kubernetes, kernel, installed.runway)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - began, 1)


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


def test_first_job_finishes_within_five_minutes_of_an_empty_cluster(
    context: Context, installed: Installed, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Image and tools are built before. The README leaves the namespace without its Pod Security label."""
    seconds = dict(installed.seconds)
    with timed(seconds, "doctor"):
        findings = doctor(kubeconfig, "--as-runway")
    with timed(seconds, "first job"):
        said = played(installed.first_job, installed.variables, {r"docker\.io/library/busybox:\S+": IMAGE})
    with capsys.disabled():
        print(f"\nfirst job: {seconds}")
    assert "hello" in said.splitlines()
    assert [item for item in findings if item["status"] == "failed"] == []
    assert ("warning", "pod security", "runway") in {
        (item["status"], item["check"], item["subject"]) for item in findings
    }
    assert sum(seconds.values()) < FIRST_JOB_SECONDS, seconds
    create_namespace(context.kubernetes)


def test_upgrade_changes_the_policy_and_the_documented_rollback_restores_it(
    context: Context, installed: Installed, helm: Helm, kubeconfig: Path, tmp_path: Path
) -> None:
    """A job runs meanwhile. It precedes the refused upgrade: a failed revision would be the one to roll back to."""
    running = context.submit("vision", shell(SLEEP))["id"]
    context.until_log(running, "started")
    seen = []
    before = revision(helm)
    helm.upgrade(*options(edited(tmp_path, VISION_QUOTA, "quota: {gpu: 3, cpu:")), "--timeout=120s")
    installed.runway.start()
    seen.append(context.runway.policy()["tenants"]["vision"]["quota"]["gpu"])
    command = "helm -n runway rollback runway --wait"
    assert f"`{command}`" in (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    played(Block("", "rollback", (command,)), environment(KUBECONFIG=str(kubeconfig)))
    installed.runway.start()
    seen.append(context.runway.policy()["tenants"]["vision"]["quota"]["gpu"])
    assert seen == [3, 4]
    assert revision(helm) == before + 2
    assert context.runway.job(running)["state"] == "running"


def test_faulty_policy_fails_the_hook_and_the_old_revision_keeps_serving(
    context: Context, helm: Helm, tmp_path: Path
) -> None:
    before = pod_uid(context.kubernetes)
    faulty = edited(tmp_path, VISION_QUOTA, "quota: {gpu: -1, cpu:")
    with pytest.raises(HelmFailed, match="runway-policy-check"):
        helm.upgrade(*options(faulty), "--timeout=90s")
    log = context.kubernetes.run("logs", "job/runway-policy-check", f"--namespace={NAMESPACE}")
    assert "tenants.vision.quota.gpu" in log
    assert "must be at least 0" in log
    assert pod_uid(context.kubernetes) == before
    view = context.until_finished(context.submit("vision", shell("true"))["id"])
    assert view["state"] == "succeeded"


def test_values_that_break_the_schema_change_nothing(context: Context, helm: Helm) -> None:
    before = pod_uid(context.kubernetes)
    with pytest.raises(HelmFailed, match="/networkPolicy/apiServerPorts"):
        helm.upgrade(*options(POLICY), "--set=networkPolicy.apiServerPorts={}")
    assert pod_uid(context.kubernetes) == before


def test_unchanged_values_start_no_new_pod(context: Context, helm: Helm) -> None:
    before = pod_uid(context.kubernetes)
    helm.upgrade(*options(POLICY), "--timeout=120s")
    assert pod_uid(context.kubernetes) == before


def test_removed_release_leaves_tenants_and_running_jobs_and_chart_replaces_manifests_of_0_7(
    context: Context, installed: Installed, helm: Helm, kubeconfig: Path
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

    # Now the cluster is like one without a chart, so that the same installation is the upgrade from 0.7.
    kubernetes.run("apply", "--filename", str(CHECKOUT / "tests" / "support" / "manifests_0_7.yaml"))
    [upgrade] = blocks("docs/operations.md", "Upgrade from 0.7 to 1.0")
    played(upgrade, environment(KUBECONFIG=str(kubeconfig)))
    helm.upgrade(*options(POLICY), "--timeout=120s")
    installed.runway.start()
    assert context.runway.job(view["id"])["state"] == "running"


@pytest.mark.usefixtures("tools")
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
    assert unreadable == {"service account", "lease", "tenant objects", "volumes", "network policy"}
    assert {item["status"] for item in findings} == {"ok", "warning", "unknown"}


def doctor(kubeconfig: Path, *arguments: str) -> list[dict[str, str]]:
    [block] = [each for each in blocks("docs/operations.md", "Deploy") if "runway doctor" in each.script]
    assert "runway doctor --policy policy.yaml --as-runway" in block.commands
    command = ("runway", "doctor", f"--policy={POLICY}", "--lease-namespace=default", "-o json", *arguments)
    variables = environment(KUBECONFIG=str(kubeconfig), RUNWAY_PROMETHEUS_URL="http://127.0.0.1:16290")
    done = play(Block("", "doctor", (" ".join(command),)), variables)
    assert done.returncode in (0, 1), done.stderr
    return list(json.loads(done.stdout)["findings"])
