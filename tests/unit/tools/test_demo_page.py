"""The report of a demo: complete, escaped and self-contained."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from demo.page import page
from demo.recording import AttemptRecord, Evidence, JobRecord, Recorder, Recording, Sample, ScenarioRun, TenantUsage
from demo.scenario import Outcome, Scenario
from demo.svg import LEFT, RIGHT, WIDTH
from testbed.context import Source
from testbed.http_client import Document

HOSTILE = "<script>alert(1)</script> \"'><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp; \x1b[31m"


def attempt(
    created: float = 1, started: float | None = 2, finished: float | None = 9, state: str = "failed"
) -> AttemptRecord:
    return AttemptRecord(created, started, finished, state)


def job(
    *attempts: AttemptRecord, state: str = "failed", verdict: str | None = "oom_killed", name: str = "rw-a"
) -> JobRecord:
    return JobRecord(name, "vision", state, verdict, "0.000003", 0, 10, attempts or (attempt(),))


def played(
    number: int = 1,
    *jobs: JobRecord,
    began: float = 0,
    ended: float = 10,
    missing: str | None = None,
    text: str = "seen",
) -> ScenarioRun:
    evidence = (Evidence(began + 3, Source.RUNWAY, text), Evidence(began + 4, Source.LINUX, "killed"))
    return ScenarioRun(number, f"Scenario {number}", "It is so.", began, ended, missing, evidence, jobs or (job(),))


def recording(*scenarios: ScenarioRun, samples: tuple[Sample, ...] = (), simulated: bool = True) -> Recording:
    began = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    facts = (("Kubernetes", "v1.35.4, 1 node"),)
    return Recording(began, 20, facts, simulated, scenarios or (played(),), samples)


def pictures(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL)]  # noqa: S314


class Found(HTMLParser):
    """The tags and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def bars(text: str) -> list[tuple[str, float, float]]:
    """Return the bars of all pods: state, left and right edge."""
    found = (rect for svg in pictures(text) for rect in svg.iter("rect") if rect.get("class", "").startswith("pod "))
    return [
        (rect.attrib["class"][4:], float(rect.attrib["x"]), float(rect.attrib["x"]) + float(rect.attrib["width"]))
        for rect in found
    ]


def test_report_shows_claims_outcomes_evidence_and_facts() -> None:
    text = page(recording(played(1), played(2, began=10, ended=20, missing="the job is running")))
    assert "<h1>1 of 2 claims seen</h1>" in text
    assert text.count("NOT SEEN") == 2
    assert "Instead: the job is running" in text
    assert "v1.35.4, 1 node" in text
    assert '<span class="source linux">Linux</span><span class="text">killed</span>' in text
    assert "2026-11-24 08:00:00 UTC, for 20 s" in text


def test_scenario_that_the_cluster_cannot_show_counts_as_not_shown() -> None:
    text = page(recording(played(1), replace(played(2), needs="4 GPUs")))
    assert "<h1>1 of 2 claims seen</h1>" in text
    assert text.count("NOT SHOWN") == 2
    assert "NOT SEEN" not in text
    assert "It needs 4 GPUs." in text


