"""A problem document for people: violations with hints, and the next step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.text import Text

from runway.cli.client import RequestFailed
from runway.cli.output import Say, Screen, compact
from runway.cli.views.tables import columns, lay_out, show_quantity

_SHOWN_APART: Final = frozenset(
    {
        "type", "title", "status", "detail", "code", "instance", "request_id", "violations", "excerpt", "quota",
        "held_by", "held_by_count", "held_by_names", "hint", "candidates",
    }
)  # fmt: skip
HOLDERS_SHOWN: Final = 10


def show_problem(screen: Screen, error: RequestFailed, url: str) -> None:
    problem, say = error.problem, screen.err
    if error.code == "tenant_required":  # The server speaks of a header.
        problem = {"request_id": problem.get("request_id"), "title": "No tenant set"}
    say(f"Error: {problem.get('title')}", f"({error.code})", style="bold red", hang=2)
    if problem.get("detail"):
        say(problem["detail"], hang=0)
    violations = problem.get("violations")
    if isinstance(violations, list):
        show_violations(say, [item for item in violations if isinstance(item, Mapping)])
    _show_quota(say, problem)
    _show_candidates(say, problem.get("candidates"))
    for name, value in problem.items():
        if name not in _SHOWN_APART:
            say(f"  {name}: {compact(value)}", hang=4)
    if error.retry_after is not None:
        say(f"Try again in {error.retry_after} s.")
    if hint := _hint(error, url):
        say(f"hint: {hint}", hang=6)
    if problem.get("request_id"):
        say(f"request id: {problem['request_id']}", style="dim")


def show_violations(say: Say, violations: Iterable[Mapping[str, Any]]) -> None:
    violations = list(violations)
    width = max((len(compact(violation.get("field"))) for violation in violations), default=0)
    for violation in violations:
        names = [name for name in ("observed", "limit") if violation.get(name) is not None]
        # A request within the limit can exceed what is free.
        words = {"observed": "requested"} if violation.get("code") == "quota_exceeded" else {}
        facts = ", ".join(f"{words.get(name, name)} {compact(violation[name])}" for name in names)
        field = compact(violation.get("field"))
        blank = " " * (width - len(field) + 1 if facts else 0)
        say(Text.assemble("  ", (field, "bold"), blank), Text(facts, "yellow"), hang=6)
        say(f"      {violation.get('message')}", hang=6)
        if violation.get("hint"):
            say(f"      hint: {violation['hint']}", hang=12)


def _show_quota(say: Say, problem: Mapping[str, Any]) -> None:
    quota, holders = problem.get("quota"), problem.get("held_by")
    if isinstance(quota, Mapping):
        kinds = [kind for kind in ("used", "reserved", "requested", "limit") if isinstance(quota.get(kind), Mapping)]
        found = dict.fromkeys(resource for kind in kinds for resource in quota[kind])
        resources = [each for each in found if "limit" not in kinds or quota["limit"].get(each) not in (None, {})]
        rows = [
            (resource, *(show_quantity(resource, quota[kind].get(resource)) for kind in kinds))
            for resource in resources
        ]
        for line in lay_out(columns("RESOURCE", *map(str.upper, kinds)), rows, width=None, indent=2):
            say(line)
    if isinstance(holders, list) and holders:
        count = problem.get("held_by_count", len(holders))
        more = f" and {count - HOLDERS_SHOWN} more" if isinstance(count, int) and count > HOLDERS_SHOWN else ""
        names = problem.get("held_by_names")
        shown = (_with_name(holder, names) for holder in holders[:HOLDERS_SHOWN])
        say(f"  held by {', '.join(shown)}{more}", hang=10)


def _with_name(holder: object, names: object) -> str:
    name = names.get(holder) if isinstance(names, Mapping) and isinstance(holder, str) else None
    return compact(holder) + (f" ({compact(name)})" if name else "")


def _show_candidates(say: Say, candidates: object) -> None:
    if isinstance(candidates, list):
        rows = [[item.get(key) for key in ("id", "name", "state")] for item in candidates if isinstance(item, Mapping)]
        for line in lay_out(columns("ID", "NAME", "STATE"), rows, width=None, indent=2):
            say(line)


def _hint(error: RequestFailed, url: str) -> str | None:
    """Return the server's hint, or the command line's own about how it was called."""
    match error.code:
        case "unreachable":
            job_id = error.problem.get("id")
            exists = f"; `runway status {job_id}` shows whether the job exists" if job_id else ""
            return f"check that Runway runs there (curl {url.rstrip('/')}/readyz), and --url or RUNWAY_URL{exists}"
        case "tenant_required":
            return "use --tenant NAME, export RUNWAY_TENANT=NAME, or set `tenant` in .runway.yaml"
        case "unknown_tenant":
            return "check --tenant and RUNWAY_TENANT: `runway quota` without a tenant lists the tenants of the policy"
        case "logs_not_ready":
            return "use `runway logs -f`: it waits for the log"
        case "outcome_unknown" if error.problem.get("id"):
            return f"run `runway status {error.problem['id']}`: it shows whether the job exists"
    hint = error.problem.get("hint")
    return None if hint is None else compact(hint)
