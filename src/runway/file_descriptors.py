"""File descriptors: each connection takes one, so the process must have as many as its bounds allow connections.

At the limit no connection can be opened, and that includes Runway's own to Kubernetes: it could not renew its Lease.
"""

from __future__ import annotations

import resource
from typing import Final

from runway.errors import ConfigurationError
from runway.settings import Settings

SPARE: Final = 64
"""Descriptors for the rest: watches, logs of terminating pods, Prometheus, listening sockets, files, the event loop."""


def required_descriptors(settings: Settings, connections: int) -> int:
    """Descriptors for this many connections of clients: a stream takes one to its client and one to Kubernetes."""
    return connections + min(settings.max_streams, connections) + settings.max_in_flight + SPARE


def raise_limit(settings: Settings, connections: int) -> None:
    """Raise the soft limit of this process to its hard limit. Raises ConfigurationError where that is too low.

    https://man7.org/linux/man-pages/man2/getrlimit.2.html
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = required_descriptors(settings, connections)
    if hard != resource.RLIM_INFINITY and hard < required:
        raise ConfigurationError(
            f"the process may have {hard} open files (ulimit -Hn) and needs {required}: raise the limit, or lower "
            "RUNWAY_MAX_STREAMS or RUNWAY_MAX_IN_FLIGHT"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
