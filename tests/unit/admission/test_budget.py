"""Budgets: which charges count in the rolling window, to the second, and what a refusal says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runway.admission.budget import BudgetAccount, SpendingWindow
from runway.admission.quota import Ledger, ObservedUsage
from runway.errors import QuotaExceeded
from runway.jobs.cost import Charge
from runway.jobs.resources import ResourceVector
from runway.policy import Budget, Quota

START = datetime(2026, 11, 24, 8, tzinfo=UTC)
HOUR = 3600
USD = 1_000_000
BUDGET = Budget.model_validate({"usd": "10", "hours": 1})
QUOTA = Quota.model_validate({"gpu": 9, "cpu": "999", "memory": "999Gi", "jobs": 99})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def job(usd: float) -> ResourceVector:
    """Return the amounts of an unfinished job that costs at most this much."""
    return ResourceVector(cpu=1, memory=1, jobs=1, ceiling=round(usd * USD))


def charge(usd: float, finished: float) -> Charge:
    return Charge(int(at(finished).timestamp()), int(usd * USD))


def ledger() -> Ledger:
    return Ledger({"vision": QUOTA}, {"vision": BUDGET})


def refusal(book: Ledger, usd: float, now: float) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        book.reserve("vision", "rw-new", job(usd), at(now))
    return caught.value


def parts(book: Ledger, now: float) -> dict[str, Any]:
    document: Any = book.accounts["vision"].to_json(at(now))["budget"]
    assert document.pop("available_at") is None
    return dict(document)


def test_ceilings_of_unfinished_jobs_and_reservations_are_committed() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(job(4), own=job(4)))
    book.reserve("vision", "rw-b", job(5), at(0))
    assert parts(book, 0) == {"usd": "10", "hours": 1, "spent": "0", "committed": "4", "reserved": "5", "free": "1"}
    assert [found.field for found in refusal(book, 1.000001, 0).violations] == ["budget"]
    book.reserve("vision", "rw-c", job(1), at(0))


def test_finished_job_counts_with_its_actual_cost_until_the_window_has_passed() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(job(9), own=job(9)))
    refusal(book, 2, 0)
    book.set_observed("vision", "rw-a", None, charge(3.5, finished=100))
    assert (parts(book, 100)["spent"], parts(book, 100)["free"]) == ("3.5", "6.5")
    refusal(book, 7, 100 + HOUR - 0.001)
    book.reserve("vision", "rw-b", job(7), at(100 + HOUR))


def test_deleted_job_leaves_the_budget_at_once() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", None, charge(9, finished=100))
    refusal(book, 2, 100)
    book.set_observed("vision", "rw-a", None, None)
    book.reserve("vision", "rw-b", job(10), at(100))


def test_budget_of_one_tenant_does_not_limit_another() -> None:
    book = Ledger({"vision": QUOTA, "speech": QUOTA}, {"vision": BUDGET})
    book.reserve("speech", "rw-a", job(1000), at(0))
    assert book.accounts["speech"].to_json(at(0))["budget"] is None


def test_clock_that_jumps_ahead_and_back_forgets_no_charge() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", None, charge(9, finished=100))
    assert parts(book, 10 * HOUR)["spent"] == "0"
    assert parts(book, 200)["spent"] == "9"
    refusal(book, 2, 200)


def test_refusal_says_what_is_spent_committed_and_free_and_when_enough_is() -> None:
    book = ledger()
    book.set_observed("vision", "rw-early", None, charge(2, finished=10))
    book.set_observed("vision", "rw-late", None, charge(3, finished=500))
    book.set_observed("vision", "rw-runs", ObservedUsage(job(4), own=job(4)))
    error = refusal(book, 4, now=600)
    (violation,) = error.violations
    assert (violation.code, violation.observed, violation.limit) == ("budget_exceeded", "4", "10")
    assert violation.message == "of 10 USD in 1 h, 5 are spent and 4 committed to unfinished jobs, 1 free"
    assert violation.hint == "submit again at 2026-11-24T09:08:20Z, when enough is free, or lower timeout_seconds"
    quota: Any = error.extra["quota"]
    assert quota["budget"] == parts(book, 600) | {"available_at": at(500 + HOUR)}
    assert error.extra["held_by"] == ["rw-runs"]
    book.reserve("vision", "rw-new", job(4), at(500 + HOUR))


@pytest.mark.parametrize(
    ("committed", "asked", "hint"),
    [
        (4, 10.5, "this exceeds the tenant's whole budget; lower timeout_seconds or request less"),
        (7, 4, "wait until unfinished jobs finish for less than their ceilings, or cancel one"),
    ],
)
def test_refusal_without_a_known_time_says_why(committed: float, asked: float, hint: str) -> None:
    book = ledger()
    book.set_observed("vision", "rw-done", None, charge(2, finished=0))
    book.set_observed("vision", "rw-runs", ObservedUsage(job(committed), own=job(committed)))
    assert [found.hint for found in refusal(book, asked, now=1).violations] == [hint]


def test_lowered_budget_shows_nothing_free() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", None, charge(25, finished=0))
    assert parts(book, 1)["free"] == "0"
    assert "25 are spent and 0 committed to unfinished jobs, 0 free" in str(refusal(book, 1, 1).violations[0].message)


def test_lookup_of_free_time_counts_only_what_finished_jobs_leave() -> None:
    account = BudgetAccount(BUDGET)
    for number in range(3):
        account.put(f"rw-{number}", charge(3, finished=number))
    assert account.available_at(1 * USD, at(10)) == at(10)
    assert account.available_at(2 * USD, at(10)) == at(HOUR)
    assert account.available_at(10 * USD, at(10)) == at(2 + HOUR)
    assert account.available_at(10 * USD + 1, at(10)) is None


class WindowLaws(RuleBasedStateMachine):
    """Any order of charges, removals and times, compared with a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.window = SpendingWindow(100)
        self.charges: dict[str, Charge] = {}
        self.now = 0.0

    @rule(
        job_id=st.sampled_from("abcdef"), charge=st.none() | st.builds(Charge, st.integers(0, 400), st.integers(0, 9))
    )
    def put(self, job_id: str, charge: Charge | None) -> None:
        self.window.put(job_id, charge)
        self.charges.pop(job_id, None)
        if charge is not None:
            self.charges[job_id] = charge

    @rule(now=st.integers(0, 600) | st.floats(0, 600))
    def set_time(self, now: float) -> None:
        self.now = now

    @rule(most=st.integers(-1, 40))
    def find_time(self, most: int) -> None:
        found = self.window.when_below(most, self.now)
        if self._spent(self.now) <= most:
            assert found == int(self.now)
        elif found is None:
            assert most < 0
        else:
            assert self._spent(found) <= most < self._spent(found - 1)

    @invariant()
    def sum_is_that_of_the_window(self) -> None:
        assert self.window.spent(self.now) == self._spent(self.now)

    def _spent(self, now: float) -> int:
        return sum(amount for finished, amount in self.charges.values() if finished > now - 100)


TestWindowLaws = WindowLaws.TestCase
TestWindowLaws.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
