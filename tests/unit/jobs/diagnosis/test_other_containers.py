"""Pods with injected containers: the container `job` alone decides about the job.

https://github.com/dagster-io/dagster/issues/4474, https://github.com/kubeflow/trainer/issues/1182
"""

from __future__ import annotations

import msgspec
import pytest

from runway.jobs.models import JobView
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.objects import Container, ContainerStatus, Job, Pod
from tests.support.builders import ended, job, moment, pod, running, waiting
from tests.support.diagnosis_case import BACKOFF, DEADLINE

PROXY_RUNS = {"istio-proxy": running(2)}
KILLED_LATER = {"istio-proxy": ended(143, started=2, finished=71)}
CANCELLED = job(outcome="Failed", reason="DeadlineExceeded", cancelled=True, finished=70)


def view(found: Pod, of: Job | None = None) -> JobView:
    return job_view(JobSnapshot("vision", of or job(), (found,)))


def test_state_exit_code_and_image_are_those_of_the_job_container() -> None:
    """Statuses are sorted by name, so an injected container can come first."""
    shown = view(pod(state=running(10), image_id=f"x@sha256:{'a' * 64}", others={"a-proxy": ended(7)}))
    assert shown.state == "running"
    attempt = shown.attempts[0]
    assert (attempt.state, attempt.exit_code, attempt.started_at) == ("running", None, moment(10))
    assert attempt.image_id == f"sha256:{'a' * 64}"
    assert shown.conditions == []


def test_unreported_job_container_does_not_take_the_state_of_another() -> None:
    found = pod(state=running(), others={"a-proxy": running()})
    only_proxy = tuple(status for status in found.status.container_statuses if status.name != "job")
    found = _with_statuses(found, only_proxy)
    assert view(found).state == "pending"
    assert view(found).attempts[0].started_at is None


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("proxy", [running(2), waiting("ImagePullBackOff")])
def test_pod_that_lives_for_another_container_is_reported(code: int, proxy: dict[str, object]) -> None:
    shown = view(pod(state=ended(code, finished=60), phase="Running", others={"istio-proxy": proxy}))
    assert shown.state == "running", "the Job is not finished"
    assert [condition.code for condition in shown.conditions] == ["other_container_running"]
    condition = shown.conditions[0]
    assert f"exited with code {code}, but container istio-proxy keeps pod" in condition.message
    assert condition.since == moment(60)
    attempt = shown.attempts[0]
    assert (attempt.state, attempt.exit_code, attempt.finished_at) == ("running", code, moment(60))
    assert "istio-proxy keeps the pod alive" in (attempt.message or "")


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_deadline_of_pod_that_another_container_kept_alive_has_its_own_code(phase: str) -> None:
    """A proxy that handles SIGTERM exits with 0, so the pod of a failed Job can be `Succeeded`."""
    found = pod(state=ended(0, finished=40), phase=phase, others=KILLED_LATER, deleted=100, grace=30)
    shown = view(found, DEADLINE)
    assert shown.state == "failed"
    assert shown.failure is not None
    assert (shown.failure.code, shown.failure.category, shown.failure.retryable) == (
        "other_container_running", "infra", False,
    )  # fmt: skip
    assert "exited with code 0, but container istio-proxy kept the pod alive" in shown.failure.message
    assert shown.attempts[0].exit_code == 0


def test_failure_before_the_deadline_keeps_its_code_beside_another_container() -> None:
    shown = view(pod(state=ended(3, finished=40), others=KILLED_LATER, deleted=100, grace=30), DEADLINE)
    assert shown.failure is not None
    assert shown.failure.code == "exit_nonzero"
    assert shown.failure.evidence["exit_code"] == "3"
    assert "container istio-proxy then kept the pod alive" in shown.failure.message
    assert shown.attempts[0].cause == "exit_nonzero"


def test_out_of_memory_kill_of_another_container_is_not_the_jobs() -> None:
    others = {"istio-proxy": ended(137, "OOMKilled", finished=50)}
    shown = view(pod(state=ended(0, finished=60), phase="Failed", others=others), BACKOFF)
    assert shown.failure is not None
    assert shown.failure.code == "other_container_failed"
    assert "istio-proxy failed with exit code 137 (OOMKilled)" in shown.failure.message
    assert shown.failure.evidence["container"] == "istio-proxy"


def test_out_of_memory_kill_of_the_job_counts_beside_another_container() -> None:
    shown = view(pod(state=ended(137, "OOMKilled"), others={"a-proxy": ended(0)}), BACKOFF)
    assert shown.failure is not None
    assert shown.failure.code == "oom_killed"


def test_job_that_ran_to_its_deadline_beside_another_container_exceeded_it() -> None:
    others = {"istio-proxy": ended(143, finished=72)}
    shown = view(pod(state=ended(143, finished=71), others=others, deleted=100, grace=30), DEADLINE)
    assert shown.failure is not None
    assert shown.failure.code == "deadline_exceeded"


def test_cancelled_job_names_what_kept_its_pod_alive() -> None:
    found = pod(state=ended(0, finished=40), phase="Failed", others=KILLED_LATER, deleted=100, grace=30)
    shown = view(found, CANCELLED)
    assert (shown.state, shown.failure, shown.attempts[0].cause) == ("cancelled", None, None)
    assert "istio-proxy kept the pod alive" in (shown.attempts[0].message or "")


def test_failed_init_container_explains_a_job_that_never_started() -> None:
    found = pod(state=waiting("PodInitializing"), phase="Failed", init={"istio-init": ended(1)})
    shown = view(found, BACKOFF)
    assert shown.failure is not None
    assert shown.failure.code == "other_container_failed"
    assert "istio-init failed with exit code 1 (Error) before the job's container started" in shown.failure.message
    assert shown.attempts[0].started_at is None


def test_waiting_init_container_explains_a_pending_job() -> None:
    init = {"istio-init": waiting("ImagePullBackOff", "no such image")}
    shown = view(pod(state=waiting("PodInitializing"), init=init))
    assert [condition.code for condition in shown.conditions] == ["container_not_starting"]
    assert "init container istio-init does not start: ImagePullBackOff: no such image" in shown.conditions[0].message


def test_names_of_other_containers_are_bounded() -> None:
    others = {f"sidecar-{number}": running() for number in range(20)}
    condition = view(pod(state=ended(0), phase="Running", others=others)).conditions[0]
    assert "containers sidecar-0, sidecar-1, sidecar-10 and 17 more" in condition.message


def test_pod_without_container_job_is_read_by_its_first_container() -> None:
    """A pod created outside Runway can have any container."""
    found = pod(state=running())
    renamed = _with_statuses(found, tuple(_renamed(status) for status in found.status.container_statuses))
    renamed = _with_containers(renamed, ("main",))
    assert renamed.container_name == "main"
    assert view(renamed).state == "running"


def _with_statuses(found: Pod, statuses: tuple[ContainerStatus, ...]) -> Pod:
    return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, container_statuses=statuses))


def _with_containers(found: Pod, names: tuple[str, ...]) -> Pod:
    return msgspec.structs.replace(
        found, spec=msgspec.structs.replace(found.spec, containers=tuple(Container(name) for name in names))
    )


def _renamed(status: ContainerStatus) -> ContainerStatus:
    return msgspec.structs.replace(status, name="main")
