"""Alerts under promtool: firing, metrics, labels, runbooks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.export_rules import OBSERVABILITY, rule_file
from testbed.waiting import GUARD_SECONDS
from tests.support.metric_names import SCRAPED, faults, metric_names, sections

RUNBOOK = ("**Means.**", "**Look.**", "**Do.**", "**Escalate**")
TESTS = sorted((OBSERVABILITY / "tests").glob("*.yaml"))
Json = dict[str, Any]


def alerts() -> list[Json]:
    return [rule for group in rule_file()["groups"] for rule in group["rules"]]


def checks() -> Iterator[Json]:
    """Return every alert check of all promtool tests."""
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            yield from test["promql_expr_test"]


def seen(alert: str, firing: bool) -> list[Json]:
    """Return the checks of an alert that expect it to fire, or not."""
    return [check for check in checks() if f'"{alert}"' in check["expr"] and bool(check["exp_samples"]) is firing]


def promtool(*arguments: str) -> None:
    found = shutil.which("promtool")
    assert found, "promtool is not installed: it comes with Debian's package prometheus (`make cluster-up`)"
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=GUARD_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Write the rules as a plain file, with the promtool tests in the same folder."""
    for path in TESTS:
        shutil.copy(path, tmp_path)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_file(), sort_keys=False))
    return tmp_path


@pytest.fixture(params=alerts(), ids=lambda rule: str(rule["alert"]))
def alert(request: pytest.FixtureRequest) -> Json:
    rule: Json = request.param
    return rule


def test_promtool_accepts_rules(rules: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(rules / "rules.yaml"))


@pytest.mark.parametrize("name", [path.name for path in TESTS])
def test_promtool_alert_tests_pass(rules: Path, name: str) -> None:
    promtool("test", "rules", str(rules / name))


def test_every_alert_has_firing_and_silent_tests(alert: Json) -> None:
    assert seen(alert["alert"], firing=True)
    assert seen(alert["alert"], firing=False)


def test_every_alert_has_severity_summary_and_description(alert: Json) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    (fired, *_) = [sample for check in seen(alert["alert"], firing=True) for sample in check["exp_samples"]]
    for label in re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())):
        assert f'{label}="' in fired["labels"], f"the alert has no label {label}"


def test_alert_expressions_use_exported_metrics_and_labels(alert: Json) -> None:
    assert faults(alert["expr"]) == []


def test_promtool_test_series_are_exported_metrics() -> None:
    known = metric_names()
    for path in TESTS:
        for name, labels in re.findall(r"series: '(runway_\w+)\{([^}]*)\}'", path.read_text()):
            assert set(re.findall(r"(\w+)=", labels)) <= known[name] | SCRAPED, f"{name}{{{labels}}}"


def test_every_alert_has_a_runbook(alert: Json) -> None:
    _, anchor = alert["annotations"]["runbook_url"].split("docs/runbooks.md#")
    section = sections("runbooks.md")[anchor]
    for part in RUNBOOK:
        assert part in section, f"{anchor}: {part} is missing"
    assert "```sh\n" in section, f"{anchor}: no command to begin with"


def test_every_runbook_has_an_alert() -> None:
    written = {anchor for anchor, section in sections("runbooks.md").items() if RUNBOOK[0] in section}
    assert written == {alert["alert"].lower() for alert in alerts()}
