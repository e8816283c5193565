"""Leave a cluster alone that is older than Runway supports.

This runs before the Lease, the lists and every other call: an old API server accepts the Jobs, drops fields that it
does not know, and quota would be wrong. The process keeps running, so that `/readyz` and the log give the reason, and
starts its work once the API server is upgraded.
"""

from __future__ import annotations

from typing import Final

import structlog

from runway.backoff import Backoff, Timing
from runway.errors import AmbiguousOutcome, ClusterError, NotExecuted, TooBusy
from runway.kube.client import KubeClient
from runway.kube.server_version import MIN_VERSION_NAME, ServerVersion
from runway.state.cluster_state import ClusterState

log = structlog.get_logger()

RECHECK_SECONDS: Final = 60.0
"""Between two looks at an API server that is too old. An upgrade takes minutes."""


async def wait_for_supported_version(kubernetes: KubeClient, cluster: ClusterState, timing: Timing) -> None:
    """Return once the API server is new enough, or does not say its version.

    A proxy may hide `/version`, or a fork may answer in its own way. That proves no fault, so Runway starts; `runway
    doctor` reports it.
    """
    while (server := await _version(kubernetes, timing)) is not None and server.is_too_old:
        reason = f"the API server is {server.name}; Runway needs Kubernetes {MIN_VERSION_NAME} or later"
        if cluster.unsupported != reason:
            log.critical("cluster too old", reason=reason, hint="upgrade the cluster")
        cluster.unsupported = reason
        await timing.sleep(RECHECK_SECONDS)
    cluster.unsupported = None
    if server is None or server.number is None:
        log.warning("API server version unknown", needs=MIN_VERSION_NAME)


async def _version(kubernetes: KubeClient, timing: Timing) -> ServerVersion | None:
    """Ask until the API server answers; None if it refuses."""
    backoff = Backoff(timing.jitter)
    while True:
        try:
            return await kubernetes.version()
        except (NotExecuted, AmbiguousOutcome, TooBusy) as error:
            log.warning("no contact with the API server yet", reason=str(error))
            await timing.sleep(backoff.next())
        except ClusterError:
            return None
