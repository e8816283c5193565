"""The timeline picture of pending, running, retried and finished jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.console.job_page import BREAK_PERCENT, MIN_WIDTH_PERCENT, Timeline, timeline_of
from runway.jobs.diagnosis.codes import Category, ConditionCode, FailureCode
from runway.jobs.models import (
    Attempt,
    ConditionView,
    Failure,
    JobState,
    JobView,
    KubernetesRef,
    ResourcesView,
    SpecView,
)
from tests.support.builders import JOB, NAMESPACE, moment


def _spec(timeout: int) -> SpecView:
    return SpecView(None, "image", [], [], {}, ResourcesView("1", "1Gi", 0, None), timeout, 0, 30, None)


def _view(state: JobState = JobState.RUNNING, *, timeout: int | None = 100, **known: Any) -> JobView:
    plain: dict[str, Any] = {
        "id": JOB, "tenant": "vision", "name": None, "state": state, "spec": _spec(timeout) if timeout else None,
        "created_at": moment(0), "started_at": None, "finished_at": None, "conditions": [], "attempts": [],
        "attempts_left_out": 0, "disruptions": 0, "failure": None, "cost": None,
        "kubernetes": KubernetesRef(NAMESPACE, JOB), "excerpt": None, "usage": None,
    }  # fmt: skip
    return JobView(**{**plain, **known})


def _attempt(*times: float | None, state: str = "running", **known: Any) -> Attempt:
    """Return an attempt that was created, bound, started and finished at these times."""
    created, bound, started, finished = (None if time is None else moment(time) for time in times)
    plain = Attempt("pod", "node-1", state, None, None, None, created, bound, started, finished, False, None, None)
    return replace(plain, **known)


def _picture(view: JobView, now: float = 0) -> Timeline:
    found = timeline_of(view, moment(now))
    assert found is not None
    return found


def _spans(line: Timeline, row: int = 0) -> list[tuple[str, float, float]]:
    return [(span.kind, span.left, span.width) for span in line.rows[row].spans]


def test_running_job_extends_to_now_and_near_deadline_is_to_scale() -> None:
    line = _picture(_view(attempts=[_attempt(0, 10, 20, None)]), now=80)
    assert _spans(line) == [("waiting", 0, 10), ("starting", 10, 10), ("running", 20, 60)]
    assert (line.end_at, line.deadline_at, line.to_scale) == (80, 100, True)
    assert line.rows[0].end is None


def test_distant_deadline_is_past_a_break() -> None:
    line = _picture(_view(timeout=3600, attempts=[_attempt(0, 0, 5, None)]), now=10)
    assert (line.end_at, line.deadline_at, line.to_scale) == (BREAK_PERCENT, 100, False)
    assert _spans(line)[-1] == ("running", BREAK_PERCENT / 2, BREAK_PERCENT / 2)


def test_finished_job_ends_at_its_last_time() -> None:
    finished = _view(
        JobState.FAILED,
        timeout=90,
        finished_at=moment(61),
        attempts=[_attempt(0, 0, 0, 60, state="failed", exit_code=1)],
    )
    assert timeline_of(finished, moment(62)) == timeline_of(finished, moment(9999))
    line = _picture(finished)
    assert (line.finished, line.end, line.to_scale) == (True, moment(61), True)
    assert line.rows[0].end == pytest.approx(100 * 60 / 90, abs=0.01)


def test_deadline_before_the_end_is_to_scale() -> None:
    line = _picture(_view(JobState.FAILED, timeout=50, finished_at=moment(100)))
    assert (line.end_at, line.deadline_at, line.to_scale) == (100, 50, True)


def test_each_attempt_is_a_numbered_row() -> None:
    attempts = [_attempt(0, 1, 2, 40, state="failed"), _attempt(45, 46, 50, None)]
    line = _picture(_view(attempts=attempts, attempts_left_out=3), now=90)
    assert [(row.number, row.state) for row in line.rows] == [(4, "failed"), (5, "running")]
    assert _spans(line, 1)[-1] == ("running", 50, 40)


def test_job_without_pod_or_spec_has_a_picture() -> None:
    line = _picture(_view(JobState.PENDING, timeout=None), now=30)
    assert (line.rows, line.deadline, line.deadline_at, line.end_at) == ((), None, None, 100)
    assert timeline_of(_view(created_at=None), moment(0)) is None


def test_ended_attempt_without_end_time_does_not_extend_to_now() -> None:
    line = _picture(_view(attempts=[_attempt(0, 10, 20, None, state="failed")]), now=80)
    assert [span.kind for span in line.rows[0].spans] == ["waiting", "starting"]


def test_short_part_keeps_a_minimum_width() -> None:
    line = _picture(_view(JobState.SUCCEEDED, finished_at=moment(100), attempts=[_attempt(100, 100, 100, 100)]))
    assert all(span.width >= MIN_WIDTH_PERCENT and span.left + span.width <= 100 for span in line.rows[0].spans)


def test_moments_are_listed_in_order() -> None:
    failure = Failure(FailureCode.OOM_KILLED, Category.USER, False, "m", "h", {})
    attempts = [
        _attempt(0, 1, 2, 42, state="failed", signal="SIGKILL", exit_code=137, reason="OOMKilled"),
        _attempt(45, None, None, 60, state="failed", node=None),
    ]
    line = _picture(_view(JobState.FAILED, finished_at=moment(61), attempts=attempts, failure=failure))
    assert [(int((at.time - moment(0)).total_seconds()), at.text) for at in line.moments] == [
        (0, "accepted"),
        (1, "attempt 1 bound to node node-1"),
        (2, "attempt 1 started"),
        (42, "attempt 1 ended after 40s: killed by SIGKILL, exit code 137 (OOMKilled)"),
        (45, "attempt 2 pod created"),
        (60, "attempt 2 ended: failed"),
        (61, "failed: oom_killed"),
    ]


def test_condition_is_a_moment() -> None:
    waiting = ConditionView(ConditionCode.UNSCHEDULABLE, "no node has room", moment(3))
    assert "condition unschedulable" in [at.text for at in _picture(_view(conditions=[waiting]), now=5).moments]


_times = st.one_of(st.none(), st.floats(-10, 5000))


@given(
    attempts=st.lists(st.tuples(_times, _times, _times, _times), max_size=20),
    states=st.sampled_from(["waiting", "running", "terminating", "succeeded", "failed"]),
    timeout=st.one_of(st.none(), st.integers(1, 86_400)),
    now=st.floats(-10, 100_000),
    finished=st.booleans(),
)
def test_every_part_is_inside_the_picture_despite_clock_skew(
    attempts: list[tuple[float | None, ...]], states: str, timeout: int | None, now: float, finished: bool
) -> None:
    state = JobState.FAILED if finished else JobState.RUNNING
    line = _picture(_view(state, timeout=timeout, attempts=[_attempt(*times, state=states) for times in attempts]), now)
    for row in line.rows:
        assert row.end is None or 0 <= row.end <= 100
        for span in row.spans:
            assert span.left >= 0
            assert span.width > 0
            assert span.left + span.width <= 100.01
    assert 0 <= line.end_at <= 100
    assert line.deadline_at is None or 0 <= line.deadline_at <= 100
