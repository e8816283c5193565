"""Run Helm on deploy/chart."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from deploy import go_tools
from localcluster import paths

CHART: Final = Path(__file__).parent / "chart"
VALUES: Final = Path(__file__).parent / "values"
NAMESPACE: Final = "runway"
RELEASE: Final = "runway"
TIMEOUT_SECONDS: Final = 300.0


class HelmFailed(Exception):
    """Helm did not run or failed; the message contains its output."""


class Helm:
    """Run Helm, on a cluster if a kubeconfig is given. Every method raises HelmFailed."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        self._binary = go_tools.ensure_built("helm")
        self._kubeconfig = [] if kubeconfig is None else [f"--kubeconfig={kubeconfig}"]

    def run(self, *arguments: str, timeout: float = TIMEOUT_SECONDS) -> str:
        """Return the output of Helm."""
        command = [str(self._binary), f"--namespace={NAMESPACE}", *self._kubeconfig, *arguments]
        # Its own directories, so that no settings of this machine's user take part.
        home = paths.this_checkout() / ".local" / "helm"
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HelmFailed(f"helm {arguments[0]}: {error}") from error
        if done.returncode:
            raise HelmFailed(f"helm {' '.join(arguments)}: {done.stderr.strip()[-4000:]}")
        return done.stdout

    def template(self, *options: str) -> str:
        """Render the chart as a YAML stream, without a cluster."""
        return self.run("template", RELEASE, str(CHART), *options)

    def upgrade(self, *options: str) -> str:
        """Install or upgrade the release, and wait until it is ready."""
        return self.run("upgrade", "--install", RELEASE, str(CHART), "--wait", *options)


def policy_option(policy: Path) -> str:
    """Return the option that passes a policy file. A comma would end the value."""
    escaped = str(policy).replace(",", "\\,")
    return f"--set-file=policy={escaped}"
