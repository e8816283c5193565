"""The quota ledger: what every tenant holds, and whether it may hold more.

A tenant's use is what its jobs are booked for, as observed in Kubernetes, plus the reservations of creates in flight.
`reserve` checks and reserves in one step, without an `await` in between, so two submissions can never both see the same
free GPU. A reservation ends in exactly one of two ways: the job is observed (`book`), or it certainly does not exist
(`release`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from runway.errors import QuotaExceeded, Violation
from runway.jobs.spec import Resources
from runway.policy import Quota
from runway.quantity import format_bytes, format_cpu


@dataclass(frozen=True, slots=True)
class Amounts:
    """Whole GPUs, milli-CPU, bytes of memory and jobs."""

    gpu: int = 0
    cpu: int = 0
    memory: int = 0
    jobs: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.gpu + other.gpu, self.cpu + other.cpu, self.memory + other.memory, self.jobs + other.jobs)

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(self.gpu - other.gpu, self.cpu - other.cpu, self.memory - other.memory, self.jobs - other.jobs)

    def union(self, other: Amounts) -> Amounts:
        """The larger of each: what two views of the same holding amount to."""
        return Amounts(
            max(self.gpu, other.gpu),
            max(self.cpu, other.cpu),
            max(self.memory, other.memory),
            max(self.jobs, other.jobs),
        )

    def to_json(self) -> dict[str, object]:
        """The amounts as callers write them."""
        return {
            "gpu": self.gpu,
            "cpu": format_cpu(self.cpu),
            "memory": format_bytes(self.memory),
            "jobs": self.jobs,
        }


NOTHING = Amounts()

_PATHS: Final = {"gpu": "resources.gpu", "cpu": "resources.cpu", "memory": "resources.memory", "jobs": "jobs"}
"""What each amount is called in a job's specification."""


def amounts_of(resources: Resources) -> Amounts:
    """What one job with these resources holds: it runs in one pod at a time."""
    return Amounts(resources.gpu, resources.cpu, resources.memory, 1)


@dataclass(frozen=True, slots=True)
class Booking:
    """What one job holds, and how much of it only for pods that were told to end and have not."""

    amounts: Amounts
    terminating: Amounts = NOTHING


@dataclass(slots=True)
class Account:
    """One tenant's side of the ledger, by job id. The sums are kept, so a check costs the same at any size."""

    limit: Amounts
    bookings: dict[str, Booking] = field(default_factory=dict)
    reservations: dict[str, Amounts] = field(default_factory=dict)
    used: Amounts = NOTHING
    reserved: Amounts = NOTHING
    terminating: Amounts = NOTHING

    def holders(self, names: Iterable[str]) -> list[str]:
        """The jobs that hold or have reserved some of these: fields of a request, as violations name them."""
        fields_of = [name for name, path in _PATHS.items() if path in names]
        held = [*((job_id, booking.amounts) for job_id, booking in self.bookings.items()), *self.reservations.items()]
        found = (job_id for job_id, amounts in held if any(getattr(amounts, name) for name in fields_of))
        return list(dict.fromkeys(found))


class Ledger:
    """The accounts of all tenants of the policy. One thread only; no method waits."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self.accounts: dict[str, Account] = {
            tenant: Account(Amounts(quota.gpu, quota.cpu, quota.memory, quota.jobs)) for tenant, quota in quotas.items()
        }

    def reserve(self, tenant: str, job_id: str, request: Amounts) -> None:
        """Reserve what a job asks for, or raise QuotaExceeded with every resource that does not fit.

        A job that is reserved already, by a create whose outcome is not yet known, keeps its reservation.
        """
        account = self.accounts[tenant]
        if job_id in account.reservations:
            return
        violations = _violations(account, request)
        if violations:
            holders = account.holders([violation.field for violation in violations])
            raise QuotaExceeded(
                f"tenant {tenant} would pass its quota of {', '.join(v.field for v in violations)}",
                violations=violations,
                extra={
                    "quota": {
                        "limit": account.limit.to_json(),
                        "used": account.used.to_json(),
                        "reserved": account.reserved.to_json(),
                        "requested": request.to_json(),
                    },
                    "held_by": holders[:50],
                    "held_by_count": len(holders),
                },
            )
        account.reservations[job_id] = request
        account.reserved += request

    def release(self, tenant: str, job_id: str) -> None:
        """End a reservation of a job that certainly does not exist. Ending none is no error."""
        account = self.accounts[tenant]
        account.reserved -= account.reservations.pop(job_id, NOTHING)

    def book(self, tenant: str, job_id: str, booking: Booking | None) -> None:
        """Take in what a job is observed to hold; None when it holds nothing any more.

        An observed booking takes the place of the job's reservation, in one step. That a job holds nothing says nothing
        of a create in flight under the same name, so it ends no reservation.
        """
        account = self.accounts[tenant]
        before = account.bookings.pop(job_id, None) or Booking(NOTHING)
        after = booking or Booking(NOTHING)
        if booking is not None:
            account.bookings[job_id] = booking
            self.release(tenant, job_id)
        account.used = account.used - before.amounts + after.amounts
        account.terminating = account.terminating - before.terminating + after.terminating


def _violations(account: Account, request: Amounts) -> tuple[Violation, ...]:
    taken = account.used + account.reserved
    show: dict[str, Callable[[int], str]] = {"gpu": str, "cpu": format_cpu, "memory": format_bytes, "jobs": str}
    found = []
    for item in fields(Amounts):
        name = item.name
        asked, held, limit = getattr(request, name), getattr(taken, name), getattr(account.limit, name)
        if asked and held + asked > limit:
            free = max(0, limit - held)
            found.append(
                Violation(
                    _PATHS[name],
                    "quota_exceeded",
                    f"{show[name](held)} of {show[name](limit)} are used or reserved, {show[name](free)} free",
                    observed=show[name](asked),
                    limit=show[name](limit),
                    hint=_hint(asked, free, limit, show[name](free)),
                )
            )
    return tuple(found)


def _hint(asked: int, free: int, limit: int, shown: str) -> str:
    if asked > limit:
        return "this tenant's quota can never hold that much; ask a platform operator for more"
    if free:
        return f"ask for at most {shown} now, or wait until one of the jobs that hold it is over"
    return "wait until one of the jobs that hold it is over, or cancel one"
