"""The quota ledger: usage and reservations of every tenant against its limit.

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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from runway.errors import QuotaExceeded, Violation
from runway.jobs.resources import ZERO, ResourceVector, requests_of
from runway.kube.objects import Job, Pod, PodSpec
from runway.policy import Quota
from runway.quantity import format_bytes, format_cpu

_Entry = TypeVar("_Entry")

MAX_HOLDERS: Final = 50  # Jobs that a refusal names.

_RESOURCES: Final[Mapping[str, tuple[str, Callable[[int], str]]]] = {
    "gpu": ("resources.gpu", str),
    "cpu": ("resources.cpu", format_cpu),
    "memory": ("resources.memory", format_bytes),
    "jobs": ("jobs", str),
}
"""Each resource of the quota: its field in a specification, and the format of its amounts."""


class ObservedUsage(msgspec.Struct, frozen=True, gc=False):
    """The usage under one job name; of it `terminating` pods, and the current Job of this name (`own`)."""

    amounts: ResourceVector
    terminating: ResourceVector = ZERO
    own: ResourceVector = ZERO


_NO_USAGE: Final = ObservedUsage(ZERO)


@dataclass(slots=True)
class TenantQuota:
    """One tenant's limit, usage and reservations by job id, and their sums. `reserved` excludes what is observed."""

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

        A second create of the same name can only enlarge a reservation: Kubernetes may carry out either of the two.
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
        message = f"{show(used)} of {show(limit)} are used or reserved, {show(free)} free"
        hint = _hint(requested, free, limit, show(free))
        violations.append(Violation(path, "quota_exceeded", message, show(requested), show(limit), hint))
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


def observed_usage(job: Job | None, pods: Iterable[Pod], deleted: Iterable[Job] = ()) -> ObservedUsage | None:
    """Return the usage under this name; None without usage. Not all pods of the `deleted` Jobs may be known yet."""
    pods, deleted = list(pods), list(deleted)
    uid = None if job is None else job.metadata.uid
    live = [pod for pod in pods if not pod.is_terminal]
    if not live and not deleted and (job is None or _needs_no_more_pods(job, pods)):
        return None  # The common case in the first list.
    by_controller: dict[str | None, ResourceVector] = {}
    for pod in live:
        by_controller[pod.controller_uid] = by_controller.get(pod.controller_uid, ZERO) + _amounts(pod.spec)
    # Several pods of one Job are one job.
    by_job = {controller: replace(amounts, jobs=1) for controller, amounts in by_controller.items()}
    own = by_job.pop(uid, ZERO)
    current = own if job is None else own.maximum(_expected_usage(job, pods))
    # Earlier Jobs of the same name, which were deleted while a pod was running.
    earlier = sum((_expected_usage(old, pods).maximum(by_job.pop(old.metadata.uid, ZERO)) for old in deleted), ZERO)
    others = earlier + sum(by_job.values(), ZERO)
    terminating = sum((_amounts(pod.spec) for pod in live if pod.terminating), ZERO)
    if current + others == ZERO:
        return None
    return ObservedUsage(current + others, terminating, ZERO if job is None else current)


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


def _expected_usage(job: Job, pods: list[Pod]) -> ResourceVector:
    """Return the usage of pods that the Job controller may have created, but the watch has not reported."""
    return ZERO if _needs_no_more_pods(job, pods) else _amounts(job.spec.template.spec, _max_concurrent_pods(job))


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


def _amounts(spec: PodSpec, pods: int = 1) -> ResourceVector:
    requests = requests_of(spec)
    return ResourceVector(requests.gpu * pods, requests.cpu * pods, requests.memory * pods, jobs=1 if pods else 0)
