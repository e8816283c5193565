"""The quota ledger: what every tenant holds, and whether it may hold more.

A tenant's use is what its jobs are booked for, as observed in Kubernetes, plus the reservations of creates in flight.
`reserve` checks and reserves in one step, without an `await` in between, so two submissions can never both see the same
free GPU. A reservation ends (`release`) once the outcome of its creates is known. Until then what is observed of a Job
under its name (`book`) is part of it, so a create whose Job the watch tells of first is not counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from runway.errors import QuotaExceeded, Violation
from runway.jobs.spec import Resources
from runway.policy import Quota
from runway.quantity import format_bytes, format_cpu


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """Whole GPUs, milli-CPU, bytes of memory and jobs.

    Ten of these are made for each change of a job, and a Struct is made in a tenth of a frozen dataclass' time.
    """

    gpu: int = 0
    cpu: int = 0
    memory: int = 0
    jobs: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.gpu + other.gpu, self.cpu + other.cpu, self.memory + other.memory, self.jobs + other.jobs)

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(self.gpu - other.gpu, self.cpu - other.cpu, self.memory - other.memory, self.jobs - other.jobs)

    def maximum(self, other: Amounts) -> Amounts:
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


ZERO = Amounts()

_Entry = TypeVar("_Entry")

_PATHS: Final = {"gpu": "resources.gpu", "cpu": "resources.cpu", "memory": "resources.memory", "jobs": "jobs"}
"""What each amount is called in a job's specification."""


def amounts_of(resources: Resources) -> Amounts:
    """What one job with these resources holds: it runs in one pod at a time."""
    return Amounts(resources.gpu, resources.cpu, resources.memory, 1)


class ObservedUsage(msgspec.Struct, frozen=True, gc=False):
    """What is held under one name, and how much of it only for pods that were told to end and have not.

    `own` is the part of the Job that has the name now. The rest is held by pods of others, of an earlier Job of this
    name perhaps: it says nothing of a create in flight.
    """

    amounts: Amounts
    terminating: Amounts = ZERO
    own: Amounts = ZERO


_NO_USAGE: Final = ObservedUsage(ZERO)


@dataclass(slots=True)
class TenantQuota:
    """One tenant's side of the ledger, by job id. The sums are kept, so a check costs the same at any size.

    `reserved` is what the reservations hold beyond what is booked for the same Jobs.
    """

    limit: Amounts
    bookings: dict[str, ObservedUsage] = field(default_factory=dict)
    reservations: dict[str, Amounts] = field(default_factory=dict)
    used: Amounts = ZERO
    reserved: Amounts = ZERO
    terminating: Amounts = ZERO

    def unobserved_reservation(self, job_id: str) -> Amounts:
        """What a reservation holds that is not booked already: one name is one Job at a time."""
        reservation = self.reservations.get(job_id)
        if reservation is None:
            return ZERO
        own = self.bookings.get(job_id, _NO_USAGE).own
        return reservation.maximum(own) - own

    def holders(self, names: Iterable[str]) -> list[str]:
        """The jobs that hold or have reserved some of these: fields of a request, as violations name them."""
        fields_of = [name for name, path in _PATHS.items() if path in names]
        held = [*((job_id, booking.amounts) for job_id, booking in self.bookings.items()), *self.reservations.items()]
        found = (job_id for job_id, amounts in held if any(getattr(amounts, name) for name in fields_of))
        return list(dict.fromkeys(found))


class Ledger:
    """The accounts of all tenants of the policy. One thread only; no method waits."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self.accounts: dict[str, TenantQuota] = {
            tenant: TenantQuota(Amounts(quota.gpu, quota.cpu, quota.memory, quota.jobs))
            for tenant, quota in quotas.items()
        }

    def reserve(self, tenant: str, job_id: str, request: Amounts) -> None:
        """Reserve what a job asks for, or raise QuotaExceeded with every resource that does not fit.

        A job that is reserved already, by a create whose outcome is not yet known, keeps its reservation. It grows
        where this create asks for more: either of the two may be the one that Kubernetes carries out. Whether it fits
        is asked again: pods of a Job that the first create made, and that was deleted, may hold their part by now.
        """
        account = self.accounts[tenant]
        reservation = account.reservations.get(job_id, ZERO).maximum(request)
        taken = account.used + account.reserved - account.unobserved_reservation(job_id)
        violations = _violations(account.limit, taken, request, reservation)
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
        self._set(account, job_id, account.bookings.get(job_id), reservation)

    def release(self, tenant: str, job_id: str) -> None:
        """End a reservation: the outcome of its creates is known. Ending none is no error."""
        account = self.accounts[tenant]
        self._set(account, job_id, account.bookings.get(job_id), None)

    def set_observed(self, tenant: str, job_id: str, booking: ObservedUsage | None) -> None:
        """Take in what is observed to be held under a name; None when nothing is any more. It ends no reservation."""
        account = self.accounts[tenant]
        if booking is not None or job_id in account.bookings:
            self._set(account, job_id, booking, account.reservations.get(job_id))

    def observed(self, tenant: str, job_id: str) -> Amounts:
        """What is booked under a name now; reservations are not part of it."""
        return self.accounts[tenant].bookings.get(job_id, _NO_USAGE).amounts

    def _set(
        self, account: TenantQuota, job_id: str, booking: ObservedUsage | None, reservation: Amounts | None
    ) -> None:
        """The entries of a name as they are from now on, and the sums with them, in one step."""
        before, beyond = account.bookings.get(job_id, _NO_USAGE), account.unobserved_reservation(job_id)
        after = booking or _NO_USAGE
        _set_or_delete(account.bookings, job_id, booking)
        _set_or_delete(account.reservations, job_id, reservation)
        account.used = account.used - before.amounts + after.amounts
        account.terminating = account.terminating - before.terminating + after.terminating
        account.reserved = account.reserved - beyond + account.unobserved_reservation(job_id)


def _set_or_delete(entries: dict[str, _Entry], job_id: str, entry: _Entry | None) -> None:
    if entry is None:
        entries.pop(job_id, None)
    else:
        entries[job_id] = entry


def _violations(limits: Amounts, taken: Amounts, request: Amounts, reservation: Amounts) -> tuple[Violation, ...]:
    """Where a reservation does not fit beside what others have taken, as far as this request is concerned."""
    show: dict[str, Callable[[int], str]] = {"gpu": str, "cpu": format_cpu, "memory": format_bytes, "jobs": str}
    found = []
    for name in Amounts.__struct_fields__:
        asked, held, limit = getattr(request, name), getattr(taken, name), getattr(limits, name)
        if asked and held + getattr(reservation, name) > limit:
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
