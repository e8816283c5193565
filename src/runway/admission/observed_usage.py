"""Compute the quota usage under a job name from its Job and its pods. Pure.

- An unfinished Job counts with its resources.
- Every pod that is not terminal counts, whether or not its Job exists or Runway created it.
- A Job of Runway has one pod at a time (`podReplacementPolicy: Failed`), so the Job and its pod count once. If there
  are two pods, both count.
- A Job that was deleted unfinished counts until all its pods are known, because the pod watch can lag behind.
- A Job that needs one success counts no more once its pod has succeeded, a second before the Job controller says so.
  For the proof see docs/architecture.md, "When quota is released".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from runway.admission.quota import ObservedUsage
from runway.jobs.resources import ZERO, ResourceVector, requests_of
from runway.kube.objects import Job, Pod, PodSpec


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

    A terminating pod proves nothing: the controller may count it as failed although its process exited with 0. Nor does
    a pod with an undecodable field, because that field may say that the pod is terminating.
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
