"""One Runway on the real local Kubernetes for all of these tests, and a stage for each.

A cluster that is missing fails them: nothing here skips. Each test ends the jobs that it submitted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.api import Api
from demo.kernel import Kernel
from demo.kubectl import Kubectl
from demo.server import CHECKOUT, Server
from demo.stage import Stage, Tools
from demo.tenants import apply_tenants
from localcluster import LocalCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What rebuilds the cluster comes last, since nothing submitted before survives it."""
    items.sort(key=lambda item: item.get_closest_marker("recovery") is not None)


@pytest.fixture(scope="session")
def policy_file() -> Path:
    return CHECKOUT / "config" / "policy.local.yaml"


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    return LocalCluster.default().kubeconfig


@pytest.fixture(scope="session")
def kubernetes(kubeconfig: Path, policy_file: Path) -> Kubectl:
    """The cluster, with the tenants of the policy in place."""
    kubectl = Kubectl(kubeconfig)
    apply_tenants(kubectl, policy_file)
    return kubectl


@pytest.fixture(scope="session")
def server(
    kubernetes: Kubectl, kubeconfig: Path, policy_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Runway as a process of its own. A test that kills it starts it again."""
    assert kubernetes.select("nodes") != []
    environment = {
        "KUBECONFIG": str(kubeconfig),
        "RUNWAY_POLICY": str(policy_file),
        "RUNWAY_PROMETHEUS_URL": LocalCluster.default().prometheus_url,
    }
    with Server(tmp_path_factory.mktemp("runway") / "runway.log", environment) as running:
        running.start()
        yield running


@pytest.fixture(scope="session")
def tools(server: Server, kubernetes: Kubectl) -> Iterator[Tools]:
    with Api(server.url) as api, Kernel() as kernel:
        yield Tools(api, kubernetes, kernel, server)


@pytest.fixture
def stage(tools: Tools) -> Iterator[Stage]:
    """Submit jobs and wait for them; those that still run are cancelled after the test."""
    used = Stage(tools, show=lambda *_: None)
    yield used
    used.end_jobs()


@pytest.fixture
def demo_environment(
    monkeypatch: pytest.MonkeyPatch, server: Server, kubeconfig: Path, policy_file: Path
) -> Iterator[None]:
    """The environment in which `make demo` runs the demo, which is the writer for that time."""
    assert os.environ.get("DEMO_IMAGE") is None
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("RUNWAY_POLICY", str(policy_file))
    server.stop()
    yield
    server.start()
