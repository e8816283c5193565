"""The Grafana dashboards as code. `python -m deploy.dashboards` writes them to deploy/observability/dashboards.

Three of them, by the question that they answer: `overview` (is it safe, is it up), `tenants` (who holds, waits for and
spends what) and `control_plane` (why is it slow or wrong). What every panel looks like is in `panels`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards import control_plane, overview, tenants

DIRECTORY: Final = Path(__file__).resolve().parents[1] / "observability" / "dashboards"
"""Where Kustomize finds them; one file is one ConfigMap."""


def rendered() -> Mapping[str, str]:
    """The content of each file, by its name. The same source always gives the same text."""
    made = {
        "runway-overview.json": overview.dashboard(),
        "runway-tenants.json": tenants.dashboard(),
        "runway-control-plane.json": control_plane.dashboard(),
    }
    return {
        name: json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, dashboard in made.items()
    }
