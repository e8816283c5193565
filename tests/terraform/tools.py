"""Run terraform, tflint and checkov. A missing program fails the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from testbed.waiting import GUARD_SECONDS
from tests.terraform.hcl import CHECKOUT

_WHERE_FROM = {
    "terraform": "install Terraform 1.11 or later",
    "tflint": "run `make terraform-tools`",
    "checkov": "run `make terraform-tools`",
}


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool without the user's settings. The caller checks the exit code."""
    path = shutil.which(command[0], path=f"{CHECKOUT / '.local' / 'bin'}:{os.environ['PATH']}")
    assert path is not None, f"{command[0]} is missing: {_WHERE_FROM[command[0]]}"
    return subprocess.run(
        [path, *command[1:]],
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
    )


def _environment() -> dict[str, str]:
    """Return an environment without the user's variables, credentials and configuration, and without network."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TF_", "TFLINT_", "CKV_", "AWS_"))
    }
    return {
        **kept,
        "TF_CLI_CONFIG_FILE": os.devnull,
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
        "NO_COLOR": "1",
    }
