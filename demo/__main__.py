"""`python -m demo`: put the tenants in place, serve Runway, run every scenario. 0 only if every claim was seen.

`KUBECONFIG` and `RUNWAY_POLICY` say which cluster and which policy; `make demo` sets both.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from demo.api import Api
from demo.kernel import Kernel, KernelUnreadable
from demo.kubectl import Kubectl, KubectlFailed
from demo.report import Report
from demo.scenario import Outcome, Scenario, play
from demo.scenarios import SCENARIOS
from demo.server import CHECKOUT, Server, ServerFailed
from demo.stage import Stage, Tools
from demo.tenants import TenantsFailed, apply_tenants
from localcluster import LocalCluster

LOG = CHECKOUT / ".local" / "demo" / "runway.log"


def main(scenarios: Sequence[Scenario] = SCENARIOS) -> int:
    """The exit code: 0 if every claim was seen, 1 if one was not, 2 if the demo could not begin."""
    unset = [name for name in ("KUBECONFIG", "RUNWAY_POLICY") if not os.environ.get(name)]
    if unset:
        print(f"demo: {' and '.join(unset)} must be set; `make demo` does that", file=sys.stderr)
        return 2
    kubeconfig, policy = Path(os.environ["KUBECONFIG"]), Path(os.environ["RUNWAY_POLICY"])
    try:
        return 0 if all(outcome.seen for outcome in _run(scenarios, kubeconfig, policy)) else 1
    except (KernelUnreadable, KubectlFailed, ServerFailed, TenantsFailed) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(scenarios: Sequence[Scenario], kubeconfig: Path, policy: Path) -> list[Outcome]:
    report = Report()
    with ExitStack() as stack:
        kubernetes = Kubectl(kubeconfig)
        report.note(f"cluster: {kubernetes.run('config', 'current-context').strip()} of {kubeconfig}")
        report.note(f"tenants: {', '.join(apply_tenants(kubernetes, policy))}")
        server = stack.enter_context(Server(LOG))
        server.start()
        report.note(f"Runway: {server.url}, pid {server.pid}, log in {LOG.relative_to(CHECKOUT)}")
        kernel = stack.enter_context(Kernel()) if _on_this_machine(kubeconfig) else None
        tools = Tools(stack.enter_context(Api(server.url)), kubernetes, kernel, server)
        outcomes = []
        for number, scenario in enumerate(scenarios, start=1):
            report.begin(number, scenario)
            outcomes.append(play(scenario, Stage(tools, report.evidence)))
            report.end(outcomes[-1])
        report.summary(outcomes)
        return outcomes


def _on_this_machine(kubeconfig: Path) -> bool:
    """Whether the cluster is the local one, so that this machine's kernel runs its jobs."""
    return kubeconfig.resolve() == LocalCluster.default().kubeconfig.resolve()


if __name__ == "__main__":
    # Ended from outside, Runway is stopped all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
