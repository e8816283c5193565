"""`runway quota`: what a tenant may hold, what it holds, and which jobs hold it."""

from __future__ import annotations

from typing import Final

import typer

from runway.cli.context import open_session
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, Screen, emit, show_state
from runway.cli.views.quota_bar import RESOURCES, bar, legend, resource_usage
from runway.cli.views.tables import Column, columns
from runway.cli.wire import QuotaHolder, TenantQuota

BAR_WIDTH: Final = 20

_AMOUNTS: Final = ("limit", "used", "reserved", "held_by_terminating")
_COLUMNS: Final = [
    Column(title="RESOURCE"),
    Column(title="", drop_priority=1),
    *(Column(title=title, right=True) for title in ("LIMIT", "USED", "RESERVED", "TERMINATING")),
]
_HOLDERS: Final = [
    *columns("JOB", "STATE"),
    *(Column(title=title, right=True) for title in ("GPU", "CPU", "MEMORY")),
    Column(title=""),
]


def quota(context: typer.Context, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None) -> None:
    """Show what a tenant may hold, what it holds, and by which jobs.

    RESERVED is held by submissions in flight; TERMINATING, a part of USED, by pods that were told to end and have not.
    """
    with open_session(context, url, tenant, output) as session:
        page = session.client.quota()
        names = [entry["tenant"] for entry in page["tenants"]]
        emit(page, output, names=names, table=lambda: _show(session.screen, page["tenants"]))


def _show(screen: Screen, tenants: list[TenantQuota]) -> None:
    encoding = screen.stdout.encoding
    for entry in tenants:
        screen.out(f"{entry['tenant']} (namespace {entry['namespace']})", style="bold")
        rows = [
            (
                resource,
                bar(resource_usage(entry, resource), BAR_WIDTH, encoding),
                *(dict(amounts)[resource] for amounts in map(dict(entry).get, _AMOUNTS) if isinstance(amounts, dict)),
            )
            for resource in RESOURCES
        ]
        screen.table(_COLUMNS, rows, indent=2)
        if entry["jobs"]:
            screen.out("  held by")
            screen.table(_HOLDERS, map(_holder, entry["jobs"]), indent=2)
        screen.out()
    screen.out(legend(encoding))


def _holder(job: QuotaHolder) -> tuple[object, ...]:
    ending = "terminating" if job["terminating"] else ""
    return job["id"], show_state(job["state"] or "deleted"), job["gpu"], job["cpu"], job["memory"], ending
