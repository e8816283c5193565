"""A resync finds changes that a stalled watch missed, and counts them as drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from testbed.context import Context
from testbed.http_client import shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.cluster


@pytest.fixture
def proxy(kubeconfig: Path) -> Iterator[TcpProxy]:
    target = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    assert target.hostname is not None
    assert target.port is not None
    with TcpProxy(target.hostname, target.port) as running:
        yield running


@pytest.fixture
def reader(
    server: Server, proxy: TcpProxy, kubeconfig: Path, settings: Mapping[str, str], tmp_path: Path
) -> Iterator[Server]:
    """Run a second Runway that reaches the API server through the proxy."""
    assert server.pid is not None
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    through = tmp_path / "kubeconfig"
    through.write_text(yaml.safe_dump(config))
    environment = {**settings, "KUBECONFIG": str(through), "RUNWAY_RESYNC_SECONDS": "10"}
    with Server(tmp_path / "reader.log", environment) as running:
        running.launch()
        wait_for(lambda: role(running) == "reader" or None, "second Runway ready as a reader")
        yield running


@pytest.mark.long
def test_resync_finds_job_that_finished_during_stalled_watch(context: Context, proxy: TcpProxy, reader: Server) -> None:
    job = context.submit("vision", shell("trap 'exit 0' TERM; echo started; sleep 600 & wait"))
    context.until_log(job["id"], "started")
    with httpx2.Client(base_url=reader.url, trust_env=False, timeout=GUARD_SECONDS) as other:

        def state() -> str | None:
            answer = other.get(f"/v1/jobs/{job['id']}")
            return str(answer.json()["state"]) if answer.status_code == 200 else None

        wait_for(lambda: state() == "running" or None, "the reader sees it run")
        losses = metric(other, "runway_watch_losses_total")
        assert proxy.silence() >= 2
        context.runway.cancel(job["id"])
        assert context.until_finished(job["id"])["state"] == "cancelled"
        wait_for(lambda: state() == "cancelled" or None, "the reader sees it cancelled")
        assert metric(other, "runway_resync_corrections_total") > 0
        assert metric(other, "runway_watch_losses_total") == losses, "the stalled watches stay open"


def role(server: Server) -> str | None:
    try:
        return server.role()
    except httpx2.TransportError:
        return None


def metric(client: httpx2.Client, name: str) -> float:
    """Return the sum of a metric over its labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)
