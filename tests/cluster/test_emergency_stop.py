"""The emergency stop on a real Lease: permissions, persistence, concurrent edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from demo.scenarios.emergency_stop import ANNOTATION
from testbed.context import Context
from testbed.http_client import shell
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import Server
from testbed.waiting import wait_for
from tests.support.documented import blocks, environment, played

pytestmark = pytest.mark.cluster

ACCOUNT = "runway-stopper"
"""The service account of an operator who has only the documented Role."""


@pytest.fixture
def lease(server: Server) -> tuple[str, ...]:
    """Return the kubectl arguments that select Runway's Lease."""
    name, namespace = server.lease
    return "lease", name, f"--namespace={namespace}"


@pytest.fixture
def annotate(kubernetes: Kubectl, lease: tuple[str, ...], context: Context) -> Iterator[Callable[..., str]]:
    """Annotate Runway's Lease with kubectl. After the test, submissions are open again."""

    def run(*changes: str) -> str:
        return kubernetes.run("annotate", *lease, "--overwrite", *changes)

    yield run
    run(f"{ANNOTATION}-", "tests.runway.internal/edit-")
    wait_for(lambda: readiness(context).get("submissions") == "open" or None, "the stop has ended")


def test_emergency_stop_survives_leader_restart(
    context: Context, server: Server, kubernetes: Kubectl, annotate: Callable[..., str]
) -> None:
    annotate(f"{ANNOTATION}=driver rollout")
    wait_for(lambda: stop_reason(context) == "driver rollout" or None, "the stop is seen")
    server.stop()
    try:
        released = the_lease(kubernetes, server)
        assert released["spec"]["holderIdentity"] == ""
        assert released["metadata"]["annotations"][ANNOTATION] == "driver rollout"
    finally:
        server.start()
    assert stop_reason(context) == "driver rollout"
    assert context.runway.submit("vision", shell("true")).json()["code"] == "submissions_stopped"


def test_non_leader_reports_emergency_stop(
    server: Server,
    kubernetes: Kubectl,
    settings: Mapping[str, str],
    tmp_path: Path,
    annotate: Callable[..., str],
    context: Context,
) -> None:
    annotate(f"{ANNOTATION}=")
    with Server(tmp_path / "reader.log", settings) as reader:
        reader.launch()
        readiness = wait_for(lambda: ready(reader), "a process that is ready")
        assert (readiness["role"], readiness["stop_reason"]) == ("reader", "no reason was given")
        wait_for(lambda: stop_reason(context) or None, "the leader sees the stop")
        assert "runway_submissions_stopped 1.0" in context.runway.get("/metrics").text
    assert the_lease(kubernetes, server)["metadata"]["annotations"][ANNOTATION] == ""


def test_concurrent_lease_edits_keep_annotations_and_leadership(
    context: Context, server: Server, kubernetes: Kubectl, annotate: Callable[..., str]
) -> None:
    before = the_lease(kubernetes, server)
    for number in range(100):
        annotate(f"tests.runway.internal/edit={number}")
        assert the_lease(kubernetes, server)["metadata"]["annotations"]["tests.runway.internal/edit"] == str(number)
        assert context.runway.get("/readyz").json()["role"] == "writer"
    after = the_lease(kubernetes, server)
    assert after["spec"]["renewTime"] > before["spec"]["renewTime"]
    assert after["spec"]["leaseTransitions"] == before["spec"]["leaseTransitions"]
    ended = context.until_finished(context.submit("vision", shell("true"))["id"])
    assert ended["state"] == "succeeded"


