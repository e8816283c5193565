"""The job view: state, attempts and conditions at every point of a job's life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from runway.jobs import snapshot
from runway.jobs.annotations import ANNOTATION_COST, ANNOTATION_SPEC
from runway.jobs.models import Attempt, JobState, JobView
from runway.jobs.view import job_view, pending_since, without_env_values
from runway.kube.objects import Job, Pod
from tests.support.builders import (
    COST,
    JOB,
    NAMESPACE,
    condition,
    disrupted,
    ended,
    job,
    moment,
    pod,
    running,
    spec,
    unschedulable,
    waiting,
)
from tests.support.diagnosis_case import rejected

RETRIES = spec(retries=2)
EPOCH = -moment(0).timestamp()


@dataclass(frozen=True, slots=True)
class Case:
    """A Job, its pods, and the expected state and condition codes."""

    job: Job
    pods: Sequence[Pod]
    state: JobState
    conditions: Sequence[str] = ()
    gone: Sequence[str] = ()


def view(found: Job, *pods: Pod, gone: Sequence[str] = ()) -> JobView:
    own = tuple(pod for pod in pods if pod.controller_uid == found.metadata.uid)
    return job_view(snapshot.JobSnapshot("vision", found, own, frozenset(gone)))


def attempt(found: Pod, *, gone: bool = False) -> Attempt:
    return view(job(), found, gone=[found.metadata.name] if gone else ()).attempts[0]


FAILED = job(outcome="Failed", reason="BackoffLimitExceeded")
INFRASTRUCTURE = job(backoff_limit=3)
REJECTED = rejected("OutOfcpu", "Node didn't have enough resource: cpu")
DEADLINE = job(outcome="Failed", reason="DeadlineExceeded")
CANCELLED = job(outcome="Failed", reason="DeadlineExceeded", cancelled=True)
RETRYING = job(admitted=RETRIES)

CASES = {
    "no pod yet": Case(job(), [], JobState.PENDING, ["pod_not_created"]),
    "pod without news": Case(job(), [pod(node=None)], JobState.PENDING),
    "unschedulable": Case(job(), [pod(node=None, conditions=[unschedulable()])], JobState.PENDING, ["unschedulable"]),
    "container is being created": Case(job(), [pod(state=waiting("ContainerCreating"))], JobState.PENDING),
    "image cannot be pulled": Case(
        job(), [pod(state=waiting("ErrImagePull"))], JobState.PENDING, ["image_pull_failing"]
    ),
    "running": Case(job(), [pod(state=running())], JobState.RUNNING),
    "ended well, no terminal condition yet": Case(job(), [pod(state=ended())], JobState.RUNNING, ["outcome_pending"]),
    "ended badly without retries, no terminal condition yet": Case(
        job(), [pod(state=ended(1))], JobState.RUNNING, ["outcome_pending"]
    ),
    "terminal condition announced": Case(
        job(admitted=RETRIES, conditions=[condition("FailureTarget")]),
        [pod(state=ended(1))],
        JobState.RUNNING,
        ["outcome_pending"],
    ),
    "succeeded": Case(job(outcome="Complete"), [pod(state=ended())], JobState.SUCCEEDED),
    "failed": Case(FAILED, [pod(state=ended(1))], JobState.FAILED),
    "succeeded, pods deleted since": Case(job(outcome="Complete"), [], JobState.SUCCEEDED),
    "between two attempts": Case(RETRYING, [pod(state=ended(1))], JobState.PENDING, ["retrying"]),
    "between two attempts, pod deleted": Case(
        RETRYING, [pod("first", state=running(), deleted=50)], JobState.PENDING, ["retrying"], gone=["first"]
    ),
    "between two attempts after a disruption, which needs no retries": Case(
        job(), [pod(state=ended(143), conditions=[disrupted()])], JobState.PENDING, ["retrying"]
    ),
    "second attempt waits": Case(
        RETRYING,
        [pod("first", state=ended(1)), pod("second", conditions=[unschedulable()])],
        JobState.PENDING,
        ["unschedulable"],
    ),
    "second attempt runs": Case(
        RETRYING, [pod("first", state=ended(1)), pod("second", state=running())], JobState.RUNNING
    ),
    "last attempt ended, no terminal condition yet": Case(
        RETRYING,
        [pod(name, state=ended(1)) for name in ("first", "second", "third")],
        JobState.RUNNING,
        ["outcome_pending"],
    ),
    "disruptions do not use up retries": Case(
        RETRYING,
        [
            pod("first", state=ended(1)),
            pod("second", state=ended(143), conditions=[disrupted()]),
            pod("third", state=ended(1)),
        ],
        JobState.PENDING,
        ["retrying"],
    ),
    "rejected without retries: an infrastructure retry follows": Case(
        INFRASTRUCTURE, [REJECTED], JobState.PENDING, ["retrying"]
    ),
    "rejected, then exit code 1 without retries": Case(
        INFRASTRUCTURE, [REJECTED, pod("second", state=ended(1))], JobState.RUNNING, ["outcome_pending"]
    ),
    "rejected four times without retries, no terminal condition yet": Case(
        INFRASTRUCTURE, [rejected("OutOfcpu", "no CPU")] * 4, JobState.PENDING, ["outcome_pending"]
    ),
    "rejected without retries in version 0.7": Case(
        job(backoff_limit=0), [REJECTED], JobState.PENDING, ["outcome_pending"]
    ),
    "pod is being taken away": Case(
        RETRYING, [pod(state=running(), deleted=50, conditions=[disrupted()])], JobState.RUNNING, ["terminating"]
    ),
    "deadline, pod still terminating": Case(
        DEADLINE, [pod(state=running(), deleted=50)], JobState.RUNNING, ["terminating"]
    ),
    "deadline while unschedulable, pod not deleted yet": Case(
        DEADLINE, [pod(node=None, conditions=[unschedulable()])], JobState.PENDING, ["unschedulable"]
    ),
    "deadline, pod ended": Case(DEADLINE, [pod(state=ended(143), deleted=50)], JobState.FAILED),
    "deadline, pod gone": Case(DEADLINE, [pod("first", state=running(), deleted=50)], JobState.FAILED, gone=["first"]),
    "cancel asked for": Case(job(cancelled=True), [pod(state=running())], JobState.CANCELLING),
    "cancel asked for before there was a pod": Case(job(cancelled=True), [], JobState.CANCELLING, ["outcome_pending"]),
    "cancelled, pod still terminating": Case(
        CANCELLED, [pod(state=running(), deleted=50)], JobState.CANCELLING, ["terminating"]
    ),
    "cancelled": Case(CANCELLED, [pod(state=ended(143), deleted=50)], JobState.CANCELLED),
    "completed although a cancel came, a pod still terminating": Case(
        job(outcome="Complete", cancelled=True), [pod(state=running(), deleted=50)], JobState.RUNNING, ("terminating",)
    ),
    "ended well before the cancel came": Case(
        job(outcome="Complete", cancelled=True), [pod(state=ended())], JobState.SUCCEEDED
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_state_and_conditions(name: str) -> None:
    case = CASES[name]
    found = view(case.job, *case.pods, gone=case.gone)
    assert found.state is case.state
    assert [item.code for item in found.conditions] == list(case.conditions)


@pytest.mark.parametrize("name", CASES)
def test_only_finished_jobs_have_end_times_and_only_failed_jobs_failures(name: str) -> None:
    case = CASES[name]
    found = view(case.job, *case.pods, gone=case.gone)
    assert (found.finished_at is not None) == found.is_finished
    assert found.is_finished == (found.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED))
    if found.is_finished:
        assert (found.failure is not None) == (found.state is JobState.FAILED)


def test_view_has_admitted_spec_and_kubernetes_names() -> None:
    admitted = spec(name="train", env=(("A", "1"),), gpu=1, gpu_type="a10g", max_cost_usd=Decimal("2.50"))
    found = view(job(admitted=admitted, created=5))
    assert (found.id, found.tenant, found.name, found.created_at) == (JOB, "vision", "train", moment(5))
    assert (found.kubernetes.namespace, found.kubernetes.job) == (NAMESPACE, JOB)
    assert found.spec is not None
    assert (found.spec.env, found.spec.resources.gpu_type, found.spec.max_cost_usd) == ({"A": "1"}, "a10g", "2.50")
    assert found.cost is not None
    assert (found.cost.hourly, found.cost.actual) == (COST.hourly, None)
    assert [line.resource for line in found.cost.lines] == ["cpu", "memory"]


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"name": 1}', '{"currency": "USD"}'])
def test_view_omits_unreadable_annotations(text: str) -> None:
    found = view(job(annotations={ANNOTATION_SPEC: text, ANNOTATION_COST: text}), pod(state=running()))
    assert (found.spec, found.cost, found.state) == (None, None, JobState.RUNNING)


def test_times_are_first_container_start_and_terminal_condition() -> None:
    found = view(
        job(outcome="Complete", finished=100),
        pod("first", state=ended(1, started=10, finished=20)),
        pod("second", state=ended(0, started=40, finished=90)),
    )
    assert (found.started_at, found.finished_at) == (moment(10), moment(100))
    assert view(job(), pod(state=waiting("ContainerCreating"))).started_at is None


def test_failure_shows_memory_limit_as_submitted() -> None:
    found = view(job(outcome="Failed", admitted=spec(memory=256 << 20)), pod(state=ended(137, "OOMKilled")))
    assert found.failure is not None
    assert found.failure.evidence["memory_limit"] == "256Mi"


@pytest.mark.parametrize(
    ("shown", "state", "exit_code", "signal", "reason", "counted"),
    [
        (attempt(pod()), "waiting", None, None, None, False),
        (attempt(pod(state=running())), "running", None, None, None, False),
        (attempt(pod(state=running(), deleted=50)), "terminating", None, None, None, False),
        (attempt(pod(state=ended())), "succeeded", 0, None, "Completed", False),
        (attempt(pod(state=ended(3))), "failed", 3, None, "Error", True),
        (attempt(pod(state=ended(137, "OOMKilled"))), "failed", 137, "SIGKILL", "OOMKilled", True),
        (attempt(pod(state=ended(143), deleted=50)), "failed", 143, "SIGTERM", "Error", True),
        (attempt(pod(state=ended(128, "StartError"))), "failed", 128, None, "StartError", True),
        (
            attempt(pod(state=ended(143), conditions=[disrupted("PreemptionByScheduler")])),
            "failed", 143, "SIGTERM", "PreemptionByScheduler", False,
        ),
        (attempt(pod(phase="Failed", reason="Evicted")), "failed", None, None, "Evicted", True),
        (attempt(pod(state=running()), gone=True), "failed", None, None, None, True),
        (attempt(pod(conditions=[disrupted("Drained")]), gone=True), "failed", None, None, "Drained", False),
        (attempt(pod(state=ended()), gone=True), "succeeded", 0, None, "Completed", False),
    ],
)  # fmt: skip
def test_attempt_fields(
    shown: Attempt, state: str, exit_code: int | None, signal: str | None, reason: str | None, counted: bool
) -> None:
    assert (shown.state, shown.exit_code, shown.signal, shown.reason, shown.counted) == (
        state,
        exit_code,
        signal,
        reason,
        counted,
    )


def test_attempt_has_pod_node_and_times() -> None:
    shown = attempt(pod("rw-a-xyz", node="node-7", state=ended(0, started=10, finished=20)))
    assert (shown.pod, shown.node, shown.started_at, shown.finished_at) == (
        "rw-a-xyz",
        "node-7",
        moment(10),
        moment(20),
    )


def test_container_that_never_started_has_no_start_time() -> None:
    """The kubelet writes 1970 for a container that failed to start: https://github.com/kubernetes/kubernetes/issues/120331"""
    never = pod(state=ended(128, "StartError", started=EPOCH, finished=20))
    assert attempt(never).started_at is None
    assert view(FAILED, never).started_at is None


