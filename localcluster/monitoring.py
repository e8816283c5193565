"""Prometheus for the containers of the local cluster and for Runway.

It scrapes the kubelet's cAdvisor for CPU, throttling and memory of each pod's cgroup, and every Runway that a file in
TARGET_DIR lists. https://prometheus.io/docs/prometheus/2.42/configuration/configuration/
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from localcluster import addresses, api, files, paths, pki
from localcluster.component import ComponentSpec

PROMETHEUS_CONFIG = paths.CONFIG_DIR / "prometheus.json"
# Prometheus reloads this directory when a file in it changes.
TARGET_DIR = paths.CONFIG_DIR / "prometheus-targets"

# The kubelet samples each cgroup every 2 s (--housekeeping-interval); a shorter interval gives no new samples.
KUBELET_INTERVAL = "2s"
RUNWAY_INTERVAL = "5s"


def prometheus() -> ComponentSpec:
    return ComponentSpec(
        name="prometheus",
        argv=(
            "prometheus",
            f"--config.file={PROMETHEUS_CONFIG}",
            f"--web.listen-address={addresses.LOOPBACK}:{addresses.PROMETHEUS_PORT}",
            f"--storage.tsdb.path={paths.PROMETHEUS_DIR}",
            # Enough for a demo or a test run on a developer's disk. The first limit reached counts.
            "--storage.tsdb.retention.time=6h",
            "--storage.tsdb.retention.size=256MB",
            "--log.level=warn",
        ),
        files={
            PROMETHEUS_CONFIG: json.dumps(_config(), indent=2) + "\n",
            # The address of Runway under `make serve`; it may be down.
            TARGET_DIR / "runway.json": _targets(f"{addresses.LOOPBACK}:{addresses.RUNWAY_PORT}"),
        },
        # After a kill it is ready only when it has replayed its write-ahead log.
        why_not_healthy=lambda: api.why_not_healthy(f"{addresses.PROMETHEUS_URL}/-/ready"),
    )


def kubelet_reader() -> str:
    """Return the manifest that lets Prometheus read the kubelet's metrics and nothing else.

    https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/#kubelet-authorization
    """
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": pki.PROMETHEUS_USER},
        "rules": [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": pki.PROMETHEUS_USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": pki.PROMETHEUS_USER},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": pki.PROMETHEUS_USER}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]})


@contextmanager
def scraping(target: str) -> Iterator[None]:
    """Have Prometheus scrape one more Runway at this "host:port" meanwhile."""
    file = TARGET_DIR / f"runway-{target.replace(':', '-')}.json"
    files.write(file, _targets(target))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _targets(target: str) -> str:
    return json.dumps([{"targets": [target]}]) + "\n"


def _config() -> dict[str, Any]:
    cadvisor = {
        "job_name": "cadvisor",
        "scrape_interval": KUBELET_INTERVAL,
        "scrape_timeout": KUBELET_INTERVAL,
        "scheme": "https",
        "metrics_path": "/metrics/cadvisor",
        "tls_config": {
            "ca_file": str(pki.CA),
            "cert_file": str(pki.certificate("prometheus")),
            "key_file": str(pki.key("prometheus")),
        },
        "static_configs": [{"targets": [f"{addresses.BRIDGE_ADDRESS}:{addresses.KUBELET_PORT}"]}],
        # Most samples are of disks, network and the machine, and no query uses them.
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": "container_(cpu|memory)_.*", "action": "keep"},
        ],
    }
    runway = {
        "job_name": "runway",
        "scrape_interval": RUNWAY_INTERVAL,
        "scrape_timeout": RUNWAY_INTERVAL,
        "file_sd_configs": [{"files": [f"{TARGET_DIR}/*.json"], "refresh_interval": "5s"}],
    }
    return {"scrape_configs": [cadvisor, runway]}
