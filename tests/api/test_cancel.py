"""Cancel at every stage of a job, and with every result of its one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from runway.errors import AmbiguousOutcome, NotExecuted
from runway.kube.transport import Response
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes, copy_of


async def cancel(runway: Runway, job_id: str) -> httpx2.Response:
    return await runway.cancel(job_id)


async def submitted(runway: Runway, **spec: Any) -> str:
    return str((await runway.submit(**spec)).json()["id"])


def patches(runway: Runway) -> int:
    return sum("spec" in patch for patch in runway.kubernetes.patches)


def ambiguous() -> Response:
    raise AmbiguousOutcome("the Kubernetes API did not answer within 2.5 s")


def refused() -> Response:
    raise NotExecuted("no connection to the Kubernetes API: refused")


def touch(runway: Runway, job_id: str) -> Callable[[], None]:
    """Write the Job's status, as the Job controller does."""

    def touched() -> None:
        runway.kubernetes.put("jobs", runway.kubernetes.job(job_id), "MODIFIED")

    return touched


def no_pod(_: FakeKubernetes, __: str) -> None:
    pass


def unschedulable(kubernetes: FakeKubernetes, job_id: str) -> None:
    pod = kubernetes.start_pod(job_id, running=False, node=None)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    kubernetes.set_status(pod, {"phase": "Pending", "conditions": [condition]})


def pulling(kubernetes: FakeKubernetes, job_id: str) -> None:
    pod = kubernetes.start_pod(job_id, running=False)
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    statuses = [{"name": "job", "state": {"waiting": waiting}}]
    kubernetes.set_status(pod, {"phase": "Pending", "containerStatuses": statuses})


def running(kubernetes: FakeKubernetes, job_id: str) -> None:
    kubernetes.start_pod(job_id)


def between_attempts(kubernetes: FakeKubernetes, job_id: str) -> None:
    kubernetes.end_pod(kubernetes.start_pod(job_id), exit_code=1)


@pytest.mark.parametrize("stage", [no_pod, unschedulable, pulling, running, between_attempts])
async def test_cancel_at_every_stage(runway: Runway, stage: Callable[[FakeKubernetes, str], None]) -> None:
    job_id = await submitted(runway, retries=1)
    stage(runway.kubernetes, job_id)
    pods = [name for _, name in runway.kubernetes.objects["pods"]]

    async def seen() -> bool:
        return len((await runway.view(job_id))["attempts"]) == len(pods)

    await runway.until(seen)
    answer = await cancel(runway, job_id)
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    for pod in pods:
        runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    if pods and stage is not between_attempts:
        await runway.until_state(job_id, "cancelling")
        assert (await runway.quota())["used"]["jobs"] == 1
    for pod in pods:
        runway.kubernetes.remove_pod(pod)
    view = await runway.until_state(job_id, "cancelled")
    assert view["failure"] is None
    assert (await cancel(runway, job_id)).json() == await runway.view(job_id)
    assert patches(runway) == 1


async def test_job_that_ignores_sigterm_is_cancelling_until_its_grace_period_ends(runway: Runway) -> None:
    job_id = await submitted(runway)
    pod = runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    await cancel(runway, job_id)
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    view = await runway.until_state(job_id, "cancelling")
    assert view["finished_at"] is None
    runway.kubernetes.end_pod(pod, exit_code=137)
    view = await runway.until_state(job_id, "cancelled")
    assert (view["attempts"][0]["signal"], view["failure"]) == ("SIGKILL", None)


async def test_cancel_before_start_sets_a_deadline_that_allows_no_pod(runway: Runway) -> None:
    job_id = await submitted(runway)
    await cancel(runway, job_id)
    assert runway.kubernetes.job(job_id)["spec"]["activeDeadlineSeconds"] == 0


async def test_cancel_resumes_a_suspended_job(runway: Runway) -> None:
    job_id = await submitted(runway)
    job = copy_of(runway.kubernetes.job(job_id))
    job["spec"]["suspend"] = True
    runway.kubernetes.put("jobs", job, "MODIFIED")

    async def freed() -> bool:
        return bool((await runway.quota())["used"]["jobs"] == 0)

    await runway.until(freed)
    await cancel(runway, job_id)
    spec = runway.kubernetes.job(job_id)["spec"]
    assert (spec["suspend"], spec["activeDeadlineSeconds"]) == (False, 0)


async def test_concurrent_cancels_patch_once(runway: Runway) -> None:
    job_id = await submitted(runway)
    answers = await asyncio.gather(*(cancel(runway, job_id) for _ in range(5)))
    assert {(answer.status_code, answer.json()["state"]) for answer in answers} == {(202, "cancelling")}
    marks = [job["metadata"]["annotations"].get("runway.internal/cancelled-at") for _, _, job in
             runway.kubernetes.history["jobs"]]  # fmt: skip
    assert len({mark for mark in marks if mark}) == 1


@pytest.mark.parametrize("state", ["succeeded", "failed"])
async def test_cancel_of_finished_job_changes_nothing(runway: Runway, state: str) -> None:
    job_id = await submitted(runway)
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.end_pod(pod, exit_code=0 if state == "succeeded" else 1)
    (runway.kubernetes.complete if state == "succeeded" else runway.kubernetes.fail)(job_id)
    view = await runway.until_state(job_id, state)
    answer = await cancel(runway, job_id)
    assert (answer.status_code, answer.json()) == (202, view)
    assert patches(runway) == 0


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
async def test_job_that_finishes_during_cancel_keeps_its_outcome(runway: Runway, outcome: str) -> None:
    """The outcome is set between Runway's read of the Job and its patch."""
    job_id = await submitted(runway)
    pod = runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")

    def decided() -> None:
        runway.kubernetes.end_pod(pod, exit_code=0 if outcome == "succeeded" else 3)
        (runway.kubernetes.complete if outcome == "succeeded" else runway.kubernetes.fail)(job_id)

    runway.kubernetes.before_patch = [decided]
    assert (await cancel(runway, job_id)).status_code == 202
    view = await runway.until_state(job_id, outcome)
    assert (view["failure"] or {"code": None})["code"] == (None if outcome == "succeeded" else "exit_nonzero")


