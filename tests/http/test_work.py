"""What a request or an event costs, counted in calls of functions, stays within its budget.

Should this fail, look first at what was added, with the flame graph of `make bench` or a profiler. Where the work is
worth it, or has become less, run `python -m tests.support.work --write` and commit the new budget with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.work import BUDGET, FEW, GROWING, MANY, ROOT


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    command = [sys.executable, "-m", "tests.support.work"]
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    calls: dict[str, dict[str, int]] = json.loads(ended.stdout)["calls"]
    return calls


def test_nothing_takes_a_tenth_more_work_than_its_budget(found: dict[str, dict[str, int]]) -> None:
    budget = json.loads(BUDGET.read_text())["calls"]
    over = {
        f"{act}, with {jobs} jobs": f"{calls} calls, its budget is {budget[jobs][act]}"
        for jobs, acts in found.items()
        for act, calls in acts.items()
        if calls > budget[jobs][act] * 1.1
    }
    assert over == {}


def test_what_has_become_cheaper_has_a_lower_budget(found: dict[str, dict[str, int]]) -> None:
    """Or the gain could be lost again unseen. Another Python counts otherwise, so it is not held to this."""
    budget = json.loads(BUDGET.read_text())
    if budget["python"] != f"{sys.version_info.major}.{sys.version_info.minor}":
        return
    under = {
        f"{act}, with {jobs} jobs": f"{calls} calls, its budget is {budget['calls'][jobs][act]}"
        for jobs, acts in found.items()
        for act, calls in acts.items()
        if calls < budget["calls"][jobs][act] * 0.9
    }
    assert under == {}


def test_the_work_does_not_grow_with_the_jobs_there_are(found: dict[str, dict[str, int]]) -> None:
    few, many = found[str(FEW)], found[str(MANY)]
    assert {act: calls for act, calls in many.items() if act not in GROWING and calls > few[act] * 1.05} == {}
