"""Capacity on the real cluster: autoscaler events, packing, pools, and idle GPUs by a simulated DCGM exporter.

The exporter is simulated, since the local cluster has no GPUs. The real Prometheus scrapes it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from localcluster import LocalCluster
from localcluster.monitoring import scraping
from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, shell
from testbed.kubectl import Kubectl
from testbed.server import Server

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 0' TERM; echo started; sleep 900 & wait"
ONE_GPU = {"cpu": "100m", "memory": "32Mi", "gpu": 1}
NO_NODES = {
    "instance_type": "none", "hourly_usd": "1", "cpu": "1", "memory": "1Gi", "max_nodes": 3,
    "node_selector": {"runway.local/size": "none"},
}  # fmt: skip
IDLE = {"below_percent": 5, "for_seconds": 60, "action": "cancel"}
IDLE_SECONDS = 240.0
"""A minute to be measured, up to a minute to the next check, and the scrapes; the machine may be slow."""


class DcgmExporter:
    """Serves the utilisation of the GPUs of each pod as NVIDIA's exporter does, on a loopback port."""

    def __init__(self) -> None:
        self.utilisation: dict[tuple[str, str], tuple[float, ...]] = {}
        """Percent of each GPU by namespace and pod."""
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.render().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.target = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter")

    def __enter__(self) -> DcgmExporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def render(self) -> str:
        lines = ["# TYPE DCGM_FI_DEV_GPU_UTIL gauge"]
        gpus = [(pod, value) for pod, values in list(self.utilisation.items()) for value in values]
        for number, ((namespace, pod), value) in enumerate(gpus):
            labels = f'gpu="{number}",UUID="GPU-sim-{number}",Hostname="node",namespace="{namespace}",pod="{pod}"'
            lines.append(f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} {value}")
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def capacity(
    server: Server, kubernetes: Kubectl, settings: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    """Run Runway with a pool without nodes, and with a limit of idle GPUs that ends jobs."""
    folder = tmp_path_factory.mktemp("capacity")
    policy = yaml.safe_load(Path(settings["RUNWAY_POLICY"]).read_text())
    policy["pools"]["none"] = NO_NODES
    policy["limits"]["idle_gpu"] = IDLE
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    environment = {
        **settings,
        "RUNWAY_POLICY": str(folder / "policy.yaml"),
        "RUNWAY_PROMETHEUS_URL": LocalCluster.default().prometheus_url,
    }
    server.stop()
    try:
        with Server(folder / "runway.log", environment) as runway, RunwayClient(runway.url) as api:
            runway.start()
            context = Context(Tools(api, kubernetes, None, runway), show=lambda *_: None)
            try:
                yield context
            finally:
                context.cancel_jobs()
    finally:
        server.start()


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]


def post_event(context: Context, pod: Document, reason: str, message: str) -> None:
    """Post a normal event on a pod, as an autoscaler does."""
    meta = pod["metadata"]
    about = {"kind": "Pod", "apiVersion": "v1", **{name: meta[name] for name in ("namespace", "name", "uid")}}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{reason.lower()}", "namespace": meta["namespace"]},
        "involvedObject": about,
        "type": "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": "cluster-autoscaler"},
        "lastTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    context.kubernetes.run("create", f"--namespace={meta['namespace']}", "-f", "-", stdin=json.dumps(event))


def test_idle_job_is_ended_and_busy_and_unmeasured_jobs_run_on(capacity: Context) -> None:
    """The first test: Runway's first check, a minute after its start, then finds the job idle for long enough."""
    spec = shell(SLEEP, resources=ONE_GPU, timeout_seconds=600)
    partly_idle = capacity.submit("speech", spec | {"resources": ONE_GPU | {"gpu": 2}})
    idle, busy, unmeasured = (capacity.submit("vision", spec) for _ in range(3))
    with DcgmExporter() as exporter, scraping(exporter.target):
        utilisation: dict[tuple[str, str], tuple[float, ...]] = {}
        for view, percents in ((partly_idle, (2.0, 90.0)), (idle, (0.0,)), (busy, (90.0,))):
            capacity.until_log(view["id"], "started")
            meta = capacity.pod(view)["metadata"]
            utilisation[meta["namespace"], meta["name"]] = percents
        exporter.utilisation = utilisation  # All at once, so that one check finds the idle GPUs of both jobs.
        ended = capacity.until_finished(idle["id"], IDLE_SECONDS)
        reported = capacity.until(partly_idle["id"], lambda seen: codes(seen) == ["gpu_idle"], "idle", IDLE_SECONDS)
        assert 'runway_idle_gpus{gpu_type="a10g",tenant="speech"} 1.0' in capacity.runway.get("/metrics").text
    (condition,) = reported["conditions"]
    assert condition["message"] == "1 of 2 GPUs of the job had a utilisation of at most 2 % for 1m (the limit is 5 %)"
    assert reported["state"] == "running"
    assert (ended["state"], ended["failure"]["code"]) == ("failed", "gpu_idle")
    assert ended["failure"]["evidence"]["peak_percent"] == "0"
    assert ended["attempts"][-1]["cause"] == "gpu_idle"
    for view in (busy, unmeasured):
        found = capacity.runway.job(view["id"])
        assert (found["state"], codes(found)) == ("running", [])
        assert capacity.runway.cancel(view["id"]).status_code == 202


def test_normal_event_of_an_autoscaler_becomes_a_condition(capacity: Context) -> None:
    view = capacity.submit("vision", shell("true", pool="none", timeout_seconds=300))
    waiting = capacity.until(view["id"], lambda seen: "unschedulable" in codes(seen), "unschedulable")
    assert waiting["spec"]["pool"] == "none"
    pod = capacity.pod(view)
    post_event(capacity, pod, "TriggeredScaleUp", "pod triggered scale-up: [{eks-none-36c1 0->1 (max: 3)}]")
    found = capacity.until(view["id"], lambda seen: "node_starting" in codes(seen), "node_starting")
    message = next(each["message"] for each in found["conditions"] if each["code"] == "node_starting")
    assert "eks-none-36c1 0->1" in message
    assert 'runway_waiting_jobs{condition="node_starting",tenant="vision"} 1.0' in capacity.runway.get("/metrics").text


def test_scheduler_accepts_the_packing_affinity(capacity: Context) -> None:
    view = capacity.submit("vision", shell(SLEEP, resources=ONE_GPU))
    capacity.until_log(view["id"], "started")
    spec = capacity.pod(view)["spec"]
    (preference,) = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preference["podAffinityTerm"]["labelSelector"] == {"matchLabels": {"runway.internal/pool": "a10g"}}
    metrics = capacity.runway.get("/metrics").text
    assert 'runway_pool_nodes{pool="a10g",state="ready"} 1.0' in metrics
    assert 'runway_pool_nodes_without_gpu_pods{pool="a10g"} 0.0' in metrics
