"""Policy changes while jobs run: quota up and down, tenants added and removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed.http_client import FINISHED, Document, RunwayClient, document, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.tenants import apply_tenants
from testbed.waiting import wait_for
from tests.support.allowed import allowed

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
VISION = ", quota: {gpu: 4, "
"""Only tenant vision has this many."""
SPEECH = "  speech: {namespace: "
AUDIO = """\
  audio:
    namespace: NAMESPACE
    quota: {gpu: 1, cpu: "1", memory: 1Gi, jobs: 5}
    rate: {per_minute: 60, burst: 20}
"""
Edit = tuple[str, str]


class Operator:
    """Edit the policy, apply the tenants unless `apply` is false, and restart Runway."""

    def __init__(self, kubernetes: Kubectl, settings: Mapping[str, str], folder: Path) -> None:
        self.kubernetes = kubernetes
        self._settings = settings
        self.original = Path(settings["RUNWAY_POLICY"])
        self.policy = folder / "policy.yaml"
        self._log = folder / "runway.log"
        self._running: ExitStack | None = None

    def serve(self, *edits: Edit, apply: bool = True) -> RunwayClient:
        """Restart Runway with these edits of the local policy."""
        self.close()
        text = self.original.read_text()
        for old, new in edits:
            assert text.count(old) == 1
            text = text.replace(old, new)
        self.policy.write_text(text)
        if apply:
            apply_tenants(self.kubernetes, self.policy)
        self._running = ExitStack()
        environment = {**self._settings, "RUNWAY_POLICY": str(self.policy)}
        server = self._running.enter_context(Server(self._log, environment))
        server.start()
        return self._running.enter_context(RunwayClient(server.url))

    def close(self) -> None:
        """Stop the Runway of the last edits."""
        if self._running is not None:
            self._running.close()
            self._running = None


@pytest.fixture
def operator(
    server: Server,
    kubernetes: Kubectl,
    settings: Mapping[str, str],
    policy_file: Path,
    namespaces: Mapping[str, str],
    tmp_path: Path,
) -> Iterator[Operator]:
    """Stop the shared server during the test; afterwards restore the tenants without jobs."""
    server.stop()
    using = Operator(kubernetes, settings, tmp_path)
    try:
        yield using
    finally:
        using.close()
        for tenant in ("vision", "speech"):
            kubernetes.run("delete", "jobs", "--all", f"--namespace={namespaces[tenant]}")
        apply_tenants(kubernetes, policy_file)
        server.start()


@pytest.mark.long
def test_quota_is_raised_and_lowered_below_usage(operator: Operator) -> None:
    runway = operator.serve()
    first = running(runway, "vision", gpus(4))
    assert runway.submit("vision", gpus(2)).json()["code"] == "quota_exceeded"

    runway = operator.serve((VISION, VISION.replace("4", "6")))
    second = running(runway, "vision", gpus(2))
    assert figures(runway) == (6, 6)

    runway = operator.serve((VISION, VISION.replace("4", "1")))
    assert figures(runway) == (1, 6)
    assert {runway.job(job_id)["state"] for job_id in (first, second)} == {"running"}
    refused = runway.submit("vision", gpus(1)).json()
    assert refused["violations"][0]["message"] == "6 of 1 are used or reserved, 0 free"
    assert runway.submit("vision", shell("true")).status_code == 201

    assert runway.cancel(first).status_code == 202
    finished(runway, first)
    assert figures(runway) == (1, 2)
    assert runway.submit("vision", gpus(1)).json()["code"] == "quota_exceeded"
    assert runway.cancel(second).status_code == 202
    finished(runway, second)
    finished(runway, running(runway, "vision", shell("echo started", resources=gpus(1)["resources"])))


def test_resource_quota_limits_quota_raised_only_in_policy(operator: Operator) -> None:
    runway = operator.serve((VISION, VISION.replace("4", "6")), apply=False)
    first = running(runway, "vision", gpus(4))
    waiting = document(runway.submit("vision", gpus(2)))["id"]
    # The event with the reason arrives a moment after the job.
    wait_for(lambda: "quota_backstop" in codes(runway.job(waiting)) or None, "quota_backstop")
    runway.cancel(first)


@pytest.mark.long
def test_tenant_is_added(operator: Operator, suffix: str) -> None:
    namespace = f"runway-audio{suffix}"
    added = (SPEECH, f"{AUDIO.replace('NAMESPACE', namespace)}{SPEECH}")
    runway = operator.serve(added, apply=False)
    early = runway.submit("audio", shell("true"))
    assert (early.status_code, early.json()["code"]) == (503, "kubernetes_unavailable")
    assert f"namespace {namespace} does not exist" in early.json()["detail"]
    try:
        apply_tenants(operator.kubernetes, operator.policy)
        ended = finished(runway, document(runway.submit("audio", shell("true")))["id"])
        assert ended["state"] == "succeeded"

        # An operator deletes the namespace by mistake, with a job in it.
        job_id = running(runway, "audio", gpus(1))
    finally:
        operator.kubernetes.run("delete", "namespace", namespace)
    wait_for(lambda: used(runway, "audio") == 0 or None, "quota released")
    assert runway.get(f"/v1/jobs/{job_id}").status_code == 404
    assert f"namespace {namespace} does not exist" in runway.submit("audio", shell("true")).json()["detail"]


def test_removed_tenant_with_running_job_is_added_back(operator: Operator, namespaces: Mapping[str, str]) -> None:
    runway = operator.serve()
    job_id = running(runway, "speech", gpus(1))
    line = next(line for line in operator.original.read_text().splitlines() if line.startswith(SPEECH))

    runway = operator.serve((f"{line}\n", ""))
    assert runway.submit("speech", shell("true")).json()["code"] == "unknown_tenant"
    assert runway.get(f"/v1/jobs/{job_id}").status_code == 404
    assert runway.cancel(job_id).status_code == 404
    [pod] = operator.kubernetes.pods(namespaces["speech"], job_id)
    assert pod["status"]["phase"] == "Running"

    runway = operator.serve()
    assert (runway.job(job_id)["state"], used(runway, "speech")) == ("running", 1)
    runway.cancel(job_id)
    assert finished(runway, job_id)["state"] == "cancelled"


def gpus(number: int) -> Document:
    return shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": number}, timeout_seconds=300)


def running(runway: RunwayClient, tenant: str, spec: Document) -> str:
    """Submit a job, retrying while the rate limit rejects it, and wait for its first log line."""
    job_id = str(allowed(runway, tenant, spec)["id"])
    wait_for(lambda: "started" in runway.log(job_id).text or None, f"job {job_id} has started")
    return job_id


def finished(runway: RunwayClient, job_id: str) -> Document:
    """Return the view of a job as soon as it is finished."""
    return wait_for(lambda: view if (view := runway.job(job_id))["state"] in FINISHED else None, "finished")


def used(runway: RunwayClient, tenant: str) -> int:
    """Return the number of GPUs that a tenant uses."""
    return int(runway.quota(tenant)["used"]["gpu"])


def figures(runway: RunwayClient) -> tuple[int, int]:
    """Return the GPU quota of tenant vision and its usage."""
    return int(runway.quota("vision")["limit"]["gpu"]), used(runway, "vision")


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]