def test_pod_of_an_earlier_job_with_same_name_is_no_attempt() -> None:
    """kubectl deletes a Job with a terminating pod; a submission repeats the idempotency key."""
    found = view(job(uid="uid-of-the-new-job"), pod(state=running(), deleted=50, controller="uid-of-the-old-job"))
    assert found.attempts == []
    assert found.state is JobState.PENDING


@pytest.mark.parametrize(
    ("pods", "since"),
    [
        ([], 5),
        ([pod(created=200, phase="Pending", conditions=[unschedulable()])], 5),
        ([pod(created=9, phase="Failed", state=ended(1, started=10, finished=90))], 90),
        ([pod(created=9, state=running(10), deleted=120)], 120),
        (
            [
                pod("a", phase="Failed", state=ended(1, finished=90)),
                pod("b", phase="Failed", state=ended(1, finished=60)),
            ],
            90,
        ),
        ([pod("a", phase="Failed", state=ended(1, finished=90)), pod("b", created=300, phase="Failed")], 90),
    ],
    ids=["no pod yet", "unschedulable", "between attempts", "node is lost", "later end", "rejected by a node"],
)
def test_pending_since_creation_or_end_of_last_attempt(pods: list[Pod], since: int) -> None:
    assert pending_since(job(created=5), pods) == moment(since)


def test_hidden_env_values_keep_names_and_lengths() -> None:
    shown = view(job(admitted=spec(env=(("TOKEN", "geheim ☃"), ("EMPTY", "")))))
    hidden = without_env_values(shown)
    assert hidden.spec is not None
    assert hidden.spec.env == {"TOKEN": "<hidden: 8 characters>", "EMPTY": "<hidden: 0 characters>"}
    assert replace(hidden, spec=shown.spec) == shown


def test_view_without_environment_is_not_copied() -> None:
    for bare in (view(job(admitted=spec(env=()))), view(job(annotations={ANNOTATION_SPEC: "{}"}))):
        assert without_env_values(bare) is bare
