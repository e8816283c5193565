"""A job's log, from the pod that wrote it, as long as that pod exists."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from runway.cluster.client import Kubernetes
from runway.cluster.store import Key
from runway.errors import (
    ClusterError,
    InvalidParameter,
    JobNotFound,
    KubernetesUnavailable,
    LogsGone,
    LogsNotReady,
    ObjectMissing,
    Refused,
    Violation,
)
from runway.flow.observe import Observer
from runway.objects import Pod


async def open_log(
    kubernetes: Kubernetes,
    observer: Observer,
    key: Key,
    *,
    attempt: int | None,
    follow: bool,
    tail: int | None,
    timestamps: bool,
) -> AsyncGenerator[bytes, None]:
    """The log of an attempt (1 is the first; the last where None), once Kubernetes has begun to answer.

    Raises JobNotFound, LogsNotReady, LogsGone with what was kept, or KubernetesUnavailable.
    """
    pod = _pod(observer, key, attempt)
    if pod.metadata.name in observer.gone(key):
        raise _gone(pod)
    chunks = kubernetes.read_log(
        key.namespace, pod.metadata.name, follow=follow, tail=tail, timestamps=timestamps, idle=None if follow else 30.0
    )
    try:
        await anext(chunks)
    except StopAsyncIteration:
        pass
    except ObjectMissing as error:
        raise _gone(pod) from error
    except Refused as error:
        raise LogsNotReady(str(error)) from error
    except ClusterError as error:
        raise KubernetesUnavailable(str(error)) from error
    return chunks


def _pod(observer: Observer, key: Key, attempt: int | None) -> Pod:
    if observer.job(key) is None:
        raise JobNotFound(key.name)
    pods = observer.attempts(key)
    if not pods:
        raise LogsNotReady("no pod of the job exists yet")
    if attempt is not None and attempt > len(pods):
        raise InvalidParameter(
            f"the job has {len(pods)} attempts so far",
            violations=(Violation("attempt", "too_large", "there is no such attempt", str(attempt), str(len(pods))),),
        )
    return pods[-1 if attempt is None else attempt - 1]


def _gone(pod: Pod) -> LogsGone | LogsNotReady:
    ended = pod.container.terminated
    if ended is None and pod.container.running is None:
        return LogsNotReady(f"pod {pod.metadata.name} ended before a container started, so there never was a log")
    return LogsGone(
        f"pod {pod.metadata.name} no longer exists; the excerpt is what its status kept of the last lines",
        extra={"excerpt": ended.last_words if ended else None, "pod": pod.metadata.name},
    )