@pytest.mark.usefixtures("annotate")
def test_documented_emergency_stop_works_with_documented_role(
    context: Context,
    server: Server,
    lease: tuple[str, ...],
    kubernetes: Kubectl,
    namespaces: Mapping[str, str],
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    """Run the commands as written, with the local Lease namespace, as a user with only the documented Role."""
    sleep = shell("trap 'exit 0' TERM; echo started; sleep 600 & wait")
    mine = [context.submit("vision", sleep)["id"] for _ in range(2)]
    other = context.submit("research", sleep)["id"]
    for job_id in (*mine, other):
        context.until_log(job_id, "started")
    _, namespace = server.lease
    kubernetes.run("create", "serviceaccount", ACCOUNT, f"--namespace={namespace}")
    operator = operator_kubeconfig(kubernetes, namespace, kubeconfig, tmp_path)
    as_operator = f"KUBECONFIG={operator} RUNWAY_LEASE_NAMESPACE={namespace} runway"
    here = {
        "-n runway ": f"-n {namespace} ",
        "jobs -A": f"jobs --namespace={namespaces['research']}",  # Other test processes submit at the same time.
        "--group=platform-operators": f"--serviceaccount={namespace}:{ACCOUNT}",
        "runway stop": f"{as_operator} stop",
        "runway resume": f"{as_operator} resume",
        "http://127.0.0.1:8000": server.url,
        "=TENANT": "=vision",
    }
    stop, newest, cancel, end, allow = (
        partial(played, block, environment(KUBECONFIG=str(kubeconfig)), here)
        for block in blocks("docs/operations.md", "Emergency stop")
    )
    try:
        allow()
        said = stop()
        reason = wait_for(lambda: stop_reason(context), "the stop is seen")
        assert reason == "GPU driver rollout, back at 15:00"
        assert f"by system:serviceaccount:{namespace}:{ACCOUNT} since" in said
        assert other in newest()
        cancel()
        assert [context.until_finished(job_id)["state"] for job_id in mine] == ["cancelled", "cancelled"]
        assert context.runway.job(other)["state"] == "running"
        assert '"submissions"' in end()
        wait_for(lambda: readiness(context).get("submissions") == "open" or None, "the stop has ended")
        who = f"--as=system:serviceaccount:{namespace}:{ACCOUNT}"
        for forbidden in (
            ("delete", *lease),
            ("get", "leases", f"--namespace={namespace}"),
            ("get", "jobs", f"--namespace={namespaces['vision']}"),
            ("annotate", "lease", "kube-scheduler", "--namespace=kube-system", f"{ANNOTATION}=no"),
        ):
            with pytest.raises(KubectlFailed, match="orbidden"):
                kubernetes.run(*forbidden, who)
    finally:
        kubernetes.run("delete", "role,rolebinding", "runway-stop", f"--namespace={namespace}", "--ignore-not-found")
        kubernetes.run("delete", "serviceaccount", ACCOUNT, f"--namespace={namespace}")


def operator_kubeconfig(kubernetes: Kubectl, namespace: str, kubeconfig: Path, folder: Path) -> Path:
    """Write a kubeconfig of the service account for the same API server."""
    document = yaml.safe_load(kubeconfig.read_text())
    token = kubernetes.run("create", "token", ACCOUNT, f"--namespace={namespace}").strip()
    for user in document["users"]:
        user["user"] = {"token": token}
    file = folder / "operator.kubeconfig"
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return file


def stop_reason(context: Context) -> str | None:
    """Return the stop reason in /readyz. None without a stop, and while Runway is not ready."""
    return readiness(context).get("stop_reason")


def readiness(context: Context) -> dict[str, Any]:
    """Return the body of /readyz. Empty while Runway is not ready."""
    answer = context.runway.get("/readyz")
    return dict(answer.json()) if answer.is_success else {}


def ready(server: Server) -> dict[str, Any] | None:
    """Return the body of /readyz, or None until Runway is ready."""
    try:
        answer = httpx2.get(f"{server.url}/readyz", timeout=2, trust_env=False)
    except httpx2.TransportError:
        return None
    return dict(answer.json()) if answer.status_code == 200 else None


def the_lease(kubernetes: Kubectl, server: Server) -> dict[str, Any]:
    lease = kubernetes.get("lease", *server.lease)
    assert lease is not None
    return lease