def test_report_escapes_recorded_text() -> None:
    hostile = played(1, job(attempt(state=HOSTILE), name=HOSTILE, verdict=HOSTILE), text=HOSTILE, missing=HOSTILE)
    text = page(recording(hostile, samples=(Sample(1, {HOSTILE: TenantUsage(1, 2, 1, 9)}),)))
    found = Found()
    found.feed(text)
    assert found.tags.isdisjoint({"script", "img", "iframe", "object", "link"})
    assert not [name for name in found.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in text
    assert "\x1b" not in text
    assert "\\x1b[31m" in text
    assert all(svg.tag == "svg" for svg in pictures(text))


def test_report_loads_no_external_resources() -> None:
    text = page(recording(samples=(Sample(1, {"vision": TenantUsage(2, 4, 1, 9)}),)))
    assert not re.search(r"""(src|href)=["'](?!#)|url\(|@import|<link|https?://""", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_report_links_resolve_to_scenarios() -> None:
    text = page(recording(played(1), played(2, began=10, ended=20)))
    assert {f"s{target}" for target in re.findall(r'href="#s(\d+)"', text)} <= set(re.findall(r'id="(s\d+)"', text))


def test_job_is_drawn_to_scale_as_pending_then_running() -> None:
    (waiting, begin, middle), (failed, since, end) = bars(page(recording(played(1, job(attempt(0, 2, 10))))))
    width = WIDTH - LEFT - RIGHT
    assert (waiting, failed) == ("waiting", "failed")
    assert begin == LEFT
    assert middle == since == pytest.approx(LEFT + 0.2 * width)
    assert end == pytest.approx(LEFT + width)


def test_unfinished_job_is_drawn_to_the_end_and_podless_job_pending() -> None:
    going = job(attempt(1, 5, None, "running"), state="running", verdict=None)
    waiting = job(attempt(1, None, None, "waiting"), state="pending", verdict=None)
    found = bars(page(recording(played(1, going, waiting))))
    assert [state for state, _, _ in found] == ["waiting", "running", "waiting"]
    assert all(end <= WIDTH - RIGHT + 3 for _, _, end in found)
    unmade = JobRecord("rw-b", "vision", "cancelled", None, None, 2, 4, ())
    assert [state for state, _, _ in bars(page(recording(played(1, unmade))))] == ["waiting"]


def test_events_before_scenario_are_drawn_at_its_edge() -> None:
    found = bars(page(recording(played(1, job(attempt(-1, -1, 3)), began=0.4))))
    assert all(LEFT <= begin <= end <= WIDTH - RIGHT + 3 for _, begin, end in found)


def test_jobs_beyond_drawing_limit_are_counted() -> None:
    text = page(recording(played(1, *(job(name=f"rw-{number}") for number in range(11)))))
    assert "The 8 jobs of this scenario over time; 3 more are not shown" in text


def test_quota_is_drawn_from_runway_answers() -> None:
    held = [TenantUsage(gpu, 4, 1, 9) for gpu in (0, 2, 4)]
    answered = [Sample(number + 1.0, {"vision": one}) for number, one in enumerate(held)]
    samples = (*answered, Sample(4, None), Sample(5, {"vision": held[0]}), Sample(6, {"vision": held[0]}))
    text = page(recording(samples=samples))
    chart = next(svg for svg in pictures(text) if svg.attrib["aria-label"] == "GPUs of vision")
    lines = [path.attrib["d"] for path in chart.iter("path") if path.get("class") == "line"]
    assert len(lines) == 2, "the line is broken where Runway did not answer"
    assert lines[0].count("V") == 2
    assert "V" not in lines[1]
    assert any("limit 4" in (text.text or "") for text in chart.iter("text"))


def test_report_without_samples_has_no_chart_and_labels_real_gpus() -> None:
    text = page(recording(simulated=False))
    assert "Quota over the demo" not in text
    assert "simulated" not in text
    assert "The GPUs are simulated." in page(recording())


def test_recorder_times_start_with_the_demo() -> None:
    clock = iter([1000.0, 1002.0, 1003.5, 1009.0, 1010.0]).__next__
    recorder = Recorder(clock)
    recorder.begin()
    recorder.evidence(Source.JOB, "hello")
    pod: Document = {"created_at": None, "started_at": "1970-01-01T00:16:44Z", "finished_at": None, "state": "running"}
    pod["counted"] = False
    taken = {**pod, "finished_at": "1970-01-01T00:16:45Z", "state": "failed"}
    view: Document = {
        "id": "rw-a", "tenant": "vision", "state": "failed", "failure": {"code": "oom_killed"}, "cost": None,
        "created_at": "1970-01-01T00:16:43Z", "finished_at": None,
        "attempts": [taken, pod],
    }  # fmt: skip
    recorder.end(Outcome(Scenario("T", "C", lambda _: None), None, 5.5), [view])
    made = recorder.recording([], [], simulated_gpus=False)
    (scenario,) = made.scenarios
    assert (scenario.began, scenario.ended, scenario.seconds, made.seconds) == (2.0, 9.0, 7.0, 10.0)
    assert scenario.evidence == (Evidence(3.5, Source.JOB, "hello"),)
    assert (scenario.jobs[0].created, scenario.jobs[0].verdict) == (3.0, "oom_killed")
    assert scenario.jobs[0].attempts == (
        AttemptRecord(3.0, 4.0, 5.0, "disrupted"),
        AttemptRecord(3.0, 4.0, None, "running"),
    )
