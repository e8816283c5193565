"""The picture of a job's life: what lies where, for jobs that wait, run, are retried, and are over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.console.timeline import BREAK_PERCENT, SLIVER_PERCENT, Timeline, timeline_of
from runway.jobs.annotations import ResourcesView, SpecView
from runway.jobs.diagnosis.attempts import Attempt
from runway.jobs.diagnosis.codes import Category, Failure, FailureCode
from runway.jobs.diagnosis.conditions import Condition, ConditionCode
from runway.jobs.view import JobState, JobView, KubernetesRef
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
    """An attempt that was created, bound, started and finished at these moments."""
    created, bound, started, finished = (None if time is None else moment(time) for time in times)
    plain = Attempt("pod", "node-1", state, None, None, None, created, bound, started, finished, False, None, None)
    return replace(plain, **known)


def _picture(view: JobView, now: float = 0) -> Timeline:
    found = timeline_of(view, moment(now))
    assert found is not None
    return found


def _spans(line: Timeline, row: int = 0) -> list[tuple[str, float, float]]:
    return [(span.kind, span.left, span.width) for span in line.rows[row].spans]


def test_a_running_job_goes_on_to_now_and_a_near_deadline_is_to_scale() -> None:
    line = _picture(_view(attempts=[_attempt(0, 10, 20, None)]), now=80)
    assert _spans(line) == [("waiting", 0, 10), ("starting", 10, 10), ("running", 20, 60)]
    assert (line.end_at, line.deadline_at, line.to_scale) == (80, 100, True)
    assert line.rows[0].end is None


def test_a_deadline_far_away_stands_past_a_break() -> None:
    line = _picture(_view(timeout=3600, attempts=[_attempt(0, 0, 5, None)]), now=10)
    assert (line.end_at, line.deadline_at, line.to_scale) == (BREAK_PERCENT, 100, False)
    assert _spans(line)[-1] == ("running", BREAK_PERCENT / 2, BREAK_PERCENT / 2)


def test_a_job_that_is_over_ends_with_its_last_moment_and_time_goes_on_without_it() -> None:
    over = _view(
        JobState.FAILED,
        timeout=90,
        finished_at=moment(61),
        attempts=[_attempt(0, 0, 0, 60, state="failed", exit_code=1)],
    )
    assert timeline_of(over, moment(62)) == timeline_of(over, moment(9999))
    line = _picture(over)
    assert (line.ended, line.end, line.to_scale) == (True, moment(61), True)
    assert line.rows[0].end == pytest.approx(100 * 60 / 90, abs=0.01)


def test_a_job_that_outlived_its_deadline_shows_where_it_was_passed() -> None:
    line = _picture(_view(JobState.FAILED, timeout=50, finished_at=moment(100)))
    assert (line.end_at, line.deadline_at, line.to_scale) == (100, 50, True)


def test_each_attempt_is_a_row_by_its_number() -> None:
    attempts = [_attempt(0, 1, 2, 40, state="failed"), _attempt(45, 46, 50, None)]
    line = _picture(_view(attempts=attempts, attempts_left_out=3), now=90)
    assert [(row.number, row.state) for row in line.rows] == [(4, "failed"), (5, "running")]
    assert _spans(line, 1)[-1] == ("running", 50, 40)


def test_a_job_without_a_pod_or_a_specification_is_drawn_too() -> None:
    line = _picture(_view(JobState.PENDING, timeout=None), now=30)
    assert (line.rows, line.deadline, line.deadline_at, line.end_at) == ((), None, None, 100)
    assert timeline_of(_view(created_at=None), moment(0)) is None


def test_an_attempt_whose_end_nobody_saw_does_not_seem_to_run_on() -> None:
    line = _picture(_view(attempts=[_attempt(0, 10, 20, None, state="failed")]), now=80)
    assert [span.kind for span in line.rows[0].spans] == ["waiting", "starting"]


def test_what_is_over_at_once_keeps_a_sliver() -> None:
    line = _picture(_view(JobState.SUCCEEDED, finished_at=moment(100), attempts=[_attempt(100, 100, 100, 100)]))
    assert all(span.width >= SLIVER_PERCENT and span.left + span.width <= 100 for span in line.rows[0].spans)


def test_the_moments_tell_the_same_in_words_in_their_order() -> None:
    failure = Failure(FailureCode.OOM_KILLED, Category.USER, False, "m", "h", {})
    attempts = [
        _attempt(0, 1, 2, 42, state="failed", signal="SIGKILL", exit_code=137, reason="OOMKilled"),
        _attempt(45, None, None, 60, state="failed", node=None),
    ]
    line = _picture(_view(JobState.FAILED, finished_at=moment(61), attempts=attempts, failure=failure))
    assert [(int((at.time - moment(0)).total_seconds()), at.what) for at in line.moments] == [
        (0, "accepted"),
        (1, "attempt 1: bound to node node-1"),
        (2, "attempt 1: started"),
        (42, "attempt 1: ended after 40s, killed by SIGKILL (OOMKilled)"),
        (45, "attempt 2: pod created"),
        (60, "attempt 2: ended, failed"),
        (61, "over: failed, oom_killed"),
        (100, "deadline"),
    ]


def test_what_a_job_waits_for_is_one_of_the_moments() -> None:
    waiting = Condition(ConditionCode.UNSCHEDULABLE, "no node has room", moment(3))
    assert "waiting: unschedulable" in [at.what for at in _picture(_view(conditions=[waiting]), now=5).moments]


_times = st.one_of(st.none(), st.floats(-10, 5000))


@given(
    attempts=st.lists(st.tuples(_times, _times, _times, _times), max_size=20),
    states=st.sampled_from(["waiting", "running", "terminating", "succeeded", "failed"]),
    timeout=st.one_of(st.none(), st.integers(1, 86_400)),
    now=st.floats(-10, 100_000),
    over=st.booleans(),
)
def test_whatever_the_clocks_say_everything_lies_inside_the_picture(
    attempts: list[tuple[float | None, ...]], states: str, timeout: int | None, now: float, over: bool
) -> None:
    state = JobState.FAILED if over else JobState.RUNNING
    line = _picture(_view(state, timeout=timeout, attempts=[_attempt(*times, state=states) for times in attempts]), now)
    for row in line.rows:
        assert row.end is None or 0 <= row.end <= 100
        for span in row.spans:
            assert span.left >= 0
            assert span.width > 0
            assert span.left + span.width <= 100.01
    assert 0 <= line.end_at <= 100
    assert line.deadline_at is None or 0 <= line.deadline_at <= 100
