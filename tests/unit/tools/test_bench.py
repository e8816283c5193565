"""Parts of the bench that need no cluster: fake API server, tables, plots."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from bench import plot, report
from bench.fake_apiserver import RUNNING_EVERY, FakeApiServer, name_of
from bench.load import Measured
from bench.process import POLICY
from bench.submit import Pair, rate
from runway.jobs.annotations import JOB_ID
from runway.jobs.models import JobState
from runway.jobs.record import record_of
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.objects import Job, Pod
from runway.policy import load_policy

SVG = "{http://www.w3.org/2000/svg}"


def texts(file: Path) -> list[str]:
    """Return every text of an SVG, including titles."""
    found = ET.parse(file).iter()  # noqa: S314 (made by the test)
    return [item.text or "" for item in found if item.tag in (f"{SVG}text", f"{SVG}title")]


@pytest.mark.parametrize(
    ("number", "state"), [(RUNNING_EVERY, JobState.RUNNING), (RUNNING_EVERY + 1, JobState.SUCCEEDED)]
)
def test_fake_apiserver_serves_jobs_that_runway_decodes(number: int, state: JobState) -> None:
    server = FakeApiServer(load_policy(POLICY), jobs=100)
    job = msgspec.json.decode(server._item("jobs", number), type=Job)
    pod = msgspec.json.decode(server._item("pods", number), type=Pod)
    view = job_view(JobSnapshot("bench", job, (pod,)))
    assert JOB_ID.fullmatch(view.id)
    assert (view.id, view.state, len(view.attempts)) == (name_of(number), state, 1)
    assert pod.controller_uid == job.metadata.uid
    assert view.spec is not None
    assert view.spec.command[-1] == f"{number:010d}"
    # Without records, Runway would write the records of all jobs.
    assert (record_of(job) is not None) is state.is_finished


def test_table_is_written_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- release: begin -->\nold\n<!-- release: end -->\nafter\n")
    report.write({"release": "new"}, "Kubernetes v1", document)
    text = document.read_text()
    assert "new" in text
    assert "Kubernetes v1" in text
    assert "old" not in text
    assert (text.startswith("before\n"), text.endswith("after\n")) == (True, True)
    with pytest.raises(ValueError, match="lacks the markers"):
        report.write({"submit": "new"}, "Kubernetes v1", document)


def test_ratios_are_computed_per_round() -> None:
    pair = Pair(1, 100, [Measured(100, 2, 3), Measured(10, 20, 30)], [Measured(80, 3, 4), Measured(9, 22, 30)])
    assert pair.ratios(lambda one: one.per_second) == [0.8, 0.9]
    assert pair.ratios(lambda one: one.p50) == [1.1, 1.5]


def test_throughput_covers_all_rounds() -> None:
    pair = Pair(32, 100, [Measured(100, 2, 3), Measured(50, 2, 3)], [Measured(50, 2, 3), Measured(50, 2, 3)])
    assert rate(pair.raw) == pytest.approx(200 / 3)  # 100 in one second, 100 in two
    assert pair.throughput == pytest.approx(0.75)


def test_plot_labels_series_and_positions(tmp_path: Path) -> None:
    plot.bars(tmp_path / "bars.svg", "Created", "per second", ["1", "32"], {"raw": [200, 900], "Runway": [150, 600]})
    assert {"Created (per second)", "raw", "Runway", "1", "32", "900", "600"} <= set(texts(tmp_path / "bars.svg"))
    groups = ["a name that is longer than the place below its bars", "2", "3"]
    plot.bars(tmp_path / "wrapped.svg", "Created", "per second", groups, {"raw": [1, 2, 3]})
    assert {"a name that is longer than the", "place below its bars"} <= set(texts(tmp_path / "wrapped.svg"))
    plot.lines(tmp_path / "lines.svg", "Memory", "MB", [1000, 50_000], {"Runway": [96, 365.4]}, "jobs")
    assert {"Memory (MB)", "Runway", "1,000", "50,000", "jobs"} <= set(texts(tmp_path / "lines.svg"))
