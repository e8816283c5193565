"""Prometheus and the series that Runway queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runway.doctor.findings import Finding, ok, warning
from runway.errors import PrometheusUnavailable
from runway.policy import Policy
from runway.prometheus import Prometheus

SECONDS: Final = 10.0
POD_SERIES: Final = (
    "container_cpu_usage_seconds_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_memory_working_set_bytes",
)
"""Those that every kubelet has, for the cgroups of pods (docs/operations.md, "Prometheus")."""
GPU_SERIES: Final = "DCGM_FI_DEV_GPU_UTIL"
_QUERY: Final = (
    f'count by (__name__) ({{__name__=~"{"|".join(POD_SERIES)}",container="",pod!=""}}) or count by (__name__) '
    f'({{__name__="{GPU_SERIES}"}})'
)


async def check_prometheus(
    url: str | None, policy: Policy, connect: Callable[[str], Prometheus] = lambda url: Prometheus(url, seconds=SECONDS)
) -> list[Finding]:
    """Query the series once. Every fault is a warning: Runway admits jobs without Prometheus."""
    if not url:
        # The chart's URL has a name that only the cluster resolves, and this command may run elsewhere.
        observed = "not checked without a URL; without prometheus.url of the chart, the usage of jobs is unknown"
        return [warning("prometheus", "URL", observed, "give --prometheus-url, such as that of a port-forward")]
    prometheus = connect(url)
    try:
        series = {sample.labels.get("__name__", "") for sample in await prometheus.query(_QUERY)}
    except PrometheusUnavailable as error:
        return [warning("prometheus", "URL", str(error), "correct the URL, or repair Prometheus")]
    finally:
        await prometheus.close()
    findings = []
    if missing := [name for name in POD_SERIES if name not in series]:
        fix = "scrape /metrics/cadvisor of every kubelet, and keep the series of pod cgroups"
        findings.append(warning("prometheus", "cAdvisor", f"no series {', '.join(missing)}", fix))
    if GPU_SERIES not in series and any(pool.gpu for pool in policy.pools.values()):
        fix = "install DCGM exporter on the GPU nodes, and scrape it"
        findings.append(warning("prometheus", "DCGM", f"no series {GPU_SERIES}", fix))
    return findings or [ok("prometheus", "series", "all series of usage exist")]
