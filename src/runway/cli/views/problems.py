"""A refusal or a failure as people read it: what, why, every violation with its hint, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rich.text import Text

from runway.cli.client import RequestFailed
from runway.cli.output import Screen, compact
from runway.cli.views.tables import columns, lay_out

_SHOWN_APART: Final = frozenset(
    {
        "type", "title", "status", "detail", "code", "instance", "request_id", "violations", "excerpt", "quota",
        "held_by", "held_by_count",
    }
)  # fmt: skip
HOLDERS_SHOWN: Final = 10

Say = Callable[..., None]
"""`Screen.line` or `Screen.note`."""


def show_problem(screen: Screen, error: RequestFailed, url: str) -> None:
    """Show a problem on stderr."""
    problem, note = error.problem, screen.err
    note(f"Error: {problem.get('title')}", f"({error.code})", style="bold red", hang=2)
    note(problem.get("detail") or "", hang=0)
    show_violations(note, problem.get("violations") or ())
    _quota(note, problem)
    for name, value in problem.items():
        if name not in _SHOWN_APART:
            note(f"  {name}: {compact(value)}", hang=4)
    if error.retry_after is not None:
        note(f"Try again in {error.retry_after} s.")
    for hint in _hints(error, url):
        note(f"hint: {hint}", hang=6)
    if problem.get("request_id"):
        note(f"request id: {problem['request_id']}", style="dim")


def show_violations(say: Say, violations: Iterable[Mapping[str, Any]]) -> None:
    """Each violation: its field, what was observed, the limit; under it what is wrong and what to do."""
    violations = list(violations)
    width = max((len(compact(violation.get("field"))) for violation in violations), default=0)
    for violation in violations:
        facts = [
            f"{name} {compact(violation[name])}" for name in ("observed", "limit") if violation.get(name) is not None
        ]
        field = compact(violation.get("field"))
        blank = " " * (width - len(field) + 1 if facts else 0)
        say(Text.assemble("  ", (field, "bold"), blank), Text(", ".join(facts), "yellow"), hang=6)
        say(f"      {violation.get('message')}", hang=6)
        if violation.get("hint"):
            say(f"      hint: {violation['hint']}", hang=12)


def _quota(note: Say, problem: Mapping[str, Any]) -> None:
    quota, holders = problem.get("quota"), problem.get("held_by")
    if isinstance(quota, Mapping):
        kinds = [kind for kind in ("used", "reserved", "requested", "limit") if isinstance(quota.get(kind), Mapping)]
        resources = dict.fromkeys(resource for kind in kinds for resource in quota[kind])
        rows = [(resource, *(quota[kind].get(resource) for kind in kinds)) for resource in resources]
        for line in lay_out(columns("RESOURCE", *map(str.upper, kinds)), rows, width=None, indent=2):
            note(line)
    if isinstance(holders, list) and holders:
        count = problem.get("held_by_count", len(holders))
        more = f" and {count - HOLDERS_SHOWN} more" if isinstance(count, int) and count > HOLDERS_SHOWN else ""
        note(f"  held by {', '.join(compact(holder) for holder in holders[:HOLDERS_SHOWN])}{more}", hang=10)


def _hints(error: RequestFailed, url: str) -> list[str]:
    match error.code:
        case "tenant_required":
            return ["name your tenant with --tenant NAME or RUNWAY_TENANT"]
        case "unknown_tenant":
            return ["check --tenant and RUNWAY_TENANT: `runway quota` without a tenant lists those of the policy"]
        case "outcome_unknown" if error.problem.get("id"):
            return [f"`runway status {error.problem['id']}` tells whether the job exists"]
        case "unreachable":
            return [
                f"check that Runway runs there (curl {url.rstrip('/')}/readyz), and the address: --url or RUNWAY_URL"
            ]
        case _:
            return []
