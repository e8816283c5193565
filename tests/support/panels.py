"""The committed dashboards as Grafana reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deploy.dashboards import DIRECTORY

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel. `instant` queries ask for now, the others for the time that is shown."""

    where: str
    expression: str
    instant: bool


def dashboards() -> dict[str, Json]:
    """Each committed dashboard, by the name of its file without the suffix."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.json"))}


def panels(dashboard: Json) -> list[Json]:
    """The panels that show something, which rows do not."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Every query of every panel of all dashboards."""
    return [
        Query(f"{name}: {panel['title']} {target['refId']}", target["expr"], target["instant"])
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
