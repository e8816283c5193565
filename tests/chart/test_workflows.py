"""The workflows of .github: actionlint, pinned actions, and what a release publishes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import go_tools
from testbed.server import CHECKOUT
from testbed.waiting import GUARD_SECONDS

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yaml"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    return [step for job in document["jobs"].values() for step in job["steps"]]


def test_actionlint_finds_no_fault(tmp_path: Path) -> None:
    # Outside a Git repository it reads no other files, and it uses shellcheck only if the machine has it.
    for workflow in WORKFLOWS:
        shutil.copy(workflow, tmp_path)
    names = [workflow.name for workflow in WORKFLOWS]
    command = [str(go_tools.ensure_built("actionlint")), "-no-color", "-shellcheck=", "-pyflakes=", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=GUARD_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_can_only_read_by_default(workflow: Path) -> None:
    document = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    checkouts = [step for step in steps(workflow) if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_release_builds_both_architectures_with_sbom_and_scan() -> None:
    release = steps(CHECKOUT / ".github" / "workflows" / "release.yaml")
    (build,) = [step for step in release if "docker/build-push-action" in str(step.get("uses"))]
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert (build["with"]["sbom"], build["with"]["provenance"]) == (True, "mode=max")
    assert "BASE=" in build["with"]["build-args"]
    (scan,) = [step for step in release if "anchore/scan-action" in str(step.get("uses"))]
    assert scan["with"]["fail-build"] is True
    commands = "\n".join(str(step.get("run", "")) for step in release)
    for command in ("helm package deploy/chart", "helm push", "build --wheel", "gh release create"):
        assert command in commands
