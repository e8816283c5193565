"""Export chart/files/prometheusrule.yaml as a plain Prometheus rule file.

For promtool, or for a Prometheus without the operator: `python -m deploy.export_rules > rules.yaml`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

OBSERVABILITY: Final = Path(__file__).parent / "observability"
"""The promtool tests of the rules."""
RULES: Final = Path(__file__).parent / "chart" / "files" / "prometheusrule.yaml"


def rule_file() -> dict[str, Any]:
    """Return the spec of the PrometheusRule, which has the format of a rule file.

    https://prometheus-operator.dev/docs/developer/alerting/#deploying-prometheus-rules
    """
    document: dict[str, Any] = yaml.safe_load(RULES.read_text())
    spec: dict[str, Any] = document["spec"]
    return spec


if __name__ == "__main__":
    yaml.safe_dump(rule_file(), sys.stdout, sort_keys=False)
