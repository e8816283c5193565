"""Restart a controller that a defect ended.

Every controller but `ClusterSync` can continue: its state is a copy of what the cluster state holds. A defect of
`ClusterSync` may have made usage wrong, so `/healthz` fails instead, and Kubernetes restarts the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from runway.backoff import Backoff, Timing
from runway.telemetry import Metrics

log = structlog.get_logger()

FIRST_PAUSE_SECONDS: Final = 1.0
"""Much shorter than the Lease, so that one defect of the leader election costs no leadership."""
MAX_PAUSE_SECONDS: Final = 60.0
"""A controller that ran for longer starts again with the first pause."""


async def keep_running(name: str, run: Callable[[], Awaitable[None]], metrics: Metrics, timing: Timing) -> None:
    """Run a controller until cancelled. Log and count each defect, and start the controller again after a pause."""
    backoff = Backoff(timing.jitter, first=FIRST_PAUSE_SECONDS, longest=MAX_PAUSE_SECONDS)
    while True:
        began = timing.clock()
        try:
            await run()
        except Exception:
            metrics.internal_errors.inc()
            log.exception("controller ended by a defect", controller=name)
        if timing.clock() - began > MAX_PAUSE_SECONDS:
            backoff.reset()
        await timing.sleep(backoff.next())
