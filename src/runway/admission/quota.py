"""The quota ledger: usage and reservations of every tenant against its limits.

A limit is a row: an amount of the resource vector and its maximum. A row without a maximum is not limited. The maximum
of a budget is what finished jobs have left of it; the amount is the cost ceilings of the others.

- The watch sets the observed usage of each job. A reservation covers a create in flight.
- `reserve` checks and reserves without an `await` in between, so no two submissions get the same free GPU.
- `release` ends a reservation once the result of its creates is known.
- Until then the observed usage of the same Job counts as part of the reservation, so nothing counts twice.

`observed_usage` computes the usage under a job name:

- An unfinished Job counts, and so does every pod that is not terminal, whether or not its Job exists.
- A Job of Runway has one pod at a time (`podReplacementPolicy: Failed`), so the Job and its pod count once.
- A Job that was deleted unfinished counts until all its pods are known, because the pod watch can lag behind.
- A Job that needs one success counts no more once its pod has succeeded: see docs/architecture.md, "When quota is
  released".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter, methodcaller
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from runway.admission.budget import BudgetAccount
from runway.errors import QuotaExceeded, Violation
from runway.jobs.annotations import Price, price_of
from runway.jobs.cost import Charge
from runway.jobs.pools import Pools, pod_amounts
from runway.jobs.record import finish_second
from runway.jobs.resources import ZERO, ResourceVector
from runway.kube.objects import Job, Pod
from runway.policy import Budget, Quota
from runway.quantity import MICRO, format_bytes, format_cpu, format_usd

_Entry = TypeVar("_Entry")

MAX_HOLDERS: Final = 50  # Jobs that a refusal names.
NO_POOLS: Final[Pools] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Row:
    """An amount of the resource vector that a quota can limit."""

    name: str
    field: str
    """The field of a specification that a violation names."""
    amount: Callable[[ResourceVector], int]
    to_json: Callable[[int], int | str] = int
    per_unit: int = 1
    """Amounts in one unit of the metrics."""
    unit: str = ""
    """The unit of amounts in messages."""
    gpu_type: str | None = None

    def show(self, amount: int) -> str:
        return str(self.to_json(amount))


ROWS: Final = (
    Row("gpu", "resources.gpu", attrgetter("gpu")),
    Row("cpu", "resources.cpu", attrgetter("cpu"), format_cpu, per_unit=1000),
    Row("memory", "resources.memory", attrgetter("memory"), format_bytes),
    Row("disk", "resources.disk", attrgetter("disk"), format_bytes),
    Row("jobs", "jobs", attrgetter("jobs")),
    Row("usd_per_hour", "usd_per_hour", attrgetter("usd_per_hour"), format_usd, MICRO, " USD an hour"),
)
"""The rows of every tenant, whether limited or not."""
BUDGET: Final = Row("budget", "budget", attrgetter("ceiling"), format_usd, MICRO, " USD")


def _gpu_type_row(name: str) -> Row:
    amount = methodcaller("gpus_of", name)
    return Row(f"gpu_types.{name}", "resources.gpu", amount, unit=f" {name}", gpu_type=name)


class ObservedUsage(msgspec.Struct, frozen=True, gc=False):
    """The usage under one job name; of it `terminating` pods, and the current Job of this name (`own`)."""

    amounts: ResourceVector
    terminating: ResourceVector = ZERO
    own: ResourceVector = ZERO


_NO_USAGE: Final = ObservedUsage(ZERO)


@dataclass(slots=True)
class TenantQuota:
    """One tenant's limits, usage and reservations by job id, and their sums. `reserved` excludes what is observed."""

    limits: Mapping[Row, int]
    """The limited rows, in the order of a refusal, without the budget."""
    budget: BudgetAccount | None = None
    observed: dict[str, ObservedUsage] = field(default_factory=dict)
    reservations: dict[str, ResourceVector] = field(default_factory=dict)
    used: ResourceVector = ZERO
    reserved: ResourceVector = ZERO
    terminating: ResourceVector = ZERO

    def limits_at(self, now: datetime) -> Mapping[Row, int]:
        """Return the limited rows; that of the budget is what finished jobs have left of it."""
        if self.budget is None:
            return self.limits
        return {**self.limits, BUDGET: self.budget.limit - self.budget.spent(now)}

    def to_json(self, now: datetime) -> dict[str, object]:
        """Return the sums as Kubernetes quantities and USD; an unlimited row has the limit None."""
        return {
            "limit": self.limit_to_json(),
            "used": self.used.to_json(),
            "reserved": self.reserved.to_json(),
            "budget": self.budget_to_json(now),
        }

    def budget_to_json(self, now: datetime) -> dict[str, object] | None:
        """Return the parts of the budget in USD; None without a budget."""
        return self.budget.to_json(self.used.ceiling, self.reserved.ceiling, now) if self.budget is not None else None

    def limit_to_json(self) -> dict[str, object]:
        limits = {row.name: row.to_json(limit) for row, limit in self.limits.items()}
        return {
            **{row.name: limits.get(row.name) for row in ROWS},
            "gpu_types": {row.gpu_type: limit for row, limit in self.limits.items() if row.gpu_type},
        }

    def unobserved_reservation(self, job_id: str) -> ResourceVector:
        """Return the part of a reservation that the Job's observed usage does not cover: one name is one Job."""
        reservation = self.reservations.get(job_id)
        if reservation is None:
            return ZERO
        own = self.observed.get(job_id, _NO_USAGE).own
        if own == reservation:
            return ZERO
        return reservation if own is ZERO else reservation.maximum(own) - own

    def users(self) -> Iterator[tuple[str, ObservedUsage]]:
        """Yield the jobs that use resources; others only wait for Kubernetes to finish them."""
        return ((job_id, usage) for job_id, usage in self.observed.items() if usage.amounts.jobs)

    def holders(self, rows: Iterable[Row]) -> list[str]:
        """Return the jobs that use or reserve some of these amounts."""
        entries = [*((job_id, usage.amounts) for job_id, usage in self.observed.items()), *self.reservations.items()]
        return list(dict.fromkeys(job_id for row in rows for job_id, amounts in entries if row.amount(amounts)))


