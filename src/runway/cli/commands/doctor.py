"""`runway doctor`: check a cluster for Runway."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.text import Text

from runway.cli.commands.policy import PolicyFile, load_policy_file
from runway.cli.context import Exit, configuration_errors, load_server_module
from runway.cli.options import As
from runway.cli.output import Output, Screen, emit
from runway.cli.views.tables import Column
from runway.doctor.findings import CheckStatus, Finding

STYLES: Final = {
    CheckStatus.OK: "green",
    CheckStatus.WARNING: "yellow",
    CheckStatus.UNKNOWN: "yellow",
    CheckStatus.FAILED: "bold red",
}
_COLUMNS: Final = [
    Column(title="STATUS"),
    Column(title="CHECK"),
    Column(title="SUBJECT", shrink=True),
    Column(title="OBSERVED", shrink=True),
    Column(title="FIX", shrink=True),
]


def doctor(
    policy: PolicyFile,
    prometheus_url: Annotated[
        str | None, typer.Option(envvar="RUNWAY_PROMETHEUS_URL", metavar="URL", help="The Prometheus of Runway.")
    ] = None,
    lease_namespace: Annotated[
        str, typer.Option(envvar="RUNWAY_LEASE_NAMESPACE", metavar="NAME", help="Namespace of Runway's Lease.")
    ] = "runway",
    as_runway: Annotated[
        bool, typer.Option("--as-runway", help="Check the permissions of Runway's service account, not yours.")
    ] = False,
    output: As = Output.TABLE,
) -> None:
    """Check a cluster before or after the installation. Names a fix for each fault, and changes nothing.

    KUBECONFIG or ~/.kube/config names the cluster. Exits with 1 if a check failed; a warning is not a failure.
    """
    screen = Screen(wide=output is Output.WIDE)
    loaded = load_policy_file(policy, screen, output)
    run = load_server_module("runway.doctor.run", "doctor")
    with configuration_errors(screen):
        findings: list[Finding] = run.diagnose(run.Question(loaded, prometheus_url, lease_namespace, as_runway))
    is_ok = all(finding.status is not CheckStatus.FAILED for finding in findings)
    document = {"ok": is_ok, "findings": [_to_json(finding) for finding in findings]}
    names = [f"{finding.status} {finding.check} {finding.subject}" for finding in findings]
    emit(document, output, names=names, table=lambda: _show(screen, findings))
    if not is_ok:
        raise typer.Exit(Exit.REJECTED)


def _to_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "subject": finding.subject,
        "status": finding.status,
        "observed": finding.observed,
        "fix": finding.fix,
    }


def _show(screen: Screen, findings: list[Finding]) -> None:
    rows = [
        (Text(each.status, STYLES[each.status]), each.check, each.subject, each.observed, each.fix) for each in findings
    ]
    screen.table(_COLUMNS, rows)
    counts = ", ".join(f"{sum(each.status is status for each in findings)} {status}" for status in CheckStatus)
    screen.out(counts, style="bold")
