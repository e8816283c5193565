"""`make bench`: run measurements and write the results into docs/performance.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.fanout import measure_fanout
from bench.kubernetes import ApiServer, delete_namespace
from bench.limits import measure_limits
from bench.many_jobs import measure_many_jobs
from bench.overload import overload
from bench.process import URL, Process, frozen, render_tenants, runway
from bench.quota_release import measure_quota_release
from bench.restart import fill, restart, starts, time_list
from bench.start import measure_starts
from bench.submit import in_process, rate, runway_target, submit_pairs
from bench.takeover import takeovers
from localcluster.cluster import LocalCluster

QUIET = ("kube-controller-manager", "kube-scheduler")
"""Frozen while only creates are measured, so that a created Job causes no other work."""
STARTS_SHARE = 5
"""One start for this many samples of other measurements: a start takes more than a second."""
Parts = dict[str, str]


@dataclass(frozen=True, slots=True)
class Bench:
    """The size of each measurement, the cluster, and the folder of the plots."""

    cluster: LocalCluster
    requests: int
    rounds: int
    histories: list[int]
    jobs: int
    samples: int
    images: Path

    @property
    def api(self) -> ApiServer:
        """The local cluster's API server."""
        return ApiServer.from_kubeconfig(self.cluster.kubeconfig)

    def submit(self) -> Parts:
        """Submissions against raw creates, and at twice the sustainable rate. About 4 minutes."""
        with frozen(self.cluster, *QUIET), Process(self.cluster.kubeconfig) as process:
            process.wait_for("writer")
            pairs = asyncio.run(submit_pairs(self.api, process, self.requests, self.rounds))
            # Long enough for more than twice the allowed number of waiting callers.
            seconds = max(5.0, self.requests / 400)
            inside = asyncio.run(in_process(process, self.requests))
            found = asyncio.run(overload(runway_target(URL), rate(pairs[-1].runway), seconds))
        return {
            "submit": report.submit(pairs, inside, self.images),
            "overload": report.overload(found),
        }

    def history(self) -> Parts:
        """Memory, start, reads, pages and view delay with many jobs. About 2 minutes; needs no cluster."""
        found = [
            asyncio.run(measure_many_jobs(jobs, reads=self.samples * 2, changes=self.samples))
            for jobs in self.histories
        ]
        return {"history": report.history(found, self.images)}

    def limits(self) -> Parts:
        """Admission with few and many jobs, with and without limits of a tenant. About 1 minute; needs no cluster."""
        few, many = asyncio.run(measure_limits((self.histories[0], self.histories[-1])))
        return {"limits": report.limits(few, many, self.images)}

    def fanout(self) -> Parts:
        """Memory, delay and CPU use of many streams. About 2 minutes; needs no cluster."""
        return {"fanout": report.fanout(asyncio.run(measure_fanout(self.samples)), self.images)}

    def start(self) -> Parts:
        """From a submission to a running container, beside `kubectl create`. About 3 minutes."""
        samples = max(1, self.samples // STARTS_SHARE)
        with runway(self.cluster):
            found = asyncio.run(measure_starts(self.cluster, self.api, URL, samples))
        return {"start": report.start(found, samples, self.images)}

    def release(self) -> Parts:
        """Delay from a finished job to the release of its quota. About 2 minutes."""
        with runway(self.cluster):
            found = [
                asyncio.run(measure_quota_release(self.api, fails=fails, jobs=self.samples, at_once=10))
                for fails in (True, False)
            ]
        return {"release": report.release(found)}

    def restart(self) -> Parts:
        """Start time with many Jobs on the real API server. About 2 minutes."""
        without = starts(self.cluster, 3)
        with frozen(self.cluster, *QUIET):
            with runway(self.cluster):
                asyncio.run(fill(self.api, self.jobs))
            listing = asyncio.run(time_list(self.api))
            found = restart(self.cluster, without, self.jobs, listing)
        return {"restart": report.restart(found)}

    def takeover(self) -> Parts:
        """Time without a leader after the leader stops. About 3 minutes."""
        return {"takeover": report.takeover(takeovers(self.cluster, max(1, self.samples // 40)))}


WITHOUT_CLUSTER = {"history", "limits", "fanout"}


def main() -> None:
    parts: dict[str, Callable[[Bench], Parts]] = {
        "takeover": Bench.takeover,
        "release": Bench.release,
        "submit": Bench.submit,
        "start": Bench.start,
        "history": Bench.history,
        "limits": Bench.limits,
        "fanout": Bench.fanout,
        "restart": Bench.restart,
    }
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="measurements to run (default: all)")
    parser.add_argument("--requests", type=int, default=6000, help="submissions per measurement")
    parser.add_argument("--rounds", type=int, default=15, help="rounds per measurement, alternating raw and Runway")
    parser.add_argument(
        "--histories", type=int, nargs="+", default=[1000, 10_000, 50_000], help="numbers of existing jobs"
    )
    parser.add_argument("--jobs", type=int, default=10_000, help="Jobs in the cluster for restart")
    parser.add_argument(
        "--samples",
        type=int,
        default=200,
        help="samples of releases and changes; starts: a fifth, takeovers: a fortieth",
    )
    parser.add_argument("--no-write", action="store_true", help="do not change docs/performance.md and its plots")
    asked = parser.parse_args()
    much = (asked.requests, asked.rounds, asked.histories, asked.jobs, asked.samples)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(LocalCluster.default(), *much, images=Path(scratch) if asked.no_write else report.IMAGES)
        for name in asked.parts or parts:
            found = _run(bench, name, parts[name])
            if not asked.no_write:
                report.write(found, _kubernetes(bench, name))
                print(f"bench: {name} written to {report.DOCUMENT.name}", flush=True)


def _run(bench: Bench, name: str, part: Callable[[Bench], Parts]) -> Parts:
    print(f"bench: {name}. {(part.__doc__ or '').strip()}", flush=True)
    if name in WITHOUT_CLUSTER:
        return part(bench)
    render_tenants(bench.cluster)
    try:
        return part(bench)
    finally:
        print("bench: deleting the namespace of the bench", flush=True)
        asyncio.run(delete_namespace(bench.api))


def _kubernetes(bench: Bench, name: str) -> str:
    if name in WITHOUT_CLUSTER:
        return "a fake API server"
    version = json.loads(bench.cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    return f"Kubernetes {version}"


main()
