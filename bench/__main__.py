"""`make bench`: run every measurement on the local cluster, print it, and write it into docs/performance.md."""

from __future__ import annotations

import argparse
import asyncio
import json

from bench import report
from bench.kubernetes import ApiServer, delete_namespace
from bench.process import ROOT, URL, frozen, render_tenants, runway
from bench.release import release
from bench.restart import fill, restart, starts, time_list
from bench.submit import submit_pairs
from bench.takeover import takeovers
from localcluster.cluster import LocalCluster

QUIET = ("kube-controller-manager", "kube-scheduler")
"""Frozen where only creates are measured, so that a created Job costs nothing but its create."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="submissions a run")
    parser.add_argument("--releases", type=int, default=200, help="jobs whose release is timed, of each kind")
    parser.add_argument("--jobs", type=int, default=10_000, help="Jobs in the cluster at the restart")
    parser.add_argument("--takeovers", type=int, default=5, help="takeovers of each kind")
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md as it is")
    asked = parser.parse_args()
    cluster = LocalCluster.default()
    api = ApiServer.from_kubeconfig(cluster.kubeconfig)
    render_tenants(cluster)
    try:
        without = starts(cluster, 3)
        handed_over = takeovers(cluster, asked.takeovers)
        with runway(cluster):
            releases = [
                asyncio.run(release(api, fails=fails, jobs=asked.releases, at_once=10)) for fails in (True, False)
            ]
            with frozen(cluster, *QUIET):
                pairs = asyncio.run(submit_pairs(api, URL, asked.requests))
        asyncio.run(delete_namespace(api))
        render_tenants(cluster)
        with frozen(cluster, *QUIET):
            with runway(cluster):
                asyncio.run(fill(api, asked.jobs))
            listing = asyncio.run(time_list(api))
            again = restart(cluster, without, asked.jobs, listing)
    finally:
        print("bench: removing what was made", flush=True)
        asyncio.run(delete_namespace(api))
    if not asked.no_write:
        version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        report.write(
            ROOT / "docs" / "performance.md",
            report.Figures(pairs, releases, again, handed_over, asked.requests, version),
        )
        print("bench: written to docs/performance.md")


main()
