"""Apply the tenants as an operator does: `runway tenants apply`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runway.policy import load_policy
from testbed.kubectl import Kubectl
from testbed.waiting import GUARD_SECONDS

RUNWAY = Path(sys.executable).with_name("runway")
APPLY_SECONDS = 120.0


class TenantsFailed(Exception):
    """`runway tenants apply` failed; the message contains its output."""


def apply_tenants(kubernetes: Kubectl, policy: Path) -> list[str]:
    """Apply every tenant of the policy and return the namespaces as soon as they admit pods. Raises TenantsFailed."""
    done = subprocess.run(
        [RUNWAY, "tenants", "apply", f"--policy={policy}"],
        env={**os.environ, "KUBECONFIG": str(kubernetes.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=APPLY_SECONDS,
        check=False,
    )
    if done.returncode:
        raise TenantsFailed(f"runway tenants apply: {done.stderr.strip() or done.stdout.strip()}")
    namespaces = [tenant.namespace for tenant in load_policy(policy).tenants.values()]
    for namespace in namespaces:
        # Kubernetes creates a namespace's default service account a moment later, and admits no pod before.
        kubernetes.run(
            "wait",
            "--for=create",
            "serviceaccount/default",
            f"--namespace={namespace}",
            f"--timeout={GUARD_SECONDS:.0f}s",
        )
    return namespaces
