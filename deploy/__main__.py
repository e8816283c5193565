"""`python -m deploy up | down | image | tools`, for make deploy-local, undeploy-local and deploy-tools."""

from __future__ import annotations

import argparse
import sys

from deploy import deployment, go_tools, image
from localcluster import LocalCluster, LocalClusterError, paths
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.tenants import TenantsFailed


def main() -> int:
    """Return the exit code: 0 if done, 1 if failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description="Runway in the local cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="build and import the image, install the chart, apply the tenants, wait")
    commands.add_parser("down", help="remove the release and its namespace; the tenants and their jobs remain")
    commands.add_parser("image", help="build the image only, and print its name")
    commands.add_parser("tools", help="build helm and actionlint, and link them in .local/bin")
    command = parser.parse_args().command
    try:
        if command == "image":
            print(image.ensure_built())
        elif command == "tools":
            for name in go_tools.PACKAGES:
                go_tools.ensure_built(name)
        elif command == "down":
            deployment.down(Kubectl(LocalCluster.default().kubeconfig))
        else:
            deployment.up(
                Kubectl(LocalCluster.default().kubeconfig), paths.this_checkout() / "config/policy.local.yaml"
            )
            print("Runway is deployed in namespace runway and is the leader. To reach it:")
            print("  kubectl --kubeconfig .local/kubeconfig --namespace runway port-forward service/runway 8000:8000")
    except (deployment.DeployFailed, KubectlFailed, LocalClusterError, TenantsFailed) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
