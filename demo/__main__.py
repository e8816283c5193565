"""`python -m demo`: apply the tenants, start Runway and run every scenario.

Exits 0 only if every claim that the cluster can show is verified. With `--deployed`, Runway is a Deployment in the
local cluster. `KUBECONFIG` and `RUNWAY_POLICY` select cluster and policy; `make demo` sets both.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from demo.environment import describe_environment
from demo.page import page
from demo.recording import QuotaSampler, Recorder
from demo.report import Report
from demo.scenario import Outcome, Scenario, play
from demo.scenarios import SCENARIOS
from deploy import deployment
from deploy.deployment import DeployedRunway, DeployFailed
from localcluster import LocalCluster, LocalClusterError
from testbed.context import Context, Source, Tools
from testbed.http_client import Document, RunwayClient
from testbed.kernel_log import Kernel, KernelUnreadable
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import CHECKOUT, Server, ServerFailed
from testbed.storage import provide_storage
from testbed.tenants import TenantsFailed, apply_tenants

LOG = CHECKOUT / ".local" / "demo" / "runway.log"
REPORT = LOG.with_name("report.html")


def main(scenarios: Sequence[Scenario] = SCENARIOS, *, deployed: bool = False) -> int:
    """Return the exit code: 0 if every claim is verified, 1 if one is not, 2 if the demo cannot start.

    A claim counts as neither if the cluster lacks what it needs; the report says so.
    """
    unset = [name for name in ("KUBECONFIG", "RUNWAY_POLICY") if not os.environ.get(name)]
    if unset:
        print(f"demo: {' and '.join(unset)} must be set; `make demo` does that", file=sys.stderr)
        return 2
    kubeconfig, policy = Path(os.environ["KUBECONFIG"]), Path(os.environ["RUNWAY_POLICY"])
    try:
        outcomes = _run(scenarios, kubeconfig, policy, deployed)
        return 0 if all(outcome.missing is None for outcome in outcomes) else 1
    except (DeployFailed, KernelUnreadable, KubectlFailed, LocalClusterError, ServerFailed, TenantsFailed) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(scenarios: Sequence[Scenario], kubeconfig: Path, policy: Path, deployed: bool) -> list[Outcome]:
    report = Report()
    with ExitStack() as stack:
        kubernetes = Kubectl(kubeconfig)
        report.note(f"cluster: {kubernetes.run('config', 'current-context').strip()} of {kubeconfig}")
        report.note(f"tenants: {_tenants(kubernetes, policy)}")
        if _on_this_machine(kubeconfig):
            provide_storage(kubernetes, policy)
        server: DeployedRunway | Server
        if deployed:
            server = stack.enter_context(_in_the_cluster(kubernetes, kubeconfig, policy))
        else:
            server = stack.enter_context(Server(LOG))
        server.start()
        where = "in the cluster" if deployed else f"log in {LOG.relative_to(CHECKOUT)}"
        report.note(f"Runway: {server.url}, pid {server.pid}, {where}")
        kernel = stack.enter_context(Kernel()) if _on_this_machine(kubeconfig) else None
        tools = Tools(stack.enter_context(RunwayClient(server.url)), kubernetes, kernel, server)
        recorder = Recorder()
        watch = stack.enter_context(QuotaSampler(server.url, recorder))

        def show(source: Source, text: str) -> None:
            report.evidence(source, text)
            recorder.evidence(source, text)

        outcomes = []
        for number, scenario in enumerate(scenarios, start=1):
            report.begin(number, scenario)
            recorder.begin()
            context = Context(tools, show)
            outcomes.append(play(scenario, context))
            recorder.end(outcomes[-1], _views(tools.runway, context.submitted))
            report.end(outcomes[-1])
        report.summary(outcomes)
        facts, simulated = describe_environment(kubernetes, deployed=deployed, here=kernel is not None)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(page(recorder.recording(facts, watch.samples, simulated_gpus=simulated)), encoding="utf-8")
        report.note(f"report as one HTML file: {REPORT.relative_to(CHECKOUT)}")
        return outcomes


def _tenants(kubernetes: Kubectl, policy: Path) -> str:
    """Apply the tenants, or use those that a cluster administrator has applied."""
    try:
        return ", ".join(apply_tenants(kubernetes, policy))
    except TenantsFailed as error:
        if "is forbidden" not in str(error):
            raise
        return "not applied, because this kubeconfig may not; the demo uses what is there"


def _views(runway: RunwayClient, job_ids: Sequence[str]) -> list[Document]:
    """Return the job views of a scenario, or none if Runway is unreachable."""
    try:
        return runway.jobs(job_ids)
    except httpx2.TransportError:
        return []


@contextmanager
def _in_the_cluster(kubernetes: Kubectl, kubeconfig: Path, policy: Path) -> Iterator[DeployedRunway]:
    """Run Runway as a Deployment; remove it afterwards, unless it existed before."""
    if not _on_this_machine(kubeconfig):
        raise DeployFailed("--deployed needs the local cluster: its node imports an image that no registry has")
    before = deployment.is_deployed(kubernetes)
    try:
        deployment.up(kubernetes, policy)
        with DeployedRunway(kubernetes) as running:
            yield running
    finally:
        if not before:
            deployment.down(kubernetes)


def _on_this_machine(kubeconfig: Path) -> bool:
    """Whether the cluster is the local one, so that this machine's kernel runs its jobs."""
    return kubeconfig.resolve() == LocalCluster.default().kubeconfig.resolve()


if __name__ == "__main__":
    # SIGTERM must stop Runway too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m demo", description="Run every scenario and show the evidence.")
    parser.add_argument("--deployed", action="store_true", help="run Runway as a Deployment in the local cluster")
    sys.exit(main(deployed=parser.parse_args().deployed))
