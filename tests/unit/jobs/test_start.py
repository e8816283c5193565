"""Whether a job waits for its start, and for which cause by the status of its pod."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runway.jobs.annotations import ANNOTATION_RECORD
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.record import encode, interim_record
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.start import explain, start_wait
from runway.kube.objects import Event, Job, Node, Pod
from tests.support.builders import (
    condition,
    disrupted,
    ended,
    job,
    moment,
    node,
    pod,
    running,
    unschedulable,
    waiting,
    warning,
)
from tests.support.diagnosis_case import rejected

NOT_FOUND = "failed to resolve reference: x: not found"
STUCK = waiting("ErrImagePull", NOT_FOUND)


def snapshot(*pods: Pod, of: Job | None = None, nodes: tuple[Node, ...] = (node(),), **more: Any) -> JobSnapshot:
    by_name = {item.metadata.name: item for item in nodes}
    return JobSnapshot("vision", of or job(), pods, nodes=by_name, **more)


def cause(*pods: Pod, **more: Any) -> str | None:
    found = start_wait(snapshot(*pods, **more))
    assert found is not None
    return found.cause.code if found.cause else None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (waiting("ErrImagePull", NOT_FOUND), "image_not_found"),
        (waiting("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {NOT_FOUND}'), "image_not_found"),
        (waiting("InvalidImageName", "bad"), "image_name_invalid"),
        (waiting("ErrImagePull", "pull access denied"), "image_access_denied"),
        (waiting("ErrImagePull", "dial tcp: i/o timeout"), "registry_unavailable"),
        (waiting("ErrImagePull", "503 Service Unavailable"), "registry_unavailable"),
        (waiting("CreateContainerConfigError", 'configmap "x" not found'), "container_config_error"),
        (waiting("CreateContainerError", "no command specified"), "start_failed"),
        (waiting("ContainerCreating"), None),
        (waiting("PodInitializing"), None),
    ],
)
def test_status_decides_the_cause(status: Any, code: str | None) -> None:
    assert cause(pod(state=status)) == code


def test_unschedulable_pod_needs_no_node() -> None:
    assert cause(pod(node=None, conditions=[unschedulable()]), nodes=()) == "unschedulable"


@pytest.mark.parametrize("reason", ["Failed", "FailedMount", "FailedCreatePodSandBox", "ErrImageNeverPull"])
def test_events_are_no_cause(reason: str) -> None:
    """Anyone with access can write an event about a pod that pulls its image."""
    pulls = pod(state=waiting("ContainerCreating"))
    forged: tuple[Event, ...] = (warning(pulls, reason, f"Failed to pull image: {NOT_FOUND}"),)
    assert cause(pulls, events=forged) is None


@pytest.mark.parametrize(
    "nodes",
    [(), (node(ready="Unknown"),), (node(ready="False"),), (node("node-2"),)],
    ids=["unknown", "lost", "not ready", "other"],
)
def test_pod_on_a_node_that_does_not_respond_has_no_cause(nodes: tuple[Node, ...]) -> None:
    assert cause(pod(state=STUCK), nodes=nodes) is None


def test_terminating_pod_has_no_cause() -> None:
    assert cause(pod(state=STUCK, deleted=40, grace=30)) is None


RAN = pod("ran", state=ended(143), conditions=[disrupted()])
NO_WAIT = {
    "running": snapshot(pod(state=running())),
    "ran in an earlier attempt": snapshot(RAN, pod(created=20, state=STUCK)),
    "ran in a deleted attempt": snapshot(RAN, pod(created=20, state=STUCK), deleted_pods=frozenset({"ran"})),
    "a pod was deleted, and its end was not seen": JobSnapshot(
        "vision",
        job(),
        (pod("a", state=STUCK), pod("b", created=20, state=STUCK)),
        frozenset({"a"}),
        nodes={"node-1": node()},
    ),
    "failure announced": snapshot(
        pod(state=STUCK), of=job(conditions=[condition("FailureTarget", reason="DeadlineExceeded")])
    ),
    "finished": snapshot(of=job(outcome="Complete")),
    "an attempt that Runway does not know": snapshot(pod(state=STUCK), of=job(failed=1)),
    "the first pod came late: an earlier one may be unknown": snapshot(pod(created=120, state=STUCK)),
    "two live pods": snapshot(pod("a", state=STUCK), pod("b", state=STUCK)),
    "an unreadable pod": snapshot(
        replace(pod(state=STUCK), metadata=replace(pod().metadata, unreadable=("status.conditions",)))
    ),
}


@pytest.mark.parametrize("name", NO_WAIT)
def test_job_that_ran_or_may_have_run_does_not_wait_for_its_start(name: str) -> None:
    assert start_wait(NO_WAIT[name]) is None


def test_attempt_that_only_the_record_knows_counts() -> None:
    """The pod of the first attempt was deleted before this process started."""
    deleted = snapshot(pod("first", state=ended(143), deleted=60, grace=30, conditions=[disrupted()]))
    record = encode(interim_record(deleted, None, None, moment(61)), deleted.job)
    assert start_wait(snapshot(pod(created=70, state=STUCK), of=job(annotations={ANNOTATION_RECORD: record}))) is None


def test_rejected_pod_and_disruption_before_the_start_do_not_end_the_wait() -> None:
    refused = rejected("OutOfcpu", "no CPU")
    assert cause(refused, pod("b", created=80, state=STUCK), of=job(failed=1)) == "image_not_found"


def test_job_without_a_pod_waits_without_a_cause() -> None:
    found = start_wait(snapshot())
    assert found is not None
    assert (found.pod, found.cause) == (None, None)


def test_explanation_uses_events() -> None:
    pulls = pod(state=waiting("ContainerCreating"), conditions=[condition("PodReadyToStartContainers", "False")])
    events = (warning(pulls, "FailedCreatePodSandBox", "no network"),)
    assert explain(snapshot(pulls, events=events), pulls).code is FailureCode.SANDBOX_FAILED
    assert explain(snapshot(pulls), pulls).code is FailureCode.START_TIMEOUT
    refused = (warning(job(), "FailedCreate", "exceeded quota: runway"),)
    assert explain(snapshot(events=refused), None).code is FailureCode.QUOTA_BACKSTOP


def test_explanation_between_attempts_is_the_last_rejection() -> None:
    assert explain(snapshot(rejected("OutOfcpu", "no CPU")), None).code is FailureCode.ADMISSION_REJECTED
