"""What is observed to be held under a name in a tenant's namespace: pure, from a Job and its pods.

A Job holds its amounts while it is unfinished; every pod that has not ended holds its own, whatever became of its Job,
and whoever made it. A Job of Runway's has one pod at a time (`podReplacementPolicy: Failed`), so an unfinished Job and
its pod are one holding; should there ever be two pods at once, both count. A Job that was deleted before it had
finished holds its amounts until all its pods are certainly known, since the watch of pods can be behind that of Jobs.

A Job that needs one success is done when a pod of it has succeeded, about a second before the Job controller says so.
That nothing can follow is proven in docs/architecture.md, "When quota is released".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from runway.admission.quota import ZERO, Amounts, ObservedUsage
from runway.jobs.resources import requests_of
from runway.kube.objects import Job, Pod, PodSpec


def observed_usage(job: Job | None, pods: Iterable[Pod], deleted: Iterable[Job] = ()) -> ObservedUsage | None:
    """What is held under this name; None when nothing is. `deleted` are Jobs whose pods may not all be known yet."""
    pods, deleted = list(pods), list(deleted)
    uid = None if job is None else job.metadata.uid
    live = [pod for pod in pods if not pod.is_terminal]
    if not live and not deleted and (job is None or _needs_no_more_pods(job, pods)):
        return None  # By far the most of what is listed at a start.
    held: dict[str | None, Amounts] = {}
    for pod in live:
        held[pod.controller_uid] = held.get(pod.controller_uid, ZERO) + _amounts(pod.spec)
    # Several pods of one Job are one job all the same.
    by_job = {controller: replace(amounts, jobs=1) for controller, amounts in held.items()}
    own = by_job.pop(uid, ZERO)
    standing = own if job is None else own.maximum(_expected_usage(job, pods))
    # An earlier Job of the same name: deleted while its pod still runs, and submitted again.
    earlier = sum((_expected_usage(gone, pods).maximum(by_job.pop(gone.metadata.uid, ZERO)) for gone in deleted), ZERO)
    others = earlier + sum(by_job.values(), ZERO)
    terminating = sum((_amounts(pod.spec) for pod in live if pod.terminating), ZERO)
    if standing + others == ZERO:
        return None
    return ObservedUsage(standing + others, terminating, ZERO if job is None else standing)


def finished_at(job: Job, pods: Iterable[Pod]) -> datetime | None:
    """When the last of what a Job held has ended, as Kubernetes dates it, to the second; None where it does not say.

    The end of the container whose success releases it; else the Job's verdict, or a container that ended later.
    """
    pods = [pod for pod in pods if pod.controller_uid == job.metadata.uid]
    success = [pod for pod in pods if pod_succeeded(job, pod)]
    ends = [ended.finished_at for pod in success or pods if (ended := pod.container.terminated)]
    if not success and (verdict := job.condition("Failed") or job.condition("Complete")):
        ends.append(verdict.last_transition_time)
    return max((end for end in ends if end), default=None)


def _expected_usage(job: Job, pods: list[Pod]) -> Amounts:
    """What pods of a Job may hold that are not known yet."""
    return ZERO if _needs_no_more_pods(job, pods) else _amounts(job.spec.template.spec, _max_concurrent_pods(job))


def _needs_no_more_pods(job: Job, pods: list[Pod]) -> bool:
    if job.finished:
        return True
    return _max_concurrent_pods(job) <= 1 and job.spec.completions == 1 and any(pod_succeeded(job, pod) for pod in pods)


def pod_succeeded(job: Job, pod: Pod) -> bool:
    """Whether the Job controller must count this pod as the Job's success.

    A terminating pod may be counted as failed though its process ended with 0, so it proves nothing. Nor does a pod of
    which a part cannot be read: that part may say that it is terminating.
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


def _amounts(spec: PodSpec, pods: int = 1) -> Amounts:
    held = requests_of(spec)
    return Amounts(held.gpu * pods, held.cpu * pods, held.memory * pods, 1 if pods else 0)
