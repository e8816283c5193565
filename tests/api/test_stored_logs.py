"""Links to stored logs, images of attempts, and hints from the log, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from runway.policy import parse_policy
from tests.api.conftest import POLICY, Runway, serve
from tests.support.fake_cluster import FakeKubernetes

TEMPLATE: Final = "https://logs.example.com/app?namespace={namespace}&job={job}&pod={pod}&from={from}"
STARTED: Final = "2026-11-24T08:00:00Z"
FROM: Final = 1795507140000
"""A minute before the fake cluster's time."""
OUT_OF_SHM: Final = (
    "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n"
    "RuntimeError: DataLoader worker (pid(s) 3216) exited unexpectedly\n"
)


@pytest.fixture
async def linked(kubernetes: FakeKubernetes) -> AsyncIterator[Runway]:
    """Runway with a link to stored logs in its policy."""
    policy = parse_policy(POLICY.read_text() + f'\nlogs: {{url_template: "{TEMPLATE}"}}\n')
    async with serve(kubernetes, policy=policy) as running:
        yield running


def link(job_id: str, pod: str) -> str:
    return f"https://logs.example.com/app?namespace=runway-vision&job={job_id}&pod={pod}&from={FROM}"


def report(kubernetes: FakeKubernetes, pod: str, digit: str, *, exit_code: int | None = None) -> str:
    """Report a container of this image that runs or has ended, and return the digest of the image."""
    digest = f"sha256:{digit * 64}"
    state: dict[str, Any] = {"running": {"startedAt": STARTED}}
    if exit_code is not None:
        state = {"terminated": {"exitCode": exit_code, "reason": "Error", "startedAt": STARTED, "finishedAt": STARTED}}
    container = {"name": "job", "state": state, "imageID": f"runway.local/busybox@{digest}"}
    phase = "Running" if exit_code is None else "Failed"
    kubernetes.set_status(pod, {"phase": phase, "containerStatuses": [container]})
    return digest


async def is_recorded(kubernetes: FakeKubernetes, job_id: str) -> bool:
    """Return whether the Job has a final record."""
    return '"state":"failed"' in kubernetes.job(job_id)["metadata"]["annotations"].get("runway.internal/record", "")


async def deleted_log(runway: Runway, job_id: str) -> dict[str, Any]:
    async def gone() -> Any:
        answer = await runway.client.get(f"/v1/jobs/{job_id}/logs")
        return answer.json() if answer.status_code == 410 else None

    return dict(await runway.until(gone))


async def test_view_and_deleted_log_have_the_link(linked: Runway) -> None:
    job_id = (await linked.submit()).json()["id"]
    assert (await linked.view(job_id))["logs_url"] is None
    pod = linked.kubernetes.start_pod(job_id)
    assert (await linked.until_state(job_id, "running"))["logs_url"] == link(job_id, pod)
    linked.kubernetes.end_pod(pod, 1, message="the end")
    linked.kubernetes.fail(job_id)
    await linked.until_state(job_id, "failed")
    linked.kubernetes.remove_pod(pod)
    gone = await deleted_log(linked, job_id)
    assert (gone["excerpt"], gone["logs_url"]) == ("the end", link(job_id, pod))
    page = await linked.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
    href = link(job_id, pod).replace("&", "&amp;")
    assert f'<a href="{href}" rel="noopener noreferrer">' in page.text


async def test_each_attempt_has_its_own_link(linked: Runway) -> None:
    job_id = (await linked.submit(retries=1)).json()["id"]
    first = linked.kubernetes.start_pod(job_id)
    linked.kubernetes.end_pod(first, 1)
    second = linked.kubernetes.start_pod(job_id)
    linked.kubernetes.remove_pod(first)

    async def gone() -> Any:
        answer = await linked.client.get(f"/v1/jobs/{job_id}/logs?attempt=1")
        return answer.json() if answer.status_code == 410 else None

    assert (await linked.until(gone))["logs_url"] == link(job_id, first)
    assert (await linked.view(job_id))["logs_url"] == link(job_id, second)


async def test_no_link_without_a_policy(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.end_pod(pod, 1, message="the end")
    runway.kubernetes.fail(job_id)
    assert (await runway.until_state(job_id, "failed"))["logs_url"] is None
    runway.kubernetes.remove_pod(pod)
    assert "logs_url" not in await deleted_log(runway, job_id)
    page = await runway.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
    assert "The stored logs" not in page.text


async def test_different_images_are_shown_also_after_their_pods(runway: Runway) -> None:
    job_id = (await runway.submit(retries=1)).json()["id"]
    first = runway.kubernetes.start_pod(job_id)
    digests = [report(runway.kubernetes, first, "a", exit_code=1)]
    second = runway.kubernetes.start_pod(job_id)
    digests.append(report(runway.kubernetes, second, "b", exit_code=1))
    runway.kubernetes.fail(job_id)
    await runway.until(lambda: is_recorded(runway.kubernetes, job_id))
    runway.kubernetes.remove_pod(first)
    runway.kubernetes.remove_pod(second)
    view = await runway.until_state(job_id, "failed")
    assert [attempt["image_id"] for attempt in view["attempts"]] == digests
    assert view["images_differ"]
    page = await runway.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
    assert "the attempts ran different images" in page.text
    assert all(digest in page.text for digest in digests)


async def test_hint_from_the_log_outlives_the_pod_and_a_restart(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        job_id = (await before.submit()).json()["id"]
        pod = kubernetes.start_pod(job_id)
        kubernetes.end_pod(pod, 1, message=OUT_OF_SHM)
        kubernetes.fail(job_id)
        failure = (await before.until_state(job_id, "failed"))["failure"]
        assert (failure["code"], failure["category"], failure["retryable"]) == ("exit_nonzero", "user", False)
        assert "raise resources.shared_memory" in failure["hint"]
        assert failure["evidence"]["log_hint"] == "shared_memory"
        assert failure["evidence"]["log_line"] == OUT_OF_SHM.splitlines()[0]
        await before.until(lambda: is_recorded(kubernetes, job_id))
    kubernetes.remove_pod(pod)
    async with serve(kubernetes) as after:
        assert (await after.view(job_id))["failure"] == failure
        page = await after.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"})
        assert "raise resources.shared_memory" in page.text


async def test_log_that_the_recorder_reads_gives_the_hint(runway: Runway) -> None:
    """The kubelet could not read the log for the pod's status."""
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.logs[pod] = OUT_OF_SHM.encode()
    runway.kubernetes.end_pod(pod, 1)
    runway.kubernetes.fail(job_id)

    async def hinted() -> bool:
        failure = (await runway.view(job_id))["failure"]
        return failure is not None and failure["evidence"].get("log_hint") == "shared_memory"

    await runway.until(hinted)
