"""`python -m deploy up | down | image`, for make deploy-local and undeploy-local."""

from __future__ import annotations

import argparse
import sys

from deploy import deployment, image
from localcluster import LocalCluster, LocalClusterError, paths
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.tenants import TenantsFailed


def main() -> int:
    """Return the exit code: 0 if done, 1 if failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description="Runway in the local cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="build the image, import it, apply the overlay `local` and the tenants, wait")
    commands.add_parser("down", help="remove what `up` applied, but for the tenants and their jobs")
    commands.add_parser("image", help="build the image only, and print its name")
    command = parser.parse_args().command
    try:
        if command == "image":
            print(image.ensure_built())
        elif command == "down":
            deployment.down(Kubectl(LocalCluster.default().kubeconfig))
        else:
            deployment.up(
                Kubectl(LocalCluster.default().kubeconfig), paths.this_checkout() / "config/policy.local.yaml"
            )
            print("Runway is deployed in namespace runway and is the leader. To reach it:")
            print("  kubectl --kubeconfig .local/kubeconfig --namespace runway port-forward service/runway 8000:80")
    except (deployment.DeployFailed, KubectlFailed, LocalClusterError, TenantsFailed) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
