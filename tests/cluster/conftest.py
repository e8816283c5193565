"""Fixtures for tests on the local Kubernetes: one Runway per pytest process.

A missing cluster fails the tests; no test is skipped. Each test cancels the jobs that it submitted.

Several pytest processes share the cluster (`pytest -n 5`). Each has its own namespaces and its own Lease, so its Runway
counts no other jobs. They share the node, its two CPUs, the components and the cluster-wide objects. A test that
disturbs these is marked `alone`. `make test` runs such tests one by one, in a second cluster.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from deploy import deployment
from deploy.deployment import DeployedRunway
from localcluster import LocalCluster
from testbed.context import Context, Tools
from testbed.http_client import RunwayClient
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl
from testbed.server import CHECKOUT, Server
from testbed.storage import provide_storage
from testbed.tenants import apply_tenants
from tests.support.locks import one_at_a_time

POLICY = CHECKOUT / "config" / "policy.local.yaml"
"""The documents use its namespaces, and `deploy/values/local.yaml` the Lease in `default`."""


NAMES_OF_THE_DOCUMENTS = ("test_deployed.py", "test_chart.py")
"""They install Runway as the documents do, one after the other."""


class _Distribution(LoadScopeScheduling):  # type: ignore[misc]
    """Distribute single tests to the next free process, and modules with module fixtures as a whole.

    Otherwise each process would set up the fixtures. Modules that install the same names go to one process, or another
    would wait for them. The largest modules go first, and then the tests marked `long`.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if Path(module).name in NAMES_OF_THE_DOCUMENTS:
            return "names of the documents"
        return module if _has_module_fixtures(module) else nodeid


@cache
def _has_module_fixtures(module: str) -> bool:
    return '@pytest.fixture(scope="module")' in (CHECKOUT / module).read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Distribution:
    """Distribute the tests: https://pytest-xdist.readthedocs.io/en/stable/distribution.html"""
    return _Distribution(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by marker: `long` first, `alone` after the others, and `recovery` last, since no job survives it."""
    items.sort(key=lambda item: [_is_marked(item, "recovery"), _is_marked(item, "alone"), not _is_marked(item, "long")])


def _is_marked(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None


@pytest.fixture(autouse=True)
def garbage() -> Iterator[None]:
    """Collect what the test left, so that an open connection fails this test and not a later one."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def suffix(worker_id: str) -> str:
    """Return the suffix of this process's names: `-gw0`, `-gw1` and so on, or empty for a single process."""
    return "" if worker_id == "master" else f"-{worker_id}"


@pytest.fixture(scope="session")
def policy_file(suffix: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the local policy with namespaces that no other process of this run uses."""
    text = POLICY.read_text(encoding="utf-8")
    for tenant in ("vision", "speech", "research"):
        assert f"namespace: runway-{tenant}," in text
        text = text.replace(f"namespace: runway-{tenant},", f"namespace: runway-{tenant}{suffix},")
    file = tmp_path_factory.mktemp("policy") / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    return LocalCluster.default().kubeconfig


@pytest.fixture(scope="session")
def kubernetes(kubeconfig: Path, policy_file: Path) -> Kubectl:
    """Apply the tenants of the policy, with their volumes and Secrets, and return the cluster's kubectl."""
    kubectl = Kubectl(kubeconfig)
    apply_tenants(kubectl, policy_file)
    provide_storage(kubectl, policy_file)
    return kubectl


@pytest.fixture(scope="session")
def settings(suffix: str, kubernetes: Kubectl, kubeconfig: Path, policy_file: Path) -> Mapping[str, str]:
    """Return the environment of every Runway of this process: kubeconfig, policy and Lease namespace."""
    namespace = f"runway-lease{suffix}" if suffix else "default"
    if suffix:
        kubernetes.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
    return {
        "KUBECONFIG": str(kubeconfig),
        "RUNWAY_POLICY": str(policy_file),
        "RUNWAY_LEASE_NAMESPACE": namespace,
    }


@pytest.fixture(scope="session")
def server(
    kubernetes: Kubectl, settings: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Run Runway as a separate process. A test that kills it starts it again."""
    assert kubernetes.select("nodes") != []
    environment = {**settings, "RUNWAY_PROMETHEUS_URL": LocalCluster.default().prometheus_url}
    with Server(tmp_path_factory.mktemp("runway") / "runway.log", environment) as running:
        running.start()
        yield running


@pytest.fixture(scope="session")
def tools(server: Server, kubernetes: Kubectl) -> Iterator[Tools]:
    with RunwayClient(server.url) as api, Kernel() as kernel:
        yield Tools(api, kubernetes, kernel, server)


@pytest.fixture
def context(tools: Tools) -> Iterator[Context]:
    """Submit jobs and wait for them; cancel unfinished jobs after the test."""
    used = Context(tools, show=lambda *_: None)
    yield used
    used.cancel_jobs()


@pytest.fixture(scope="session")
def namespaces(tools: Tools) -> Mapping[str, str]:
    """Map each tenant to its namespace."""
    return {name: str(tenant["namespace"]) for name, tenant in tools.runway.policy()["tenants"].items()}


@pytest.fixture
def demo_environment(monkeypatch: pytest.MonkeyPatch, server: Server, settings: Mapping[str, str]) -> Iterator[None]:
    """Set the environment of `make demo`, whose Runway is the leader meanwhile."""
    assert os.environ.get("DEMO_IMAGE") is None
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server.stop()
    # Its report and its log have fixed paths in the checkout.
    with one_at_a_time("demo"):
        yield
    server.start()


@pytest.fixture(scope="module")
def deployed(server: Server, kubernetes: Kubectl) -> Iterator[DeployedRunway]:
    """Deploy Runway under the names of the documents, and stop the shared server meanwhile."""
    with one_at_a_time("names-of-the-documents"):
        server.stop()
        try:
            deployment.up(kubernetes, POLICY)
            with DeployedRunway(kubernetes) as running:
                running.start()
                yield running
        finally:
            try:
                deployment.down(kubernetes)
            finally:
                server.start()
