"""Budgets: the charges of finished jobs in a rolling window. Pure.

Amounts are integers in micro-USD, times integer seconds since 1970. A charge counts from the end of its job until
`seconds` later, that second excluded. The current time may go back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from datetime import UTC, datetime
from itertools import islice

from runway.errors import Violation
from runway.jobs.cost import Charge
from runway.policy import Budget
from runway.quantity import format_usd


class BudgetAccount:
    """A tenant's budget, and the charges of its finished jobs. `committed` amounts are ceilings of unfinished jobs."""

    def __init__(self, budget: Budget) -> None:
        self.limit = budget.usd
        self.hours = budget.hours
        self._window = SpendingWindow(budget.seconds)
        self.put = self._window.put

    def spent(self, now: datetime) -> int:
        """Return the cost of the jobs that finished in the window."""
        return self._window.spent(now.timestamp())

    def to_json(self, committed: int, reserved: int, now: datetime) -> dict[str, object]:
        """Return the budget and its parts in USD."""
        spent = self.spent(now)
        amounts = {
            "usd": self.limit,
            "spent": spent,
            "committed": committed,
            "reserved": reserved,
            "free": max(0, self.limit - spent - committed - reserved),
        }
        shown = {name: format_usd(amount) for name, amount in amounts.items()}
        return {"hours": self.hours, **shown, "available_at": None}

    def available_at(self, committed: int, now: datetime) -> datetime | None:
        """Return when finished jobs leave enough for this commitment; None if they never do."""
        second = self._window.when_below(self.limit - committed, now.timestamp())
        return None if second is None else datetime.fromtimestamp(second, UTC)

    def violation(self, committed: int, requested: int, available_at: datetime | None, now: datetime) -> Violation:
        """Say what is spent, committed and free, and when enough becomes free."""
        limit, spent = self.limit, self.spent(now)
        message = (
            f"of {format_usd(limit)} USD in {self.hours} h, {format_usd(spent)} are spent and {format_usd(committed)} "
            f"committed to unfinished jobs, {format_usd(max(0, limit - spent - committed))} free"
        )
        if requested > limit:
            hint = "this exceeds the tenant's whole budget; lower timeout_seconds or request less"
        elif available_at is None:
            hint = "wait until unfinished jobs finish for less than their ceilings, or cancel one"
        else:
            hint = f"submit again at {available_at:%Y-%m-%dT%H:%M:%SZ}, when enough is free, or lower timeout_seconds"
        return Violation("budget", "budget_exceeded", message, format_usd(requested), format_usd(limit), hint)


class SpendingWindow:
    """The charges of one tenant, by job."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._charges: dict[str, Charge] = {}
        self._order: list[tuple[int, str]] = []
        """The ends of jobs, oldest first."""
        self._left = 0
        """The number of charges at the start of `_order` that no longer count."""
        self._spent = 0
        """The sum of the others."""

    def put(self, job_id: str, charge: Charge | None) -> None:
        """Set the charge of a job; None removes it."""
        before = self._charges.pop(job_id, None)
        if before is not None:
            place = bisect_left(self._order, (before.finished_at, job_id))
            del self._order[place]
            if place < self._left:
                self._left -= 1
            else:
                self._spent -= before.amount
        if charge is not None:
            self._charges[job_id] = charge
            entry = (charge.finished_at, job_id)
            if bisect_left(self._order, entry) < self._left:
                self._left += 1
            else:
                self._spent += charge.amount
            insort(self._order, entry)

    def spent(self, now: float) -> int:
        """Return the sum of the charges that count at this time."""
        horizon = now - self.seconds
        while self._left < len(self._order) and self._order[self._left][0] <= horizon:
            self._spent -= self._amount(self._left)
            self._left += 1
        while self._left and self._order[self._left - 1][0] > horizon:
            self._left -= 1
            self._spent += self._amount(self._left)
        return self._spent

    def when_below(self, most: int, now: float) -> int | None:
        """Return the second from which at most this amount counts, if no job finishes until then; None if never."""
        spent = self.spent(now)
        if spent <= most:
            return int(now)
        if most < 0:
            return None
        for finished_at, job_id in islice(self._order, self._left, None):
            spent -= self._charges[job_id].amount
            if spent <= most:
                return finished_at + self.seconds
        return None

    def _amount(self, place: int) -> int:
        return self._charges[self._order[place][1]].amount
