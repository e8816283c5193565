"""Words for the shell's completion, asked of Runway: none, and no message, where it does not answer at once."""

from __future__ import annotations

from typing import Final

import httpx2
import typer

from runway.cli.client import Client, RequestFailed
from runway.cli.context import Environment
from runway.cli.text import is_name, safe
from runway.cli.wire import JobView, is_over

TIMEOUT: Final = httpx2.Timeout(1.0)
JOBS: Final = 100

Words = list[tuple[str, str]]
"""Words, each with what a shell may show beside it."""


def job_ids(context: typer.Context, incomplete: str) -> Words:
    """The newest jobs."""
    return _words(_jobs(context), incomplete)


def live_job_ids(context: typer.Context, incomplete: str) -> Words:
    """The newest jobs that are not over."""
    return _words([view for view in _jobs(context) if not is_over(view)], incomplete)


def tenants(context: typer.Context, incomplete: str) -> Words:
    """The tenants of the policy."""
    try:
        with _client(context, None) as client:
            return [(name, "") for name in client.tenants() if is_name(name) and name.startswith(incomplete)]
    except (RequestFailed, ValueError):
        return []


def _jobs(context: typer.Context) -> list[JobView]:
    try:
        with _client(context, context.params.get("tenant")) as client:
            return client.jobs(limit=JOBS)["jobs"]
    except (RequestFailed, ValueError):
        return []


def _words(views: list[JobView], incomplete: str) -> Words:
    return [
        (view["id"], safe(f"{view['state']} {view['name'] or ''}".rstrip()))
        for view in views
        # Shells evaluate what is completed: nothing but a name is handed to them.
        if is_name(view["id"]) and view["id"].startswith(incomplete)
    ]


def _client(context: typer.Context, tenant: str | None) -> Client:
    return Client(context.params.get("url") or "", tenant, context.ensure_object(Environment).transport, TIMEOUT)
