"""Cancel: ask Kubernetes to end a job, and leave its record. Read it top to bottom.

The Job is not deleted, since deleting it would erase its history: it is marked as cancelled and its deadline is set to
zero, in one patch. The Job controller then deletes its pod, which gives the process SIGTERM, the grace period and
SIGKILL, and fails the Job; the time to live removes it later, as it does every finished Job.
https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup

- The deadline counts from the Job's start time, which the Job controller sets when it first syncs the Job. A deadline
  of zero has passed by then, so the controller creates no pod for a Job that it first sees cancelled. A deadline of one
  second would let the pod run for that second.
- The controller acts on its watch cache, which can lag behind the API server. It may sync a new Job before the cache
  holds the cancel, and create the pod. It deletes that pod once the cache holds the cancel.
- A suspended Job has no start time and no deadline, so the same patch resumes it, and it ends at once.
  https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/controller/job/job_controller.go (syncJob)
- The patch names the version of the Job that was looked at. So the mark is never put on a Job which Kubernetes has
  given its verdict on: what failed or succeeded by itself is not called cancelled, and of two cancels at once one does
  it all.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from runway.admission.observed_usage import pod_succeeded
from runway.controllers.leadership import Leadership
from runway.controllers.sync import Observer
from runway.errors import (
    AmbiguousOutcome,
    ClusterError,
    JobNotFound,
    KubernetesUnavailable,
    NotFound,
    ObjectExists,
    OutcomeUnknown,
)
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.jobs.view import JobView
from runway.kube.client import KubeClient
from runway.kube.objects import Job
from runway.state.job_store import JobKey

log = structlog.get_logger()

MAX_ATTEMPTS: Final = 5
"""How often a Job is looked at again that changes while it is being cancelled: its controller writes its status."""


async def cancel(
    kubernetes: KubeClient, observer: Observer, writer: Leadership, key: JobKey, now: Callable[[], datetime]
) -> JobView:
    """Cancel a job; one that is over, is ending by itself or is being cancelled already is left as it is.

    Raises JobNotFound, NotReady, NotLeader, KubernetesUnavailable, TooBusy, or OutcomeUnknown, which another cancel
    settles.
    """
    for _ in range(MAX_ATTEMPTS):
        writer.require_leader()
        job = observer.job(key)
        if job is None:
            raise JobNotFound(key.name)
        if _is_decided(job, observer, key):
            return _view(observer, key)
        try:
            observer.store.upsert_job(await kubernetes.patch_job(key.namespace, key.name, _patch(job, now())))
        except NotFound as error:
            raise JobNotFound(key.name) from error
        except ObjectExists:
            await _refresh(kubernetes, observer, key)
            continue
        except AmbiguousOutcome as error:
            return await _read_back(kubernetes, observer, key, error)
        except ClusterError as error:
            raise KubernetesUnavailable(f"{error}; cancelling is idempotent, so try again") from error
        log.info("cancel requested", tenant=observer.tenant_of(key), job_id=key.name)
        return _view(observer, key)
    raise KubernetesUnavailable("the job changes too fast to be cancelled; try again")


def _is_decided(job: Job, observer: Observer, key: JobKey) -> bool:
    """Whether there is nothing to cancel: it was cancelled before, or how it ends is certain already.

    Before the conditions Complete and Failed come SuccessCriteriaMet and FailureTarget, and before those the one pod
    that is needed has succeeded: the Job controller looks at the deadline first, and would fail a Job that has done its
    work.
    """
    return (
        ANNOTATION_CANCELLED_AT in job.metadata.annotations
        or any(job.condition(type_) for type_ in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"))
        or any(pod_succeeded(job, pod) for pod in observer.attempts(key))
    )


def _patch(job: Job, now: datetime) -> dict[str, object]:
    metadata = {
        "resourceVersion": job.metadata.resource_version,
        "annotations": {ANNOTATION_CANCELLED_AT: now.isoformat(timespec="seconds")},
    }
    resume = {"suspend": False} if job.spec.suspend else {}
    return {"metadata": metadata, "spec": {"activeDeadlineSeconds": 0, **resume}}


async def _refresh(kubernetes: KubeClient, observer: Observer, key: JobKey) -> None:
    """Take in the Job as Kubernetes has it now. Raises JobNotFound or KubernetesUnavailable."""
    try:
        job = await kubernetes.get_job(key.namespace, key.name)
    except ClusterError as error:
        raise KubernetesUnavailable(f"{error}; cancelling is idempotent, so try again") from error
    if job is None:
        raise JobNotFound(key.name)
    observer.store.upsert_job(job)


async def _read_back(kubernetes: KubeClient, observer: Observer, key: JobKey, error: AmbiguousOutcome) -> JobView:
    """What came of a patch that did not say. A late one can do no harm: it names a version."""
    unknown = OutcomeUnknown(
        f"{error}; the job may be cancelled. Cancelling is idempotent, so try again", extra={"id": key.name}
    )
    try:
        job = await kubernetes.get_job(key.namespace, key.name)
    except ClusterError:
        raise unknown from error
    if job is None:
        raise JobNotFound(key.name) from error
    observer.store.upsert_job(job)
    if not _is_decided(job, observer, key):
        raise unknown from error
    return _view(observer, key)


def _view(observer: Observer, key: JobKey) -> JobView:
    view = observer.view(key)
    if view is None:
        raise JobNotFound(key.name)
    return view
