"""`submit --dry-run` as people read it: the decision, every violation, the price, and what it would do to the quota."""

from __future__ import annotations

from rich.text import Text

from runway.cli.output import Screen
from runway.cli.text import safe
from runway.cli.views.problems import show_violations
from runway.cli.views.quota_bar import RESOURCES, resource_usage, show_amount, to_milli
from runway.cli.views.tables import Column
from runway.cli.wire import Cost, DryRun, QuotaNow

_PRICE = [Column(title="RESOURCE"), Column(title="QUANTITY", right=True), Column(title="USD", right=True)]
_QUOTA = [
    Column(title="RESOURCE"),
    *(Column(title=title, right=True) for title in ("HELD", "THIS JOB", "AFTER", "LIMIT")),
    Column(title=""),
]


def show_plan(screen: Screen, plan: DryRun) -> None:
    """On stdout. Nothing of it is kept by Runway."""
    count = len(plan["violations"])
    if plan["decision"] == "admitted":
        screen.out(Text("Would be admitted", "bold green"), "(dry run: nothing was submitted)", hang=2)
    else:
        wrong = f"for {count} violation{'s' if count != 1 else ''}"
        screen.out(Text("Would be refused", "bold red"), wrong, "(dry run: nothing was submitted)", hang=2)
    show_violations(screen.out, plan["violations"])
    for warning in plan["warnings"]:
        screen.out(f"  warning of Kubernetes: {warning}", style="yellow", hang=4)
    if plan["cost"] is not None:
        _price(screen, plan["cost"])
    else:
        screen.out("Price: unknown until the spec is acceptable", style="dim")
    _quota(screen, plan["quota"], plan["cost"])


def _price(screen: Screen, cost: Cost) -> None:
    screen.out(f"Price in {cost['currency']} ({cost['rate_card']})", style="bold")
    rows: list[tuple[object, ...]] = [(line["resource"], line["quantity"], line["hourly"]) for line in cost["lines"]]
    rows.append(("an hour", "", Text(safe(cost["hourly"]), "bold")))
    rows.append(("at most", "", Text(safe(cost["ceiling"]), "bold")))
    screen.table(_PRICE, rows, indent=2)


def _quota(screen: Screen, quota: QuotaNow, cost: Cost | None) -> None:
    """What the tenant holds now, used or reserved, and would hold with this job."""
    asked = {"jobs": "1"} | {line["resource"]: line["quantity"] for line in (cost["lines"] if cost else ())}
    rows: list[tuple[object, ...]] = []
    for resource in RESOURCES:
        amounts = resource_usage(quota, resource)
        now, more = amounts.used + amounts.reserved, to_milli(asked.get(resource, "0"))
        shown = [show_amount(resource, amount) for amount in (now, more, now + more, amounts.limit)]
        if cost is None:
            rows.append((resource, shown[0], "", "", shown[3], ""))
        else:
            over = Text("over", "bold red") if now + more > amounts.limit else ""
            rows.append((resource, shown[0], f"+{shown[1]}" if more else "", *shown[2:], over))
    screen.out("Quota", style="bold")
    screen.table(_QUOTA, rows, indent=2)
