"""Cancel a job: mark it and set its deadline to zero, in one patch.

The Job stays until its time to live. docs/decisions/007-cancel-by-deadline.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from runway import errors
from runway.admission.quota import pod_succeeded
from runway.controllers.leadership import Leadership
from runway.jobs.annotations import ANNOTATION_CANCELLED_AT
from runway.jobs.manifest import deadline_patch
from runway.jobs.models import JobView
from runway.kube.client import KubeClient
from runway.kube.objects import Job
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

log = structlog.get_logger()

MAX_ATTEMPTS: Final = 5  # Attempts to patch a Job whose status its controller changes at the same time.


async def cancel(
    kubernetes: KubeClient, cluster: ClusterState, leadership: Leadership, key: JobKey, now: Callable[[], datetime]
) -> JobView:
    """Cancel a job, unless it is finished, about to finish, or cancelled already.

    Raises JobNotFound, NotReady, NotLeader, KubernetesUnavailable, TooBusy, or OutcomeUnknown, which a retry resolves.
    """
    for _ in range(MAX_ATTEMPTS):
        leadership.require_leader()
        job = cluster.job(key)
        if job is None:
            raise errors.JobNotFound(key.name)
        if _is_decided(job, cluster, key):
            return _view(cluster, key)
        try:
            patch = deadline_patch(job, ANNOTATION_CANCELLED_AT, now().isoformat(timespec="seconds"))
            cluster.apply_job(await kubernetes.patch_job(key.namespace, key.name, patch))
        except errors.NotFound as error:
            raise errors.JobNotFound(key.name) from error
        except errors.Conflict:
            await _refresh(kubernetes, cluster, key)
            continue
        except errors.AmbiguousOutcome as error:
            return await _read_back(kubernetes, cluster, key, error)
        except errors.ClusterError as error:
            raise errors.KubernetesUnavailable(f"{error}; cancelling is idempotent, so try again") from error
        log.info("cancel requested", tenant=cluster.tenant_of(key), job_id=key.name)
        return _view(cluster, key)
    raise errors.KubernetesUnavailable(
        f"the job changed during each of {MAX_ATTEMPTS} attempts to cancel it; try again"
    )


def _is_decided(job: Job, cluster: ClusterState, key: JobKey) -> bool:
    """Return whether the job was cancelled before, or its outcome is certain."""
    return (
        ANNOTATION_CANCELLED_AT in job.metadata.annotations
        or job.has_outcome
        or any(pod_succeeded(job, pod) for pod in cluster.attempts(key))
    )


async def _refresh(kubernetes: KubeClient, cluster: ClusterState, key: JobKey) -> Job:
    """Read the Job from Kubernetes into the store. Raises JobNotFound or KubernetesUnavailable."""
    try:
        job = await kubernetes.get_job(key.namespace, key.name)
    except errors.ClusterError as error:
        raise errors.KubernetesUnavailable(f"{error}; cancelling is idempotent, so try again") from error
    if job is None:
        raise errors.JobNotFound(key.name)
    cluster.apply_job(job)
    return job


async def _read_back(
    kubernetes: KubeClient, cluster: ClusterState, key: JobKey, error: errors.AmbiguousOutcome
) -> JobView:
    """Read the Job after an ambiguous patch. A late patch does no harm, because it names a version."""
    with suppress(errors.KubernetesUnavailable):
        if _is_decided(await _refresh(kubernetes, cluster, key), cluster, key):
            return _view(cluster, key)
    raise errors.OutcomeUnknown(
        f"{error}; the job may be cancelled. Cancelling is idempotent, so try again", extra={"id": key.name}
    ) from error


def _view(cluster: ClusterState, key: JobKey) -> JobView:
    view = cluster.view(key)
    if view is None:
        raise errors.JobNotFound(key.name)
    return view
