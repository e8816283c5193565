"""The link to the place where the logs of a job are kept. Pure.

The policy's `logs.url_template` has placeholders, which `runway.policy` validates. The values are percent-encoded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from runway.jobs.models import JobView
from runway.jobs.timeline import deadline_of
from runway.policy import LOG_PLACEHOLDER

MARGIN: Final = timedelta(minutes=1)
"""Added on both sides of the job's time: the clocks of nodes and log storage differ."""
MAX_SPAN: Final = timedelta(days=1)
"""The end of an unfinished job whose deadline is unknown, counted from its creation."""
MAX_POD_NAME: Final = 253
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names"""


def log_url(template: str, view: JobView, pod: str | None = None) -> str | None:
    """Return the link for a job, `pod` being its last attempt by default.

    None before the first attempt, or if the time of the creation is unknown. The time ends with the job; for an
    unfinished job at its deadline, so that the link does not change.
    """
    if pod is None:
        pod = view.attempts[-1].pod if view.attempts else None
    if pod is None or view.created_at is None:
        return None
    start, end = view.created_at - MARGIN, _end(view, view.created_at) + MARGIN
    values = {
        "namespace": view.kubernetes.namespace,
        "tenant": view.tenant,
        "job": view.id,
        "pod": pod[:MAX_POD_NAME],
        "from": _milliseconds(start),
        "to": _milliseconds(end),
        "from_time": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "to_time": f"{end:%Y-%m-%dT%H:%M:%SZ}",
    }
    return LOG_PLACEHOLDER.sub(lambda found: quote(values[found[1]], safe="", errors="replace"), template)


def _end(view: JobView, created_at: datetime) -> datetime:
    if view.finished_at is not None:
        return view.finished_at
    deadline = deadline_of(view)
    if deadline is None or view.spec is None:
        return created_at + MAX_SPAN
    return deadline + timedelta(seconds=view.spec.grace_period_seconds)


def _milliseconds(moment: datetime) -> str:
    return str(int(moment.timestamp() * 1000))
