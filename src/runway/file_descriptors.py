"""Raise the limit of open files to what the bounds on connections need.

At the limit no connection opens, Runway's own to Kubernetes included: it could not renew its Lease.
"""

from __future__ import annotations

import resource
from typing import Final

from runway.errors import ConfigurationError
from runway.settings import Settings

SPARE: Final = 64
"""Descriptors for watches, logs of terminating pods, Prometheus, listening sockets, files and the event loop."""


def raise_limit(settings: Settings, connections: int) -> None:
    """Raise the soft limit of this process to its hard limit. Raises ConfigurationError if the hard limit is too low.

    A stream takes one descriptor to its client and one to Kubernetes.
    https://man7.org/linux/man-pages/man2/getrlimit.2.html
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = connections + min(settings.max_streams, connections) + settings.max_in_flight + SPARE
    if hard != resource.RLIM_INFINITY and hard < required:
        raise ConfigurationError(
            f"the limit of open files (ulimit -Hn) is {hard}, below the required {required}: raise it, or lower "
            "RUNWAY_MAX_STREAMS or RUNWAY_MAX_IN_FLIGHT"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
