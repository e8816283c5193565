"""Cancel: ask Kubernetes to end a job, and leave its record.

The Job is not deleted, since deleting it would erase its history: it is marked as cancelled and its deadline is moved
to one second. The Job controller then deletes its pod, which gives the process SIGTERM, the grace period and SIGKILL,
and fails the Job; the time to live removes it later, as it does every finished Job.
https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from runway.cluster.client import Kubernetes
from runway.cluster.store import Key
from runway.errors import ClusterError, JobNotFound, KubernetesUnavailable, ObjectMissing
from runway.flow.lead import Writer
from runway.flow.observe import Observer
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.jobs.view import JobView, State

log = structlog.get_logger()


async def cancel(
    kubernetes: Kubernetes, observer: Observer, writer: Writer, key: Key, now: Callable[[], datetime]
) -> JobView:
    """Cancel a job; a job that is over, or is being cancelled, is left as it is. Raises JobNotFound, NotLeader."""
    writer.require()
    view = observer.view(key)
    if view is None:
        raise JobNotFound(key.name)
    if view.state.over or view.state is State.CANCELLING:
        return view
    patch = {
        "metadata": {"annotations": {ANNOTATION_CANCELLED_AT: now().isoformat(timespec="seconds")}},
        "spec": {"activeDeadlineSeconds": 1},
    }
    try:
        job = await kubernetes.patch_job(key.namespace, key.name, patch)
    except ObjectMissing as error:
        raise JobNotFound(key.name) from error
    except ClusterError as error:
        raise KubernetesUnavailable(f"{error}; cancelling is idempotent, so try again") from error
    log.info("cancel requested", tenant=view.tenant, job_id=key.name)
    observer.store.put_job(job)
    return observer.view(key) or view
