"""`python -m localcluster up | down | status | build | isolated`."""

import argparse
import signal
import sys

from localcluster import paths, preparation
from localcluster.cluster import NOT_UP, LocalCluster
from localcluster.errors import LocalClusterError
from localcluster.isolated import run_isolated


def main() -> int:
    """Return the exit code: 0 if done (for status: up), 1 if failed (for status: not up)."""
    parser = argparse.ArgumentParser(prog="python -m localcluster", description="Run Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start or repair the cluster; does nothing if it is up")
    up.add_argument("beside", nargs=argparse.REMAINDER, help="a command to run while `up` builds what it starts")
    down = commands.add_parser("down", help="stop the cluster and remove everything but the built binaries")
    down.add_argument("--force", action="store_true", help="also if another checkout started it")
    commands.add_parser("status", help="show the health of each component")
    build = commands.add_parser("build", help="build one part of what `up` starts, unless it is cached")
    build.add_argument("part", choices=preparation.BUILDS)
    isolated = commands.add_parser("isolated", help="run a command where `up` starts a second cluster beside the first")
    isolated.add_argument("argv", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    cluster = LocalCluster.default()
    try:
        if arguments.command == "up":
            _stop_by_exception()
            cluster.up(arguments.beside)
            _print_access(cluster)
        elif arguments.command == "down":
            cluster.down(force=arguments.force)
        elif arguments.command == "build":
            _stop_by_exception()
            preparation.BUILDS[arguments.part]()
        elif arguments.command == "isolated":
            return run_isolated(arguments.argv)
        else:
            return _status(cluster)
    except LocalClusterError as error:
        print(f"localcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("localcluster: interrupted; run the command again to continue", file=sys.stderr)
        return 130
    return 0


def _stop_by_exception() -> None:
    """Let SIGTERM do what Ctrl-C does, so that `up` stops what it runs. A shell's background jobs ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _status(cluster: LocalCluster) -> int:
    problems = cluster.problems()
    if problems != [NOT_UP]:
        for component in cluster.components():
            print(f"{component.name:26}{component.pid or '-':>8}  {component.why_not_healthy() or 'healthy'}")
    for problem in problems:
        print(problem)
    if not problems:
        _print_access(cluster)
    return 1 if problems else 0


def _print_access(cluster: LocalCluster) -> None:
    print(f"kubeconfig: {cluster.kubeconfig}")
    print(f"kubectl:    {cluster.kubectl_binary}")
    print(f"logs:       {paths.LOG_DIR}")


if __name__ == "__main__":
    sys.exit(main())
