"""Apply the tenants as an operator does: `runway tenants render`, `kubectl apply`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from testbed.kubectl import Kubectl

RUNWAY = Path(sys.executable).with_name("runway")


class TenantsFailed(Exception):
    """`runway tenants render` failed; the message contains its output."""


def apply_tenants(kubernetes: Kubectl, policy: Path) -> list[str]:
    """Apply every tenant of the policy and return the namespaces as soon as they admit pods. Raises TenantsFailed."""
    done = subprocess.run(
        [RUNWAY, "tenants", "render", f"--policy={policy}", "--output=json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise TenantsFailed(f"runway tenants render: {done.stderr.strip() or done.stdout.strip()}")
    kubernetes.apply(done.stdout)
    items = json.loads(done.stdout)["items"]
    namespaces = [item["metadata"]["name"] for item in items if item["kind"] == "Namespace"]
    for namespace in namespaces:
        # Kubernetes creates a namespace's default service account a moment later, and admits no pod before.
        kubernetes.run(
            "wait", "--for=create", "serviceaccount/default", f"--namespace={namespace}", "--timeout=30s", timeout=35
        )
    return namespaces
