"""`runway quota`: what a tenant may hold, what it holds, and which jobs hold it."""

from __future__ import annotations

import typer

from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, Screen, emit, show_state
from runway.cli.session import open_session
from runway.cli.wire import TenantQuota

_RESOURCES = ("gpu", "cpu", "memory", "jobs")
_COLUMNS = ("limit", "used", "reserved", "held_by_terminating")


def quota(context: typer.Context, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None) -> None:
    """Show what a tenant may hold, what it holds, and by which jobs.

    RESERVED is held by submissions in flight, TERMINATING by pods that have not ended yet.
    """
    with open_session(context, url, tenant, output) as session:
        page = session.client.quota()
        names = [entry["tenant"] for entry in page["tenants"]]
        emit(page, output, names=names, table=lambda: _show(session.screen, page["tenants"]))


def _show(screen: Screen, tenants: list[TenantQuota]) -> None:
    for position, entry in enumerate(tenants):
        if position:
            screen.line()
        screen.line(f"{entry['tenant']} (namespace {entry['namespace']})", style="bold")
        amounts = {
            "limit": entry["limit"],
            "used": entry["used"],
            "reserved": entry["reserved"],
            "held_by_terminating": entry["held_by_terminating"],
        }
        rows = [(resource, *(dict(amounts[column])[resource] for column in _COLUMNS)) for resource in _RESOURCES]
        screen.table(("RESOURCE", "LIMIT", "USED", "RESERVED", "TERMINATING"), rows, indent=2)
        if entry["jobs"]:
            screen.line("  held by")
            holders = [
                (
                    job["id"],
                    show_state(job["state"] or "deleted"),
                    job["gpu"],
                    job["cpu"],
                    job["memory"],
                    _ending(job["terminating"]),
                )
                for job in entry["jobs"]
            ]
            screen.table(("JOB", "STATE", "GPU", "CPU", "MEMORY", ""), holders, indent=2)


def _ending(terminating: bool) -> str:
    return "terminating" if terminating else ""
