"""What the routes work with: made once by `create_app`, kept on the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from fastapi import Request

from runway.admission.concurrency import RequestLimits
from runway.controllers.leadership import Leadership
from runway.controllers.sync import Observer
from runway.kube.client import KubeClient
from runway.policy import Policy
from runway.prometheus import Prometheus
from runway.services.submit import Submitter
from runway.settings import Settings
from runway.telemetry.metrics import Metrics


@dataclass(slots=True)
class AppState:
    """Everything a request may use."""

    settings: Settings
    policy: Policy
    kubernetes: KubeClient
    observer: Observer
    writer: Leadership
    submitter: Submitter
    limits: RequestLimits
    metrics: Metrics
    prometheus: Prometheus | None
    now: Callable[[], datetime]
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is told to end: open streams end then."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is told to end, while it still answers."""
    log_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a slice of a log is worked on, so that logs do not hold up other requests."""


def app_state(request: Request) -> AppState:
    """The services of the app that this request came to."""
    return cast("AppState", request.app.state.services)
