"""The PromQL query for job usage, evaluated by promtool on synthetic series.

The series include GPU metrics, which the local cluster does not have.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from localcluster import LocalCluster
from runway.jobs.usage import PodFigure
from runway.prometheus import Prometheus, SeriesValue, matching, matching_any
from runway.services.job_usage import promql

pytestmark = pytest.mark.cluster

HOSTILE = ('"} or up{x="', "a\\", "line\nfeed\t\x00\x7f", "é\u2028\U0001f600", "$1 `x` {{y}}", "a|b.*[c]")

POD = 'namespace="runway-vision",pod="rw-a-1"'
CGROUP = f'{POD},container="",image=""'
CONTAINER = f'{POD},container="job",image="runway.local/busybox:1"'
SANDBOX = f'{POD},container="",image="runway.local/pause:1"'
# The pod name has the other pod's name as a prefix.
OTHER_POD = 'namespace="runway-vision",pod="rw-a-10",container="",image=""'
SAME_NAME = 'namespace="runway-speech",pod="rw-a-1",container="",image=""'
EXPORTER_LABELS = 'namespace="gpu",pod="dcgm-1",exported_namespace="runway-vision",exported_pod="rw-a-1"'

# Samples a second apart, in promtool's notation: start+step x repetitions.
SERIES = {
    f'container_cpu_usage_seconds_total{{{CGROUP},cpu="total"}}': "0+1x30",
    f'container_cpu_usage_seconds_total{{{CONTAINER},cpu="total"}}': "5+1x30",
    f'container_cpu_usage_seconds_total{{{SANDBOX},cpu="total"}}': "90+1x30",
    f'container_cpu_usage_seconds_total{{{OTHER_POD},cpu="total"}}': "70+1x30",
    f'container_cpu_usage_seconds_total{{{SAME_NAME},cpu="total"}}': "80+1x30",
    f"container_cpu_cfs_periods_total{{{CGROUP}}}": "0+10x30",
    f"container_cpu_cfs_throttled_periods_total{{{CGROUP}}}": "0+9x30",
    f"container_cpu_cfs_throttled_periods_total{{{CONTAINER}}}": "0+1x30",
    # The value after the container's exit is not its usage.
    f"container_memory_working_set_bytes{{{CGROUP}}}": "10 50 20x27 1",
    f"container_memory_max_usage_bytes{{{CGROUP}}}": "10 60x29",
    f"container_memory_cache{{{CGROUP}}}": "1 5 2x28",
    f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",{EXPORTER_LABELS}}}': "40x30",
    f'DCGM_FI_DEV_GPU_UTIL{{gpu="1",{EXPORTER_LABELS}}}': "20 80 50x28",
    f'DCGM_FI_DEV_GPU_UTIL{{gpu="2",{OTHER_POD}}}': "99x30",
    'DCGM_FI_DEV_GPU_UTIL{gpu="3",namespace="runway-vision",pod="rw-b-1"}': "30x30",
}
INJECTED = 'namespace="runway-vision",pod="rw-c-1"'
SERIES |= {
    f'container_cpu_usage_seconds_total{{{INJECTED},container="",image="",cpu="total"}}': "0+9x30",
    f'container_cpu_usage_seconds_total{{{INJECTED},container="istio-proxy",image="istio",cpu="total"}}': "0+5x30",
    f'container_cpu_usage_seconds_total{{{INJECTED},container="job",image="train",cpu="total"}}': "0+4x30",
}
EXPECTED = [
    ("rw-a-1", PodFigure.CPU_SECONDS, 30),
    ("rw-a-1", PodFigure.CPU_SAMPLED_AT, 30),
    ("rw-a-1", PodFigure.CPU_PERIODS, 300),
    ("rw-a-1", PodFigure.CPU_PERIODS_THROTTLED, 270),
    ("rw-a-1", PodFigure.MEMORY, 20),
    ("rw-a-1", PodFigure.MEMORY_PEAK, 50),
    ("rw-a-1", PodFigure.MEMORY_MOST, 60),
    ("rw-a-1", PodFigure.CACHE_PEAK, 5),
    ("rw-a-1", PodFigure.GPU_PERCENT, 45),
    ("rw-b-1", PodFigure.GPU_PERCENT, 30),
    ("rw-c-1", PodFigure.CPU_SECONDS, 120),
    ("rw-c-1", PodFigure.CPU_SAMPLED_AT, 30),
]


def test_usage_query_reads_only_cgroup_of_the_pod(tmp_path: Path) -> None:
    expected = [{"labels": f'{{pod="{pod}",figure="{figure}"}}', "value": value} for pod, figure, value in EXPECTED]
    expression = promql("runway-vision", {"rw-a-1": "", "rw-b-1": "", "rw-c-1": "job"}, 90)
    case = {
        "interval": "1s",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "30s", "exp_samples": expected}],
    }
    file = tmp_path / "usage.json"
    file.write_text(json.dumps({"evaluation_interval": "1s", "tests": [case]}))
    # https://prometheus.io/docs/prometheus/2.42/configuration/unit_testing_rules/
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_untrusted_text_is_escaped_in_promql() -> None:
    async def ask() -> list[list[SeriesValue]]:
        prometheus = Prometheus(LocalCluster.default().prometheus_url)
        try:
            # The labels of `absent` are those of its equality matchers.
            alone = [await prometheus.query(f"absent(nosuch{{{matching('x', text)}}})") for text in HOSTILE]
            return [*alone, await prometheus.query(f"absent(nosuch{{{matching_any('x', HOSTILE)}}})")]
        finally:
            await prometheus.close()

    *alone, together = asyncio.run(ask())
    assert [[dict(sample.labels) for sample in samples] for samples in alone] == [[{"x": text}] for text in HOSTILE]
    assert len(together) == 1
