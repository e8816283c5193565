"""`runway quota`: the quota of a tenant, and the jobs that use it."""

from __future__ import annotations

from typing import Final

import typer

from runway.api.models import TenantQuotaView
from runway.cli.context import open_session
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, Screen, emit, show_state
from runway.cli.views.tables import (
    Column,
    amount_of,
    bar,
    describe_budget,
    legend,
    limited_resources,
    resource_usage,
    show_quantity,
)
from runway.cli.wait import briefly

BAR_WIDTH: Final = 20

_COLUMNS: Final = [
    Column(title="RESOURCE"),
    Column(title="", drop_priority=1),
    *(Column(title=title, right=True) for title in ("LIMIT", "USED", "RESERVED", "TERMINATING")),
]
_HOLDERS: Final = [
    Column(title="JOB"),
    Column(title="NAME", shrink=True),
    Column(title="STATE"),
    *(Column(title=title, right=True) for title in ("GPU", "CPU", "MEMORY", "DISK")),
    Column(title=""),
]


def quota(context: typer.Context, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None) -> None:
    """Show a tenant's quota, its usage, and the jobs that use it.

    RESERVED: held by submissions in flight. TERMINATING: the part of USED that pods hold while they shut down.
    """
    with open_session(context, url, tenant, output) as session:
        page = briefly(session, session.client.quota)
        tenants = page.value.tenants
        names = [entry.tenant for entry in tenants]
        emit(page.document, output, names=names, table=lambda: _show(session.screen, tenants))


def _show(screen: Screen, tenants: list[TenantQuotaView]) -> None:
    encoding = screen.stdout.encoding
    for entry in tenants:
        screen.out(f"{entry.tenant} (namespace {entry.namespace})", style="bold")
        amounts = (entry.limit, entry.used, entry.reserved, entry.held_by_terminating)
        rows = [
            (
                resource,
                bar(resource_usage(entry, resource), BAR_WIDTH, encoding),
                *(show_quantity(resource, amount_of(amount, resource)) for amount in amounts),
            )
            for resource in limited_resources(entry.limit)
        ]
        screen.table(_COLUMNS, rows, indent=2)
        if entry.budget is not None:
            screen.out(f"  {describe_budget(entry.budget)}", hang=4)
        if entry.jobs:
            screen.out("  used by")
            holders = (
                (job.id, job.name, show_state(job.state or "deleted"), job.gpu,
                 *(show_quantity(name, getattr(job, name)) for name in ("cpu", "memory", "disk")),
                 "terminating" if job.terminating else "orphaned" if job.orphaned else "")
                for job in entry.jobs
            )  # fmt: skip
            screen.table(_HOLDERS, holders, indent=2)
        screen.out()
    screen.out(legend(encoding))