class Ledger:
    """The quotas of all tenants of the policy. One thread only; no method waits."""

    def __init__(self, quotas: Mapping[str, Quota], budgets: Mapping[str, Budget] = MappingProxyType({})) -> None:
        self.accounts = {tenant: TenantQuota(limits_of(quota)) for tenant, quota in quotas.items()}
        for tenant, budget in budgets.items():
            self.accounts[tenant].budget = BudgetAccount(budget)

    def reserve(self, tenant: str, job_id: str, request: ResourceVector, now: datetime) -> None:
        """Reserve the amounts of a job, or raise QuotaExceeded with every row that does not fit.

        A second create of the same name can only enlarge a reservation: Kubernetes may carry out either of the two.
        """
        account = self.accounts[tenant]
        earlier = account.reservations.get(job_id)
        reservation = request if earlier is None else earlier.maximum(request)
        taken = account.used + account.reserved - account.unobserved_reservation(job_id)
        needed = taken + reservation
        limits = account.limits_at(now).items()
        exceeded = [row for row, limit in limits if row.amount(request) and row.amount(needed) > limit]
        if exceeded:
            raise _quota_exceeded(tenant, account, exceeded, taken, request, now)
        self._set(account, job_id, account.observed.get(job_id), reservation)

    def release(self, tenant: str, job_id: str) -> None:
        """End a reservation, if there is one: the result of its creates is known."""
        account = self.accounts[tenant]
        self._set(account, job_id, account.observed.get(job_id), None)

    def set_observed(self, tenant: str, job_id: str, usage: ObservedUsage | None, charge: Charge | None = None) -> None:
        """Set the observed usage under a name, None for no usage, and the charge of a finished job.

        Leaves a reservation as it is.
        """
        account = self.accounts[tenant]
        if account.budget is not None:
            account.budget.put(job_id, charge)
        if usage is not None or job_id in account.observed:
            self._set(account, job_id, usage, account.reservations.get(job_id))

    def observed(self, tenant: str, job_id: str) -> ResourceVector:
        """Return the observed usage under a name, without reservations."""
        return self.accounts[tenant].observed.get(job_id, _NO_USAGE).amounts

    def _set(
        self, account: TenantQuota, job_id: str, usage: ObservedUsage | None, reservation: ResourceVector | None
    ) -> None:
        before, unobserved = account.observed.get(job_id, _NO_USAGE), account.unobserved_reservation(job_id)
        after = usage or _NO_USAGE
        _set_or_delete(account.observed, job_id, usage)
        _set_or_delete(account.reservations, job_id, reservation)
        if after is not before:
            account.used = account.used - before.amounts + after.amounts
        if after.terminating is not before.terminating:
            account.terminating = account.terminating - before.terminating + after.terminating
        if unobserved is not ZERO or reservation is not None:
            account.reserved = account.reserved - unobserved + account.unobserved_reservation(job_id)


