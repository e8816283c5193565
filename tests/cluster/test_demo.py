"""The scenarios of the demo, and its result for a claim that does not hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo.__main__ import REPORT, main
from demo.scenario import Scenario, play
from demo.scenarios import SCENARIOS
from demo.scenarios.admission import BAD_SPEC_REFUSED
from demo.scenarios.reliability import ABSENCE
from testbed.context import Context, Source, Tools, expect
from testbed.http_client import shell
from testbed.server import CHECKOUT

pytestmark = pytest.mark.cluster


FREEZES_THE_API_SERVER = {ABSENCE}
PARAMETERS = [
    pytest.param(each, id=each.title, marks=[pytest.mark.alone] if each in FREEZES_THE_API_SERVER else [])
    for each in SCENARIOS
]


@pytest.mark.parametrize("scenario", PARAMETERS)
def test_scenario_is_verified_by_runway_and_another_source(scenario: Scenario, tools: Tools) -> None:
    evidence: list[tuple[Source, str]] = []
    outcome = play(scenario, Context(tools, lambda source, text: evidence.append((source, text))))

    assert outcome.seen, f"{outcome.missing}; seen before: {evidence}"
    witnesses = {source for source, _ in evidence}
    assert Source.RUNWAY in witnesses
    assert len(witnesses) > 1


def claim_success_of_a_failing_job(context: Context) -> None:
    view = context.until_finished(context.submit("vision", shell("exit 3"))["id"])
    context.show(Source.RUNWAY, f"the job is {view['state']}")
    expect(view["state"] == "succeeded", f"the job is {view['state']}")


FALSE = Scenario("A false claim", "A job that exits with 3 succeeds.", claim_success_of_a_failing_job)


@pytest.mark.usefixtures("demo_environment")
def test_unverified_claim_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([BAD_SPEC_REFUSED, FALSE]) == 1
    shown = capsys.readouterr().out
    assert "1 of 2 claims seen" in shown
    assert re.search(r"2  A false claim +[0-9.]+ s  NOT SEEN", shown)
    assert "the job is failed" in shown
    report = REPORT.read_text(encoding="utf-8")
    assert "<h1>1 of 2 claims seen</h1>" in report
    assert "Instead: the job is failed" in report


@pytest.mark.usefixtures("demo_environment")
def test_demo_succeeds_with_verified_claims_and_stops_its_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([BAD_SPEC_REFUSED]) == 0
    shown = capsys.readouterr().out
    assert "1 of 1 claims seen" in shown
    report = REPORT.read_text(encoding="utf-8")
    assert "<h1>1 of 1 claims seen</h1>" in report
    assert "The GPUs are simulated." in report
    assert str(CHECKOUT) not in report, "the report contains no path of this machine"
    pid = re.search(r"Runway: http://127\.0\.0\.1:[0-9]+, pid ([0-9]+)", shown)
    assert pid is not None
    assert not Path("/proc", pid[1]).exists()


@pytest.mark.usefixtures("demo_environment")
def test_demo_exits_2_without_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    assert main([BAD_SPEC_REFUSED]) == 2
    assert "demo: kubectl" in capsys.readouterr().err
