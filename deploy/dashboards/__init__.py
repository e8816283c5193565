"""The Grafana dashboard as code.

`python -m deploy.dashboards` writes deploy/chart/files/dashboard.json. The rows show the health of the platform, its
capacity and cost, the tenants, the GPUs and the waiting jobs, then Runway itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards import capacity, control_plane, tenants
from deploy.dashboards.panels import assemble, choice

FILE: Final = Path(__file__).resolve().parents[1] / "chart" / "files" / "dashboard.json"
"""The chart makes a ConfigMap of this file, with the runbook links of the installation."""


def rendered() -> str:
    """Render the content of the file. The same source always gives the same text."""
    dashboard = assemble(
        "runway",
        "Runway",
        "Health, capacity, tenants, GPUs and Runway. Every panel links to its runbook.",
        [
            ("Health", control_plane.health()),
            capacity.capacity_and_cost(),
            tenants.row(),
            capacity.gpus(),
            capacity.waiting(),
            *control_plane.rows(),
        ],
        choice("tenant", "Tenant", "label_values(runway_tenant_info, tenant)"),
    )
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