async def test_job_with_a_succeeded_pod_is_not_cancelled(runway: Runway) -> None:
    """The Job controller checks the deadline before it checks for success."""
    job_id = await submitted(runway)
    runway.kubernetes.end_pod(runway.kubernetes.start_pod(job_id))

    async def seen() -> bool:
        return [item["state"] for item in (await runway.view(job_id))["attempts"]] == ["succeeded"]

    await runway.until(seen)
    assert (await cancel(runway, job_id)).json()["state"] == "running"
    runway.kubernetes.complete(job_id)
    await runway.until_state(job_id, "succeeded")
    assert patches(runway) == 0


async def test_job_past_its_deadline_is_not_cancelled(runway: Runway) -> None:
    """FailureTarget announces the outcome while the pod is terminating."""
    job_id = await submitted(runway)
    pod = runway.kubernetes.start_pod(job_id)
    job = copy_of(runway.kubernetes.job(job_id))
    job["status"] = {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]}
    runway.kubernetes.put("jobs", job, "MODIFIED")
    runway.kubernetes.terminate_pod(pod)

    async def seen() -> bool:
        return [item["code"] for item in (await runway.view(job_id))["conditions"]] == ["terminating"]

    await runway.until(seen)
    assert (await cancel(runway, job_id)).json()["state"] == "running"
    runway.kubernetes.end_pod(pod, exit_code=143)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    view = await runway.until_state(job_id, "failed")
    assert view["failure"]["code"] == "deadline_exceeded"


async def test_cancel_retries_after_a_conflict(runway: Runway) -> None:
    job_id = await submitted(runway)
    runway.kubernetes.before_patch = [touch(runway, job_id)] * 3
    assert (await cancel(runway, job_id)).json()["state"] == "cancelling"


async def test_cancel_of_a_changing_job_is_bounded(runway: Runway) -> None:
    job_id = await submitted(runway)
    runway.kubernetes.before_patch = [touch(runway, job_id)] * 100
    answer = await cancel(runway, job_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "kubernetes_unavailable")


async def test_ambiguous_cancel_is_read_back(runway: Runway) -> None:
    job_id = await submitted(runway)
    runway.kubernetes.after_patch = [ambiguous]
    answer = await cancel(runway, job_id)
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    assert patches(runway) == 1


async def test_ambiguous_cancel_is_an_unknown_outcome_until_retried(runway: Runway) -> None:
    job_id = await submitted(runway)
    runway.kubernetes.before_patch = [ambiguous]
    answer = await cancel(runway, job_id)
    assert (answer.status_code, answer.json()["code"], answer.json()["id"]) == (503, "outcome_unknown", job_id)
    assert answer.headers["retry-after"]
    assert (await runway.view(job_id))["state"] == "pending"
    assert (await cancel(runway, job_id)).json()["state"] == "cancelling"


async def test_cancel_that_was_not_sent_is_unavailable(runway: Runway) -> None:
    job_id = await submitted(runway)
    runway.kubernetes.before_patch = [refused]
    assert (await cancel(runway, job_id)).json()["code"] == "kubernetes_unavailable"
    assert (await runway.view(job_id))["state"] == "pending"


async def test_cancel_of_a_job_deleted_outside_runway_is_not_found(runway: Runway) -> None:
    job_id = await submitted(runway)
    runway.kubernetes.mute = True
    runway.kubernetes.lose("jobs", job_id)
    assert (await cancel(runway, job_id)).json()["code"] == "job_not_found"


async def test_job_deleted_during_cancel_uses_only_its_pods_quota(runway: Runway) -> None:
    job_id = await submitted(runway)
    pod = runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    await cancel(runway, job_id)
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.delete_job(job_id)

    async def gone() -> bool:
        return (await cancel(runway, job_id)).status_code == 404

    await runway.until(gone)
    assert (await runway.quota())["held_by_terminating"]["jobs"] == 1
    runway.kubernetes.remove_pod(pod)

    async def freed() -> bool:
        return bool((await runway.quota())["used"]["jobs"] == 0)

    await runway.until(freed)


async def test_cancel_survives_the_end_of_the_leader(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        job_id = await submitted(before)
        pod = kubernetes.start_pod(job_id)
        await before.until_state(job_id, "running")
        kubernetes.after_patch = [ambiguous]
        await cancel(before, job_id)
    async with serve(kubernetes) as after:
        assert (await after.view(job_id))["state"] == "cancelling"
        assert (await cancel(after, job_id)).json()["state"] == "cancelling"
        kubernetes.end_pod(pod, exit_code=143)
        kubernetes.fail(job_id, "DeadlineExceeded")
        await after.until_state(job_id, "cancelled")
    async with serve(kubernetes) as later:
        assert (await later.view(job_id))["state"] == "cancelled"


async def test_completed_job_has_succeeded_despite_cancel(runway: Runway) -> None:
    job_id = await submitted(runway)
    pod = runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    await cancel(runway, job_id)
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    view = await runway.until_state(job_id, "succeeded")
    assert view["failure"] is None
