"""The PromQL query for idle GPUs, evaluated by promtool on synthetic series of DCGM's exporter."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from runway.controllers.idle_gpus import promql
from runway.jobs.gpu_idle import GpuFigure, GpuFigures, judge
from testbed.waiting import GUARD_SECONDS

HOUR = 3600
POD = 'namespace="runway-vision",pod="rw-a-1",Hostname="node-1"'
EXPORTED = 'namespace="gpu",pod="dcgm-1",exported_namespace="runway-vision",exported_pod="rw-b-1",Hostname="node-1"'
OTHERS = 'namespace="runway-speech",pod="rw-a-1"', 'namespace="runway-vision",pod="rw-a-10"'

# Samples each 30 seconds, in promtool's notation; `_` is a missing sample.
SERIES = {
    f'DCGM_FI_DEV_GPU_UTIL{{{POD},gpu="0",UUID="GPU-0"}}': "90x9 2x131",  # Idle after 5 of 70 minutes.
    f'DCGM_FI_DEV_GPU_UTIL{{{POD},gpu="1",UUID="GPU-1"}}': "1x60 _x20 1x60",  # A gap of ten minutes.
    f'DCGM_FI_DEV_GPU_UTIL{{{EXPORTED},gpu="2",UUID="GPU-2"}}': "0x140",
    f'DCGM_FI_DEV_GPU_UTIL{{{OTHERS[0]},gpu="3",UUID="GPU-3"}}': "99x140",
    f'DCGM_FI_DEV_GPU_UTIL{{{OTHERS[1]},gpu="4",UUID="GPU-4"}}': "99x140",
}
MEASURED: dict[tuple[str, str], GpuFigures] = {
    ("rw-a-1", "0"): {GpuFigure.PEAK: 2, GpuFigure.SLOTS: 61, GpuFigure.EARLY_PEAK: 2, GpuFigure.EARLY_SLOTS: 16,
                      GpuFigure.AGE: 0},
    ("rw-a-1", "1"): {GpuFigure.PEAK: 1, GpuFigure.SLOTS: 52, GpuFigure.EARLY_PEAK: 1, GpuFigure.EARLY_SLOTS: 16,
                      GpuFigure.AGE: 0},
    ("rw-b-1", "2"): {GpuFigure.PEAK: 0, GpuFigure.SLOTS: 61, GpuFigure.EARLY_PEAK: 0, GpuFigure.EARLY_SLOTS: 16,
                      GpuFigure.AGE: 0},
}  # fmt: skip


def test_query_measures_each_gpu_of_the_pods(tmp_path: Path) -> None:
    expected = [
        {
            "labels": f'{{pod="{pod}",gpu="{gpu}",UUID="GPU-{gpu}",Hostname="node-1",figure="{figure}"}}',
            "value": value,
        }
        for (pod, gpu), figures in MEASURED.items()
        for figure, value in figures.items()
    ]
    case = {
        "interval": "30s",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "promql_expr_test": [
            {"expr": promql("runway-vision", ["rw-a-1", "rw-b-1"], HOUR), "eval_time": "70m", "exp_samples": expected}
        ],
    }
    file = tmp_path / "idle.json"
    file.write_text(json.dumps({"evaluation_interval": "30s", "tests": [case]}))
    found = shutil.which("promtool")
    assert found, "promtool is not installed: it comes with Debian's package prometheus (`make cluster-up`)"
    done = subprocess.run(
        [found, "test", "rules", str(file)], capture_output=True, text=True, timeout=GUARD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_measured_gap_of_more_than_a_tenth_is_unknown() -> None:
    def whole(*gpus: tuple[str, str]) -> bool:
        found = judge([MEASURED[gpu] for gpu in gpus], len(gpus), below_percent=5, for_seconds=HOUR, cancels=True)
        return found is not None and found.is_full

    assert whole(("rw-a-1", "0"))
    assert whole(("rw-b-1", "2"))
    assert not whole(("rw-a-1", "0"), ("rw-a-1", "1"))
