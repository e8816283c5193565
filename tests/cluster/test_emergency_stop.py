"""The emergency stop on a real Lease: who may order it, and that neither it nor the Lease is ever lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.scenarios.emergency_stop import ANNOTATION, SEEN_SECONDS
from testbed.context import Context
from testbed.http_client import shell
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import Server
from testbed.waiting import wait_for
from tests.support.documented import blocks, environment, played

pytestmark = pytest.mark.cluster

OPERATOR = ("--as=ada", "--as-group=platform-operators")


@pytest.fixture
def lease(server: Server) -> tuple[str, ...]:
    """How kubectl is told which Lease is Runway's."""
    name, namespace = server.lease
    return "lease", name, f"--namespace={namespace}"


@pytest.fixture
def annotate(kubernetes: Kubectl, lease: tuple[str, ...], context: Context) -> Iterator[Callable[..., str]]:
    """`kubectl annotate` of Runway's Lease. After the test submissions are open again, for the tests that follow."""

    def run(*changes: str) -> str:
        return kubernetes.run("annotate", *lease, "--overwrite", *changes)

    yield run
    run(f"{ANNOTATION}-", "tests.runway.internal/edit-")
    wait_for(lambda: told(context) is None or None, "the stop has ended", SEEN_SECONDS)


def test_it_survives_the_end_of_the_writer_and_its_successor_sees_it(
    context: Context, server: Server, kubernetes: Kubectl, annotate: Callable[..., str]
) -> None:
    annotate(f"{ANNOTATION}=driver rollout")
    wait_for(lambda: told(context) == "driver rollout" or None, "the stop is seen", SEEN_SECONDS)
    server.stop()
    try:
        left = the_lease(kubernetes, server)
        assert left["spec"]["holderIdentity"] == ""
        assert left["metadata"]["annotations"][ANNOTATION] == "driver rollout"
    finally:
        server.start()
    assert told(context) == "driver rollout"
    assert context.runway.submit("vision", shell("true")).json()["code"] == "submissions_stopped"


def test_a_process_that_stands_by_sees_it(
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
        told_by_reader = wait_for(lambda: ready(reader), "a process that is ready", 20)
        assert (told_by_reader["role"], told_by_reader["stop_reason"]) == ("reader", "no reason was given")
        wait_for(lambda: told(context) or None, "the writer sees the stop", SEEN_SECONDS)
        assert "runway_submissions_stopped 1.0" in context.runway.get("/metrics").text
    assert the_lease(kubernetes, server)["metadata"]["annotations"][ANNOTATION] == ""


def test_edits_between_look_and_renewal_lose_neither_themselves_nor_the_lease(
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
def test_the_commands_of_the_document_are_all_that_an_operator_needs(
    context: Context,
    server: Server,
    lease: tuple[str, ...],
    kubernetes: Kubectl,
    namespaces: Mapping[str, str],
    kubeconfig: Path,
) -> None:
    """As they stand, but for the namespace of the local Lease; who makes the stop has that Role and no more."""
    stay = shell("trap 'exit 0' TERM; echo started; sleep 600 & wait", timeout_seconds=120)
    mine = [context.submit("vision", stay)["id"] for _ in range(2)]
    other = context.submit("research", stay)["id"]
    for job_id in (*mine, other):
        context.until_log(job_id, "started")
    _, namespace = server.lease
    here = {
        "-n runway ": f"-n {namespace} ",
        "jobs -A": f"jobs --namespace={namespaces['research']}",  # Other test processes submit at the same time.
        "annotate lease": " ".join(("annotate lease", *OPERATOR)),
        "http://127.0.0.1:8000": server.url,
        "=TENANT": "=vision",
    }
    stop, newest, cancel, end, allow = (
        partial(played, block, environment(KUBECONFIG=str(kubeconfig)), here)
        for block in blocks("docs/operations.md", "Emergency stop")
    )
    try:
        allow()
        stop()
        reason = wait_for(lambda: told(context), "the stop is seen", SEEN_SECONDS)
        assert reason == "GPU driver rollout, back at 15:00"
        assert other in newest()
        cancel()
        assert [context.until_finished(job_id)["state"] for job_id in mine] == ["cancelled", "cancelled"]
        assert context.runway.job(other)["state"] == "running"
        assert '"submissions"' in end()
        wait_for(lambda: told(context) is None or None, "the stop has ended", SEEN_SECONDS)
        for beyond in (
            ("delete", *lease),
            ("get", "leases", f"--namespace={namespace}"),
            ("get", "jobs", f"--namespace={namespaces['vision']}"),
            ("annotate", "lease", "kube-scheduler", "--namespace=kube-system", f"{ANNOTATION}=no"),
        ):
            with pytest.raises(KubectlFailed, match="orbidden"):
                kubernetes.run(*beyond, *OPERATOR)
    finally:
        kubernetes.run("delete", "role,rolebinding", "runway-stop", f"--namespace={namespace}", "--ignore-not-found")


def told(context: Context) -> str | None:
    """The reason as /readyz says it."""
    reason = context.runway.get("/readyz").json()["stop_reason"]
    return None if reason is None else str(reason)


def ready(server: Server) -> dict[str, Any] | None:
    """What /readyz says; None until it is ready."""
    try:
        answer = httpx2.get(f"{server.url}/readyz", timeout=2, trust_env=False)
    except httpx2.TransportError:
        return None
    return dict(answer.json()) if answer.status_code == 200 else None


def the_lease(kubernetes: Kubectl, server: Server) -> dict[str, Any]:
    lease = kubernetes.get("lease", *server.lease)
    assert lease is not None
    return lease
