"""What operators do to the policy while jobs run: quota up and down, a tenant that comes and one that goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed.context import START_SECONDS
from testbed.http_client import Document, RunwayClient, document, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.tenants import apply_tenants
from testbed.waiting import wait_for
from tests.support.allowed import allowed

pytestmark = pytest.mark.cluster

STAY = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
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
    """Edits the policy, applies the tenants or forgets to, and starts Runway again."""

    def __init__(self, kubernetes: Kubectl, settings: Mapping[str, str], folder: Path) -> None:
        self.kubernetes = kubernetes
        self._settings = settings
        self.original = Path(settings["RUNWAY_POLICY"])
        self.policy = folder / "policy.yaml"
        self._log = folder / "runway.log"
        self._running: ExitStack | None = None

    def serve(self, *edits: Edit, apply: bool = True) -> RunwayClient:
        """Runway with the local policy and these edits of it."""
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
        """No Runway of these edits runs."""
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
    """For the time of a test no other process writes; after it the tenants are as they were, and without jobs."""
    server.stop()
    using = Operator(kubernetes, settings, tmp_path)
    try:
        yield using
    finally:
        using.close()
        for tenant in ("vision", "speech"):
            kubernetes.run("delete", "jobs", "--all", f"--namespace={namespaces[tenant]}", "--timeout=60s", timeout=65)
        apply_tenants(kubernetes, policy_file)
        server.start()


def test_a_quota_is_raised_and_lowered_below_what_is_held(operator: Operator) -> None:
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
    over(runway, first)
    assert figures(runway) == (1, 2)
    assert runway.submit("vision", gpus(1)).json()["code"] == "quota_exceeded"
    assert runway.cancel(second).status_code == 202
    over(runway, second)
    over(runway, running(runway, "vision", shell("echo started", resources=gpus(1)["resources"])))


def test_a_quota_that_was_raised_in_the_policy_alone_is_held_back_by_the_namespace(operator: Operator) -> None:
    runway = operator.serve((VISION, VISION.replace("4", "6")), apply=False)
    first = running(runway, "vision", gpus(4))
    waiting = document(runway.submit("vision", gpus(2)))["id"]
    # For a moment the pod is only not created yet; the event that says why follows.
    wait_for(lambda: "quota_backstop" in codes(runway.job(waiting)) or None, "held back", START_SECONDS)
    runway.cancel(first)


def test_a_tenant_comes(operator: Operator, suffix: str) -> None:
    namespace = f"runway-audio{suffix}"
    added = (SPEECH, f"{AUDIO.replace('NAMESPACE', namespace)}{SPEECH}")
    runway = operator.serve(added, apply=False)
    early = runway.submit("audio", shell("true"))
    assert (early.status_code, early.json()["code"]) == (503, "kubernetes_unavailable")
    assert f"namespace {namespace} does not exist" in early.json()["detail"]
    try:
        apply_tenants(operator.kubernetes, operator.policy)
        ended = over(runway, document(runway.submit("audio", shell("true")))["id"])
        assert ended["state"] == "succeeded"

        # And its namespace is deleted by mistake, with a job in it.
        job_id = running(runway, "audio", gpus(1))
    finally:
        operator.kubernetes.run("delete", "namespace", namespace, "--timeout=60s", timeout=65)
    wait_for(lambda: used(runway, "audio") == 0 or None, "its quota is free", 20)
    assert runway.get(f"/v1/jobs/{job_id}").status_code == 404
    assert f"namespace {namespace} does not exist" in runway.submit("audio", shell("true")).json()["detail"]


def test_a_tenant_goes_with_a_job_that_runs_and_comes_back(operator: Operator, namespaces: Mapping[str, str]) -> None:
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
    assert over(runway, job_id)["state"] == "cancelled"


def gpus(number: int) -> Document:
    return shell(STAY, resources={"cpu": "100m", "memory": "32Mi", "gpu": number}, timeout_seconds=300)


def running(runway: RunwayClient, tenant: str, spec: Document) -> str:
    """A job that has been let in and has written its first line."""
    job_id = str(allowed(runway, tenant, spec)["id"])
    wait_for(lambda: "started" in runway.log(job_id).text or None, f"job {job_id} has started", START_SECONDS)
    return job_id


def over(runway: RunwayClient, job_id: str) -> Document:
    """The view of a job once it is over."""
    done = ("succeeded", "failed", "cancelled")
    return wait_for(lambda: view if (view := runway.job(job_id))["state"] in done else None, "it is over", 45)


def used(runway: RunwayClient, tenant: str) -> int:
    """GPUs that a tenant holds."""
    return int(runway.quota(tenant)["used"]["gpu"])


def figures(runway: RunwayClient) -> tuple[int, int]:
    """The GPU quota of tenant vision, and what it holds of it."""
    return int(runway.quota("vision")["limit"]["gpu"]), used(runway, "vision")


def codes(view: Document) -> list[str]:
    return [condition["code"] for condition in view["conditions"]]
