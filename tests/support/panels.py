"""The committed dashboard as Grafana reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deploy.dashboards import FILE

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel. `instant` queries ask for the current value, the others for a time range."""

    where: str
    expression: str
    instant: bool


def dashboard() -> Json:
    """Read the committed dashboard."""
    found: Json = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def panels() -> list[Json]:
    """Return the panels without the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Return every query of every panel."""
    return [
        Query(f"{panel['title']} {target['refId']}", target["expr"], target["instant"])
        for panel in panels()
        for target in panel["targets"]
    ]
