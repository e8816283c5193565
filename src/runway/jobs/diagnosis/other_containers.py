"""Diagnosis of containers that others added to a job's pod, such as a proxy that a webhook injects. Pure.

Runway creates one container, `job`. Another one can keep the pod alive after it, fail the pod, or delay its start.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import ContainerStatus, Pod
from runway.text import bounded, one_line

MAX_NAMED = 3


def kept_alive_by(pod: Pod) -> str | None:
    """Name the containers that keep this pod alive after the job's container; None if none does."""
    if pod.is_terminal or pod.container.terminated is None:
        return None
    return _names([status for status in pod.other_statuses if status.state.terminated is None])


def still_alive_at(pod: Pod, moment: datetime, skew: timedelta) -> str | None:
    """Name the other containers that ran at this moment, after the job's container had ended; None without one."""
    own = pod.container.terminated
    if own is None or own.finished_at is None or own.finished_at >= moment - skew:
        return None
    alive = [status for status in pod.other_statuses if not _ended_before(status, moment - skew)]
    return _names(alive)


def failed_other(pod: Pod) -> Diagnosis | None:
    """Diagnose a failed pod whose job did not fail: the other container that failed; None without one."""
    own, failed = pod.container.terminated, [status for status in pod.other_statuses if _has_failed(status)]
    if not failed:
        return None
    ended = failed[-1].state.terminated
    code = ended.exit_code if ended else 0
    reason = one_line(ended.reason, 80) if ended else ""
    before = "before the job's container started" if own is None else "after the job's container exited with code 0"
    message = f"container {one_line(failed[-1].name, 80)} failed with exit code {code} ({reason}) {before}"
    evidence = {"container": one_line(failed[-1].name, 80), "container_reason": reason, "exit_code": str(code)}
    return Diagnosis(FailureCode.OTHER_CONTAINER_FAILED, message, evidence)


def waiting_other(pod: Pod, in_progress: frozenset[str | None]) -> Diagnosis | None:
    """Diagnose an init container that does not start and so holds up the job's; None without one."""
    if pod.container.running is not None or pod.container.terminated is not None:
        return None
    for status in pod.status.init_container_statuses:
        waiting = status.state.waiting
        if waiting is not None and waiting.reason not in in_progress:
            reason, text = one_line(waiting.reason, 80), one_line(bounded(waiting.message or ""))
            message = f"init container {one_line(status.name, 80)} does not start: {reason}: {text}".removesuffix(": ")
            evidence = {"container": one_line(status.name, 80), "waiting_reason": reason, "waiting_message": text}
            return Diagnosis(FailureCode.OTHER_CONTAINER_FAILED, message, evidence)
    return None


def _has_failed(status: ContainerStatus) -> bool:
    return status.state.terminated is not None and status.state.terminated.exit_code != 0


def _ended_before(status: ContainerStatus, moment: datetime) -> bool:
    ended = status.state.terminated
    return ended is not None and ended.finished_at is not None and ended.finished_at < moment


def _names(statuses: Sequence[ContainerStatus]) -> str | None:
    if not statuses:
        return None
    named = ", ".join(one_line(status.name, 80) for status in statuses[:MAX_NAMED])
    more = f" and {len(statuses) - MAX_NAMED} more" if len(statuses) > MAX_NAMED else ""
    return f"container {named}" if len(statuses) == 1 else f"containers {named}{more}"
