"""The beginning of a log, which the kubelet may have rotated away. Runway sees only what the kubelet serves.

The kubelet checks a running container's log every 10 s. If the log file has 10 MiB (`containerLogMaxSize`), the kubelet
starts a new file, and serves only the newest one. Neither the API nor the log says that there were earlier lines.
https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from runway import errors
from runway.jobs.diagnosis.attempts import container_started_at
from runway.kube.client import KubeClient
from runway.kube.objects import Pod
from runway.log_cursor import LineTime, line_time
from runway.text import show_duration

PROBE_BYTES: Final = 64  # More than a time with nanoseconds, and a space.
PROBE_SECONDS: Final = 2.0
SILENT_START: Final = timedelta(seconds=3)
"""A first line within this time of the container's start counts as the first of the log.

This is wrong if the container writes 10 MiB in this time and the kubelet then looks: nothing shows that rotation.
"""
SILENT_LOG: Final = timedelta(seconds=15)
"""An empty log of a container that ran for this long may have been rotated: the kubelet looks every 10 s."""


async def first_line_time(kubernetes: KubeClient, pod: Pod) -> LineTime | None:
    """Return the time of the first line that the kubelet still has; None if there is none, or it is unknown."""
    chunks = kubernetes.read_log(
        pod.metadata.namespace,
        pod.metadata.name,
        container=pod.container_name,
        follow=False,
        tail=None,
        timestamps=True,
        idle=PROBE_SECONDS,
        limit_bytes=PROBE_BYTES,
    )
    start = b""
    try:
        async with asyncio.timeout(PROBE_SECONDS), aclosing(chunks):
            async for chunk in chunks:
                start += chunk[:PROBE_BYTES]
                if len(start) >= PROBE_BYTES:
                    break
    except (errors.ClusterError, errors.PublicError, TimeoutError):
        return None
    return line_time(start)


def missing_start(pod: Pod, first: LineTime | None, now: datetime) -> str | None:
    """Say that earlier lines may be missing; None if the log begins with its container, or that is unknown."""
    started, ended = container_started_at(pod), pod.container.terminated
    if started is None:
        return None
    if first is not None:
        silent = first.moment - started
        if silent < SILENT_START:
            return None
        return (
            f"the first line is from {first.moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, "
            f"{show_duration(silent.total_seconds())} after the container started; "
            "earlier lines are missing if the log was too large for the node"
        )
    ran = ((ended.finished_at if ended else None) or now) - started
    if ran < SILENT_LOG:
        return None
    return (
        f"the log is empty {show_duration(ran.total_seconds())} after the container started; "
        "earlier lines are missing if the log was too large for the node"
    )