def _set_or_delete(entries: dict[str, _Entry], job_id: str, entry: _Entry | None) -> None:
    if entry is None:
        entries.pop(job_id, None)
    else:
        entries[job_id] = entry


def limits_of(quota: Quota) -> dict[Row, int]:
    """Return the rows that the quota limits."""
    limits = {row: getattr(quota, row.name) for row in ROWS}
    limits |= {_gpu_type_row(name): limit for name, limit in quota.gpu_types.items()}
    return {row: limit for row, limit in limits.items() if limit is not None}


def _quota_exceeded(
    tenant: str,
    account: TenantQuota,
    exceeded: list[Row],
    taken: ResourceVector,
    request: ResourceVector,
    now: datetime,
) -> QuotaExceeded:
    violations = [_violation(account, row, taken, request) for row in exceeded if row is not BUDGET]
    quota = account.to_json(now) | {"requested": request.to_json()}
    if account.budget is not None and BUDGET in exceeded:
        available = account.budget.available_at(taken.ceiling + request.ceiling, now)
        violations.append(account.budget.violation(taken.ceiling, request.ceiling, available, now))
        quota["budget"] = (account.budget_to_json(now) or {}) | {"available_at": available}
    holders = account.holders(exceeded)
    names = (f"{row.field} of type {row.gpu_type}" if row.gpu_type else row.field for row in exceeded)
    return QuotaExceeded(
        f"tenant {tenant} would exceed its quota of {', '.join(names)}",
        violations=tuple(violations),
        extra={
            "quota": quota,
            "held_by": holders[:MAX_HOLDERS],
            "held_by_count": len(holders),
        },
    )


def _violation(account: TenantQuota, row: Row, taken: ResourceVector, request: ResourceVector) -> Violation:
    requested, used, limit, show = row.amount(request), row.amount(taken), account.limits[row], row.show
    free = max(0, limit - used)
    message = f"{show(used)} of {show(limit)}{row.unit} are used or reserved, {show(free)} free"
    if not limit and not used:
        message = f"the tenant's quota is 0{row.unit}"
    hint = _hint(requested, free, limit, show(free))
    return Violation(row.field, "quota_exceeded", message, show(requested), show(limit), hint)


def _hint(requested: int, free: int, limit: int, shown: str) -> str:
    if requested > limit:
        return "this exceeds the tenant's whole quota; ask a platform operator to raise it"
    if free:
        return f"ask for at most {shown} now, or wait until a job that uses it finishes"
    return "wait until a job that uses it finishes, or cancel one"


