"""The routing of the monitoring values in a real Alertmanager, with shorter times and local webhooks."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.export_rules import rule_file
from testbed.waiting import GUARD_SECONDS
from tests.support.alertmanager import AMTOOL, Alertmanager, Webhooks, alertmanager, check, hurried
from tests.support.documented import blocks
from tests.unit.tools.test_monitoring_values import VALUES

CONFIG: dict[str, Any] = VALUES["alertmanager"]["config"]
SEVERITY = {rule["alert"]: rule["labels"]["severity"] for group in rule_file()["groups"] for rule in group["rules"]}

OF_ONE_OUTAGE = {
    "RunwayNoWriter": {},
    "RunwayNotSynced": {},
    "RunwayWatchStale": {"kind": "pods"},
    "RunwayKubernetesErrors": {},
    "RunwaySubmissionsFailing": {},
    "RunwayExplanationsStale": {"kind": "events"},
    "RunwayEvidenceNotKept": {},
}
"""What fires while the API server is away. The chart's own rules follow."""
OF_A_REGISTRY = {
    "RunwayRegistryFailing": {},
    "RunwayJobsFailing": {"category": "infra"},
    "RunwayJobsPendingLong": {"tenant": "speech"},
}
"""What may fire while a registry fails for all tenants."""
OF_THE_CHART = (
    {"alertname": "KubeAPIDown", "severity": "critical", "namespace": "default"},
    {"alertname": "NodeRAIDDegraded", "severity": "critical", "namespace": "monitoring"},
    {"alertname": "NodeRAIDDegraded", "severity": "warning", "namespace": "monitoring"},
    {"alertname": "KubeNodeNotReady", "severity": "warning", "namespace": "monitoring"},
    {"alertname": "KubeletTooManyPods", "severity": "info", "namespace": "monitoring"},
    {"alertname": "Watchdog", "severity": "none"},
)
UNRELATED = {
    "RunwayGpusNotRegistered": {"pool": "a10g"},
    "RunwayPoolNodesUndersized": {"pool": "cpu"},
    "RunwayCostBurn": {"tenant": "vision"},
}


@dataclass(frozen=True, slots=True)
class Routed:
    """An Alertmanager that has sent everything it has to send, and its receivers."""

    alerts: Alertmanager
    webhooks: Webhooks
    config: dict[str, Any]


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with Webhooks() as webhooks:
        config = hurried(CONFIG, webhooks.url)
        with alertmanager(config, tmp_path_factory.mktemp("alertmanager")) as alerts:
            own = [
                {"alertname": name, "severity": SEVERITY[name], **labels}
                for name, labels in (OF_ONE_OUTAGE | OF_A_REGISTRY | UNRELATED).items()
            ]
            alerts.fire(*own, *OF_THE_CHART)
            webhooks.until("pager", "RunwayNoWriter")
            webhooks.until("pager", "RunwayRegistryFailing")
            webhooks.until("tickets", "RunwayCostBurn")
            # Each later heartbeat is one interval, in which an alert that waits in a group is sent.
            webhooks.until("heartbeat", "Watchdog", webhooks.names("heartbeat").count("Watchdog") + 3)
            yield Routed(alerts, webhooks, config)


def test_amtool_accepts_the_routing(routed: Routed, tmp_path: Path) -> None:
    said = check(routed.config, tmp_path)
    assert f"{len(CONFIG['inhibit_rules'])} inhibit rules" in said
    assert "4 receivers" in said


def test_outage_of_the_api_server_is_one_page(routed: Routed) -> None:
    paged = routed.webhooks.names("pager")
    assert [name for name in paged if name in {*OF_ONE_OUTAGE, "KubeAPIDown"}] == ["RunwayNoWriter"]
    assert routed.alerts.inhibited() >= OF_ONE_OUTAGE.keys() - {"RunwayNoWriter"} | {"KubeAPIDown"}


def test_registry_that_fails_for_all_is_one_page_and_no_ticket(routed: Routed) -> None:
    got = routed.webhooks.names("pager") + routed.webhooks.names("tickets")
    assert [name for name in got if name in OF_A_REGISTRY] == ["RunwayRegistryFailing"]
    assert routed.alerts.inhibited() >= OF_A_REGISTRY.keys() - {"RunwayRegistryFailing"}


def test_critical_alerts_of_the_chart_page(routed: Routed) -> None:
    assert routed.webhooks.names("pager").count("NodeRAIDDegraded") == 1


def test_tickets_and_warnings_reach_the_tracker(routed: Routed) -> None:
    assert set(routed.webhooks.names("tickets")) == {*UNRELATED, "KubeNodeNotReady"}


def test_watchdog_reaches_the_heartbeat_again_and_again(routed: Routed) -> None:
    beats = routed.webhooks.names("heartbeat")
    assert set(beats) == {"Watchdog"}
    assert len(beats) >= 3


def test_info_alert_reaches_nobody(routed: Routed) -> None:
    assert routed.alerts.receivers("KubeletTooManyPods") == {"nobody"}
    got = itertools.chain.from_iterable(map(routed.webhooks.names, ("pager", "tickets", "heartbeat")))
    assert "KubeletTooManyPods" not in got


def test_documented_test_page_reaches_the_pager(routed: Routed) -> None:
    [command] = [
        command
        for block in blocks("docs/operations.md", "Monitoring")
        for command in block.commands
        if "amtool" in command
    ]
    inside = re.sub(r"^.* -- amtool ", "", command.replace("\\\n", " "))
    arguments = shlex.split(inside.replace("http://127.0.0.1:9093", routed.alerts.url))
    done = subprocess.run([AMTOOL, *arguments], capture_output=True, text=True, timeout=GUARD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    routed.webhooks.until("pager", "RunwayTestPage")


def test_no_alert_inhibits_itself_over_others() -> None:
    """Two alerts that inhibit each other would both be silent."""
    names = {*SEVERITY, "KubeAPIDown", "Watchdog"}

    def matching(matchers: list[str]) -> set[str]:
        [found] = matchers
        label, value = re.split(r" =~? ", found)
        return {name for name in names if label == "alertname" and re.fullmatch(value.strip('"'), name)}

    follows: dict[str, set[str]] = {name: set() for name in names}
    for rule in CONFIG["inhibit_rules"]:
        for source in matching(rule["source_matchers"]):
            follows[source] |= matching(rule["target_matchers"])
    for _ in names:
        follows = {name: found.union(*(follows[each] for each in found)) for name, found in follows.items()}
    assert [name for name, found in follows.items() if name in found] == []
    assert all("Watchdog" not in found for found in follows.values())
    assert follows["RunwayNoWriter"] >= OF_ONE_OUTAGE.keys() - {"RunwayNoWriter"}
