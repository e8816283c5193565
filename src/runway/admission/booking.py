"""What a job is observed to hold: pure, from the Job and its pods.

A Job holds its amounts while it is unfinished; every pod that has not ended holds its own, whatever became of its
Job. A Job's pods run one at a time (`podReplacementPolicy: Failed`), so an unfinished Job and its pod are one holding;
should there ever be two pods at once, both count.
"""

from __future__ import annotations

from collections.abc import Iterable

from runway.admission.quota import NOTHING, Amounts, Booking
from runway.jobs.manifest import GPU_RESOURCE
from runway.objects import Job, Pod, PodSpec
from runway.quantity import ceil_units


def booking_of(job: Job | None, pods: Iterable[Pod]) -> Booking | None:
    """What is held under a job's name; None when nothing is."""
    live = [pod for pod in pods if not pod.ended]
    uid = None if job is None else job.metadata.uid
    own = sum((_amounts(pod.spec) for pod in live if pod.controller_uid == uid), NOTHING)
    # Pods of an earlier Job of the same name: deleted while its pod still runs, and submitted again.
    others = sum((_amounts(pod.spec) for pod in live if pod.controller_uid != uid), NOTHING)
    unfinished = NOTHING if job is None or job.finished else _amounts(job.spec.template.spec)
    amounts = unfinished.union(own) + others
    terminating = sum((_amounts(pod.spec) for pod in live if pod.terminating), NOTHING)
    return None if amounts == NOTHING else Booking(amounts, terminating)


def _amounts(spec: PodSpec) -> Amounts:
    limits = [container.resources.limits for container in spec.containers or ()]
    return Amounts(
        gpu=sum(ceil_units(limit.get(GPU_RESOURCE, "0")) for limit in limits),
        cpu=sum(ceil_units(limit.get("cpu", "0"), 1000) for limit in limits),
        memory=sum(ceil_units(limit.get("memory", "0")) for limit in limits),
        jobs=1,
    )
