"""Submissions that wait for the tenant's rate, which earlier tests may have used."""

from __future__ import annotations

import httpx2

from testbed.context import Context
from testbed.http_client import Document, RunwayClient, document
from testbed.waiting import wait_for


def allowed(runway: RunwayClient, tenant: str, spec: Document) -> Document:
    """Submit a job as soon as the tenant's rate permits it, and return its view."""

    def submitted() -> httpx2.Response | None:
        answer = runway.submit(tenant, spec)
        return None if answer.status_code == 429 else answer

    return document(wait_for(submitted, f"the rate of tenant {tenant} permits a submission"))


def once_allowed(context: Context, tenant: str, spec: Document) -> Document:
    """Call `allowed`, and track the job in the context."""
    view = allowed(context.runway, tenant, spec)
    context.track(view["id"])
    return view
