"""The exported metrics and document sections that dashboards and alerts name."""

from __future__ import annotations

import re
from pathlib import Path

from runway.telemetry import GAUGES, Metrics

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRAPED = {"job", "instance", "pod", "namespace"}
"""Labels that a scrape adds to every series."""
_GPU = {"Hostname", "gpu", "UUID"}
FOREIGN = {
    "DCGM_FI_DEV_GPU_UTIL": _GPU,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": _GPU,
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": _GPU,
    "DCGM_FI_DEV_XID_ERRORS": _GPU,
    "cluster_autoscaler_failed_scale_ups_total": {"reason"},
    "cluster_autoscaler_last_activity": {"activity"},
    "container_memory_working_set_bytes": {"container"},
    "kube_pod_container_resource_limits": {"container", "resource"},
    "kube_resourcequota": {"resourcequota", "resource", "type"},
    "process_cpu_seconds_total": set[str](),
    "process_open_fds": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_start_time_seconds": set[str](),
}
"""Metrics of other exporters with their labels, and process metrics, which Runway exports too.

https://github.com/NVIDIA/dcgm-exporter/blob/main/etc/default-counters.csv
https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/proposals/metrics.md
https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics
https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""
NAME = re.compile(r"\b((?:runway|process|container|DCGM|kube|cluster_autoscaler)_\w+)(?:\{([^}]*)\})?")


def metric_names() -> dict[str, set[str]]:
    """Return every series that Runway exports, with its labels."""
    found = {name: set(labels) for name, (_, labels) in GAUGES.items()}
    for metric in vars(Metrics()).values():
        labels = set(getattr(metric, "_labelnames", ()))
        for family in metric.describe() if hasattr(metric, "describe") else ():
            if family.type == "counter":
                found[f"{family.name}_total"] = labels
            if family.type == "histogram":
                found |= {f"{family.name}_bucket": labels | {"le"}}
                found |= {f"{family.name}_{part}": labels for part in ("count", "sum")}
    return found


def faults(expression: str) -> list[str]:
    """List the unknown metrics of a PromQL expression, and the labels that a metric does not have."""
    known, found, labels = metric_names() | FOREIGN, [], set(SCRAPED)
    for name, matchers in NAME.findall(expression):
        if name not in known:
            found.append(f"{name} is not exported")
            continue
        own = known[name] | SCRAPED
        labels |= own
        found += [
            f"{name} has no label {label}" for label in re.findall(r"(\w+)\s*[!=]~?\"", matchers) if label not in own
        ]
    grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", expression))
    found += [f"nothing has a label {label}" for label in re.findall(r"\w+", grouped) if label not in labels]
    return found if NAME.search(expression) else [*found, f"no metric in {expression}"]


def sections(name: str) -> dict[str, str]:
    """Return the sections of a document by their anchors, in GitHub's form."""
    parts = re.split(r"^#{2,3} (.+)$", (DOCS / name).read_text(), flags=re.MULTILINE)
    return {title.lower().replace(" ", "-"): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}