def observed_usage(
    job: Job | None, pods: Iterable[Pod], deleted: Iterable[Job] = (), pools: Pools = NO_POOLS
) -> ObservedUsage | None:
    """Return the usage under this name; None without usage. Not all pods of the `deleted` Jobs may be known yet.

    A Job of Runway has its price at admission. Other Jobs and pods have the price of their pool among `pools`.
    """
    pods, deleted = list(pods), list(deleted)
    uid = None if job is None else job.metadata.uid
    live = [pod for pod in pods if not pod.is_terminal]
    is_finished = job is not None and finish_second(job) is not None
    if not live and not deleted and (job is None or is_finished):
        return None  # The common case in the first list.
    prices = {known.metadata.uid: price_of(known) for known in ([job] if job else []) + deleted}
    by_controller: dict[str | None, ResourceVector] = {}
    ending = ZERO
    for pod in live:
        owner = pod.controller_uid
        amounts = pod_amounts(pod.spec, pod.metadata.labels, prices.get(owner or ""), pools)
        by_controller[owner] = by_controller[owner] + amounts if owner in by_controller else amounts
        ending += amounts if pod.terminating else ZERO
    # Several pods of one Job are one job.
    by_job = {
        controller: amounts if amounts.jobs == 1 else replace(amounts, jobs=1)
        for controller, amounts in by_controller.items()
    }
    own = by_job.pop(uid, ZERO)
    if job is not None:
        price = prices[job.metadata.uid]
        ceiling = price.ceiling if price is not None and not is_finished else 0
        expected = _expected_usage(job, pods, price, pools)
        own = replace(expected if own is ZERO else own.maximum(expected), ceiling=ceiling)
    # Earlier Jobs of the same name, which were deleted while a pod was running.
    earlier = sum(
        (
            _expected_usage(old, pods, prices[old.metadata.uid], pools).maximum(by_job.pop(old.metadata.uid, ZERO))
            for old in deleted
        ),
        ZERO,
    )
    amounts = sum(by_job.values(), own + earlier) if by_job or deleted else own
    return None if amounts == ZERO else ObservedUsage(amounts, ending, ZERO if job is None else own)


def finished_at(job: Job, pods: Iterable[Pod]) -> datetime | None:
    """Return when the usage of a Job ended, to the second; None if Kubernetes has no time.

    This is the end of the container whose success releases it; else the Job's condition, or a later container's end.
    """
    pods = [pod for pod in pods if pod.controller_uid == job.metadata.uid]
    success = [pod for pod in pods if pod_succeeded(job, pod)]
    ends = [ended.finished_at for pod in success or pods if (ended := pod.container.terminated)]
    if not success and (condition := job.condition("Failed") or job.condition("Complete")):
        ends.append(condition.last_transition_time)
    return max((end for end in ends if end), default=None)


def _expected_usage(job: Job, pods: list[Pod], price: Price | None, pools: Pools) -> ResourceVector:
    """Return the usage of pods that the Job controller may have created, but the watch has not reported."""
    number = 0 if _needs_no_more_pods(job, pods) else _max_concurrent_pods(job)
    if not number:
        return ZERO
    one = pod_amounts(job.spec.template.spec, job.metadata.labels, price, pools)
    return one if number == 1 else replace(one.times(number), jobs=1)


def _needs_no_more_pods(job: Job, pods: list[Pod]) -> bool:
    if job.finished:
        return True
    return _max_concurrent_pods(job) <= 1 and job.spec.completions == 1 and any(pod_succeeded(job, pod) for pod in pods)


def pod_succeeded(job: Job, pod: Pod) -> bool:
    """Return whether the Job controller must count this pod as the Job's success.

    The controller may count a terminating pod as failed although its process exited with 0. An undecodable field may
    say that the pod is terminating.
    """
    disrupted = pod.condition("DisruptionTarget")
    return (
        pod.status.phase == "Succeeded"
        and not pod.metadata.unreadable
        and pod.metadata.deletion_timestamp is None
        and (disrupted is None or disrupted.status != "True")
        and pod.controller_uid == job.metadata.uid
    )


def _max_concurrent_pods(job: Job) -> int:
    if job.spec.suspend:
        return 0
    return 1 if job.spec.parallelism is None else job.spec.parallelism
