"""What a request or an event costs, counted in calls of functions, stays within its budget.

Should this fail, look first at what was added, with the flame graph of `make bench` or a profiler. Where the work is
worth it, or has become less, run `python -m tests.support.work --write` and commit the new budget with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.work import BUDGET, FEW, GROWING, MANY, ROOT


def test_requests_stay_within_their_budgets_and_do_not_grow_with_the_jobs() -> None:
    """One test, since counting takes seconds: a tenth above the budget, or a twentieth more with many jobs."""
    command = [sys.executable, "-m", "tests.support.work"]
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, dict[str, int]] = json.loads(ended.stdout)["calls"]
    budget = json.loads(BUDGET.read_text())["calls"]
    over = {
        f"{act}, with {jobs} jobs": f"{calls} calls, its budget is {budget[jobs][act]}"
        for jobs, acts in found.items()
        for act, calls in acts.items()
        if calls > budget[jobs][act] * 1.1
    }
    assert over == {}
    few, many = found[str(FEW)], found[str(MANY)]
    assert {act: calls for act, calls in many.items() if act not in GROWING and calls > few[act] * 1.05} == {}
