"""kubectl as a source of evidence that is independent of Runway."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from localcluster import LocalCluster
from testbed.waiting import GUARD_SECONDS

Document = dict[str, Any]

TIMEOUT_SECONDS = 1.2 * GUARD_SECONDS
"""So that `kubectl wait` with the guard as its timeout can report why it failed."""


class KubectlFailed(Exception):
    """kubectl did not run or failed; the message contains its output."""


def find_kubectl() -> Path:
    """Return the local cluster's kubectl if it is built, else the one on PATH. Raises KubectlFailed."""
    built = LocalCluster.default().kubectl_binary
    if built.exists():
        return built
    found = shutil.which("kubectl")
    if found is None:
        raise KubectlFailed("there is no kubectl: install it, or run `make cluster-up`, which builds one")
    return Path(found)


class Kubectl:
    """Run kubectl on one cluster. Every method raises KubectlFailed."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._command = [str(find_kubectl()), f"--kubeconfig={kubeconfig}"]

    def run(self, *arguments: str, stdin: str = "", timeout: float = TIMEOUT_SECONDS) -> str:
        """Return the output of kubectl."""
        try:
            done = subprocess.run(
                [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KubectlFailed(f"kubectl {arguments[0]}: {error}") from error
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def apply(self, manifests: str) -> None:
        """Apply a stream of YAML or JSON."""
        self.run("apply", "-f", "-", stdin=manifests)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """Return one object, or None if it does not exist."""
        place = ["--namespace", namespace] if namespace else []
        text = self.run("get", kind, name, *place, "--ignore-not-found", "--output=json")
        return dict(json.loads(text)) if text.strip() else None

    def select(self, kind: str, *selection: str) -> list[Document]:
        """Return the objects of a kind that these flags select, such as `--namespace=a` or `--selector=b=c`."""
        return list(json.loads(self.run("get", kind, *selection, "--output=json"))["items"])

    def pods(self, namespace: str, job_id: str) -> list[Document]:
        """Return the pods of a Job, by the label of the Job controller.

        https://kubernetes.io/docs/reference/labels-annotations-taints/#batch-kubernetes-io-job-name
        """
        return self.select("pods", f"--namespace={namespace}", f"--selector=batch.kubernetes.io/job-name={job_id}")
