"""The alerts of observability/prometheusrule.yaml as a plain rule file: for promtool, or without the operator.

`python -m deploy.export_rules > rules.yaml`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

OBSERVABILITY: Final = Path(__file__).parent / "observability"


def rule_file() -> dict[str, Any]:
    """What Prometheus takes as a rule file: the spec of the PrometheusRule is just that.

    https://prometheus-operator.dev/docs/developer/alerting/#deploying-prometheus-rules
    """
    document: dict[str, Any] = yaml.safe_load((OBSERVABILITY / "prometheusrule.yaml").read_text())
    spec: dict[str, Any] = document["spec"]
    return spec


if __name__ == "__main__":
    yaml.safe_dump(rule_file(), sys.stdout, sort_keys=False)
