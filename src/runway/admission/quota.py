"""The quota ledger: usage and reservations of every tenant against its limit.

- The watch sets the observed usage of each job. A reservation covers a create in flight.
- `reserve` checks and reserves without an `await` in between, so no two submissions get the same free GPU.
- `release` ends a reservation once the result of its creates is known.
- Until then the observed usage of the same Job counts as part of the reservation, so nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from runway.errors import QuotaExceeded, Violation
from runway.jobs.resources import ZERO, ResourceVector
from runway.policy import Quota
from runway.quantity import format_bytes, format_cpu

_Entry = TypeVar("_Entry")

MAX_HOLDERS: Final = 50
"""Jobs that a refusal names."""


_RESOURCES: Final[Mapping[str, tuple[str, Callable[[int], str]]]] = {
    "gpu": ("resources.gpu", str),
    "cpu": ("resources.cpu", format_cpu),
    "memory": ("resources.memory", format_bytes),
    "jobs": ("jobs", str),
}
"""Each resource of the quota: its field in a specification, and the format of its amounts."""


class ObservedUsage(msgspec.Struct, frozen=True, gc=False):
    """The usage under one job name, and the part of terminating pods only.

    `own` is the part of the current Job of this name. The rest is that of other pods, such as those of an earlier Job
    of this name; it is no evidence of a create in flight.
    """

    amounts: ResourceVector
    terminating: ResourceVector = ZERO
    own: ResourceVector = ZERO


_NO_USAGE: Final = ObservedUsage(ZERO)


@dataclass(slots=True)
class TenantQuota:
    """One tenant's limit, usage and reservations by job id. The sums are stored, so a check costs the same at any size.

    `reserved` is the part of the reservations that is not observed for the same Jobs.
    """

    limit: ResourceVector
    observed: dict[str, ObservedUsage] = field(default_factory=dict)
    reservations: dict[str, ResourceVector] = field(default_factory=dict)
    used: ResourceVector = ZERO
    reserved: ResourceVector = ZERO
    terminating: ResourceVector = ZERO

    def to_json(self) -> dict[str, object]:
        """Return the sums as Kubernetes quantities."""
        return {"limit": self.limit.to_json(), "used": self.used.to_json(), "reserved": self.reserved.to_json()}

    def unobserved_reservation(self, job_id: str) -> ResourceVector:
        """Return the part of a reservation that the Job's observed usage does not cover: one name is one Job."""
        reservation = self.reservations.get(job_id)
        if reservation is None:
            return ZERO
        own = self.observed.get(job_id, _NO_USAGE).own
        return reservation.maximum(own) - own

    def holders(self, names: Iterable[str]) -> list[str]:
        """Return the jobs that use or reserve some of these resources."""
        entries = [*((job_id, usage.amounts) for job_id, usage in self.observed.items()), *self.reservations.items()]
        found = (job_id for job_id, amounts in entries if any(getattr(amounts, name) for name in names))
        return list(dict.fromkeys(found))


class Ledger:
    """The quotas of all tenants of the policy. One thread only; no method waits."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self.accounts: dict[str, TenantQuota] = {
            tenant: TenantQuota(ResourceVector(quota.gpu, quota.cpu, quota.memory, quota.jobs))
            for tenant, quota in quotas.items()
        }

    def reserve(self, tenant: str, job_id: str, request: ResourceVector) -> None:
        """Reserve the resources of a job, or raise QuotaExceeded with every resource that does not fit.

        An ambiguous create keeps its reservation. A second create of the same name can only enlarge it, because
        Kubernetes may carry out either of the two. The check is repeated: pods of a Job that the first create made
        and that was deleted since may use the quota by now.
        """
        account = self.accounts[tenant]
        reservation = account.reservations.get(job_id, ZERO).maximum(request)
        taken = account.used + account.reserved - account.unobserved_reservation(job_id)
        limit, needed = account.limit, taken + reservation
        exceeded = [
            name for name in _RESOURCES if getattr(request, name) and getattr(needed, name) > getattr(limit, name)
        ]
        if exceeded:
            raise _quota_exceeded(tenant, account, exceeded, taken, request)
        self._set(account, job_id, account.observed.get(job_id), reservation)

    def release(self, tenant: str, job_id: str) -> None:
        """End a reservation, if there is one: the result of its creates is known."""
        account = self.accounts[tenant]
        self._set(account, job_id, account.observed.get(job_id), None)

    def set_observed(self, tenant: str, job_id: str, usage: ObservedUsage | None) -> None:
        """Set the observed usage under a name, None for no usage. Leaves a reservation as it is."""
        account = self.accounts[tenant]
        if usage is not None or job_id in account.observed:
            self._set(account, job_id, usage, account.reservations.get(job_id))

    def observed(self, tenant: str, job_id: str) -> ResourceVector:
        """Return the observed usage under a name, without reservations."""
        return self.accounts[tenant].observed.get(job_id, _NO_USAGE).amounts

    def _set(
        self, account: TenantQuota, job_id: str, usage: ObservedUsage | None, reservation: ResourceVector | None
    ) -> None:
        """Set both entries of a name, and update the sums."""
        before, unobserved = account.observed.get(job_id, _NO_USAGE), account.unobserved_reservation(job_id)
        after = usage or _NO_USAGE
        _set_or_delete(account.observed, job_id, usage)
        _set_or_delete(account.reservations, job_id, reservation)
        account.used = account.used - before.amounts + after.amounts
        account.terminating = account.terminating - before.terminating + after.terminating
        account.reserved = account.reserved - unobserved + account.unobserved_reservation(job_id)


def _set_or_delete(entries: dict[str, _Entry], job_id: str, entry: _Entry | None) -> None:
    if entry is None:
        entries.pop(job_id, None)
    else:
        entries[job_id] = entry


def _quota_exceeded(
    tenant: str, account: TenantQuota, exceeded: list[str], taken: ResourceVector, request: ResourceVector
) -> QuotaExceeded:
    violations = []
    for name in exceeded:
        path, show = _RESOURCES[name]
        requested, used, limit = getattr(request, name), getattr(taken, name), getattr(account.limit, name)
        free = max(0, limit - used)
        violations.append(
            Violation(
                path,
                "quota_exceeded",
                f"{show(used)} of {show(limit)} are used or reserved, {show(free)} free",
                observed=show(requested),
                limit=show(limit),
                hint=_hint(requested, free, limit, show(free)),
            )
        )
    holders = account.holders(exceeded)
    return QuotaExceeded(
        f"tenant {tenant} would exceed its quota of {', '.join(violation.field for violation in violations)}",
        violations=tuple(violations),
        extra={
            "quota": {**account.to_json(), "requested": request.to_json()},
            "held_by": holders[:MAX_HOLDERS],
            "held_by_count": len(holders),
        },
    )


def _hint(requested: int, free: int, limit: int, shown: str) -> str:
    if requested > limit:
        return "this exceeds the tenant's whole quota; ask a platform operator to raise it"
    if free:
        return f"ask for at most {shown} now, or wait until a job that uses it finishes"
    return "wait until a job that uses it finishes, or cancel one"
