"""The attempts of a job: node, times, exit, counting and cause."""

from __future__ import annotations

import pytest

from runway.jobs.annotations import ANNOTATION_CANCELLED_AT
from runway.jobs.models import Attempt, JobView
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.objects import Job, Pod
from tests.support.builders import Json, condition, disrupted, ended, job, moment, pod, running, unschedulable, waiting
from tests.support.diagnosis_case import DEADLINE, evicted, overdue, rejected

BOUND: list[Json] = [condition("PodScheduled", since=3)]
NEVER_SCHEDULED = overdue(node=None, conditions=[unschedulable()], phase="Failed")
CANCELLED = job(outcome="Failed", reason="DeadlineExceeded", cancelled=True, finished=70)


def view(*pods: Pod, of: Job | None = None, gone: frozenset[str] = frozenset()) -> JobView:
    return job_view(JobSnapshot("vision", of or job(), pods, gone))


def attempt(found: Pod, of: Job | None = None, *, gone: bool = False) -> Attempt:
    return view(found, of=of, gone=frozenset([found.metadata.name] if gone else [])).attempts[0]


def test_attempt_has_node_and_times() -> None:
    shown = attempt(
        pod("rw-a-xyz", node="node-7", created=1, state=ended(0, started=10, finished=20), conditions=BOUND)
    )
    assert (shown.pod, shown.node) == ("rw-a-xyz", "node-7")
    assert (shown.created_at, shown.bound_at) == (moment(1), moment(3))
    assert (shown.started_at, shown.finished_at) == (moment(10), moment(20))
    assert (shown.cause, shown.message) == (None, None)


def test_unscheduled_attempt_has_no_times() -> None:
    pending = attempt(pod(node=None, conditions=[unschedulable()]))
    assert (pending.bound_at, pending.started_at, pending.finished_at) == (None, None, None)


@pytest.mark.parametrize(
    ("found", "seen", "finished"),
    [
        (pod(state=running(), deleted=95, grace=30), 70, 70),
        (pod(state=running(), deleted=95, grace=30), 120, 95),
        (pod(state=running(), deleted=95, grace=30), 20, 65),
        (pod(state=waiting("ErrImagePull"), deleted=95, grace=30), 67, 65),
        (pod(deleted=95, grace=30), 120, 65),
        (pod(created=1, deleted=95, grace=2**31 - 1), 120, 1),
    ],
    ids=[
        "within its grace period",
        "after it",
        "by a clock that is behind",
        "never started",
        "never bound",
        "an edited grace period",
    ],
)
def test_deleted_attempt_never_ends_later_than_it_was_seen_to(found: Pod, seen: float, finished: float) -> None:
    """The deletion timestamp includes the grace period, which a process need not use."""
    gone = frozenset([found.metadata.name])
    snapshot = JobSnapshot("vision", job(), (found,), gone, deletions_seen={found.metadata.name: moment(seen)})
    assert job_view(snapshot).attempts[0].finished_at == moment(finished)


def lost_while_terminating() -> Pod:
    conditions = [disrupted("DeletionByPodGC")]
    return pod(phase="Failed", state=running(), deleted=95, grace=30, conditions=conditions)


@pytest.mark.parametrize(
    ("shown", "finished"),
    [
        (attempt(pod(state=running(), deleted=95, grace=30), gone=True), 95),
        (attempt(pod(phase="Failed", conditions=[disrupted("DeletionByPodGC")])), 80),
        (attempt(lost_while_terminating()), 80),
        (attempt(pod(phase="Failed", reason="OutOfcpu", message="Pod was rejected: no room", conditions=BOUND)), 3),
        (attempt(pod(state=ended(137, "ContainerStatusUnknown", finished=-1795507200), deleted=95, grace=0)), 95),
        (attempt(pod(state=running(), deleted=95, grace=30)), None),
        (attempt(pod(state=running())), None),
        (attempt(pod(phase="Failed")), None),
    ],
    ids=[
        "deleted",
        "disrupted",
        "lost in its grace period",
        "rejected by its node",
        "lost",
        "terminating",
        "running",
        "no time known",
    ],
)
def test_attempt_without_container_exit_takes_finish_time_from_pod(shown: Attempt, finished: float | None) -> None:
    assert shown.finished_at == (None if finished is None else moment(finished))


def test_container_that_never_existed_has_no_exit() -> None:
    """The kubelet reports 137 for it after the deletion of its pod."""
    invented = ended(137, "ContainerStatusUnknown", started=-1795507200, finished=-1795507200)
    shown = attempt(pod(state=invented, conditions=BOUND, deleted=95, grace=0))
    assert (shown.exit_code, shown.signal, shown.reason) == (None, None, None)


@pytest.mark.parametrize(
    ("shown", "counted", "cause", "words"),
    [
        (attempt(pod(state=ended(3))), True, "exit_nonzero", "the process exited with code 3"),
        (attempt(pod(state=ended(137, "OOMKilled"))), True, "oom_killed", "memory limit of 1Gi"),
        (attempt(pod(state=ended(143), conditions=[disrupted()])), False, "drained", "evicted from node node-1"),
        (attempt(evicted("The node was low on resource: memory. ")), False, "evicted_memory", "ran out of memory"),
        (attempt(rejected("OutOfcpu", "no room")), True, "admission_rejected", "rejected the pod"),
        (attempt(pod(state=running(), deleted=50), gone=True), True, "pod_deleted", "deleted outside Runway"),
        (attempt(pod(state=running()), gone=True), True, "pod_deleted", "did not see"),
        (attempt(overdue(ended(143, finished=71)), DEADLINE), True, "deadline_exceeded", "ended on SIGTERM"),
        (attempt(pod(state=ended(3, finished=20)), DEADLINE), True, "exit_nonzero", "exited with code 3"),
        (attempt(NEVER_SCHEDULED, DEADLINE), True, "unschedulable", "too few free GPUs"),
        (attempt(pod(phase="Failed")), True, "unknown", "does not report the reason"),
        (attempt(pod(phase="Failed"), DEADLINE), True, "unknown", "does not report the reason"),
        (attempt(overdue(phase="Failed"), DEADLINE), True, "deadline_exceeded", "does not report the reason"),
    ],
)  # fmt: skip
def test_failed_attempt_has_cause_and_message(shown: Attempt, counted: bool, cause: str, words: str) -> None:
    assert (shown.state, shown.counted, shown.cause) == ("failed", counted, cause)
    assert shown.message is not None
    assert words in shown.message


DIGEST = "sha256:" + "0123456789abcdef" * 4


# https://github.com/containerd/containerd/issues/8408, https://github.com/kubernetes/kubernetes/issues/95968
@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        (f"hub.example.com/team/train@{DIGEST}", DIGEST),
        (DIGEST, DIGEST),
        (f"docker-pullable://hub.example.com/team/train@{DIGEST}", DIGEST),
        (f"docker://{DIGEST}", DIGEST),
        (DIGEST.removeprefix("sha256:"), DIGEST),  # CRI-O
        ("", None),
        (None, None),
        ("hub.example.com/team/train:1", None),
        (f"hub.example.com/team/train@sha512:{'a' * 128}", f"sha512:{'a' * 128}"),
        (f"{DIGEST}\n\x1b[2J", None),
        ("x" * 100_000, None),
    ],
)
def test_attempt_has_digest_of_the_image_that_ran(reported: str | None, shown: str | None) -> None:
    assert attempt(pod(state=running(), image_id=reported)).image_id == shown


def test_different_images_of_attempts_are_shown() -> None:
    other = DIGEST.replace("0", "1")
    first, second = (pod("a", state=ended(1), image_id=DIGEST), pod("b", state=running(), image_id=DIGEST))
    assert not view(first, second).images_differ
    assert not view(first, pod("b", state=waiting("ErrImagePull"))).images_differ
    assert view(first, pod("b", state=running(), image_id=other)).images_differ


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pod(state=waiting("ImagePullBackOff", "Back-off pulling image")), "ImagePullBackOff"),
        (pod(state=waiting("CreateContainerConfigError", 'secret "hf" not found')), "CreateContainerConfigError"),
        (pod(state=waiting("ContainerCreating")), None),
        (pod(node=None, conditions=[unschedulable()]), "Unschedulable"),
        (evicted("The node was low on resource: memory. "), "Evicted"),
        (rejected("OutOfcpu", "no room"), "OutOfcpu"),
        (pod(state=ended(143), conditions=[disrupted()]), "EvictionByEvictionAPI"),
        (pod(state=ended(137, "OOMKilled")), "OOMKilled"),
    ],
)
def test_attempt_has_reason_of_kubernetes(found: Pod, reason: str | None) -> None:
    assert attempt(found).reason == reason


def test_unknown_reason_of_a_node_is_quoted() -> None:
    """A later Kubernetes may have reasons that this version does not know."""
    shown = attempt(pod(phase="Failed", reason="DeviceLost", message="GPU 3 fell off the bus"))
    assert (shown.cause, shown.message) == ("unknown", "the pod failed; DeviceLost: GPU 3 fell off the bus")


def test_attempt_names_the_missing_image() -> None:
    missing = 'failed to pull and unpack image "hub.example.com/train:2": hub.example.com/train:2: not found'
    shown = attempt(overdue(waiting("ErrImagePull", missing), phase="Failed"), DEADLINE)
    assert (shown.reason, shown.message is not None and "hub.example.com/train:2" in shown.message) == (
        "ErrImagePull", True,
    )  # fmt: skip


@pytest.mark.parametrize("found", [pod(), pod(state=running()), pod(state=running(), deleted=90), pod(state=ended())])
def test_active_or_succeeded_attempt_has_no_cause(found: Pod) -> None:
    shown = attempt(found)
    assert (shown.cause, shown.message) == (None, None)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            pod(state=ended(143, finished=72), deleted=100, grace=30),
            "cancelled; the process ended on SIGTERM (exit code 143)",
        ),
        (pod(state=ended(137, finished=100), deleted=100, grace=30), "killed after its grace period of 30 s"),
        (pod(node=None, phase="Failed", deleted=70, grace=0), "the job was cancelled"),
    ],
)
def test_cancelled_attempt_has_message_but_no_cause(found: Pod, words: str) -> None:
    shown = attempt(found, CANCELLED)
    assert shown.cause is None
    assert shown.message is not None
    assert words in shown.message


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"]
)
def test_job_with_an_impossible_time_of_cancellation_has_a_view(time: str) -> None:
    edited = job(outcome="Failed", reason="DeadlineExceeded", annotations={ANNOTATION_CANCELLED_AT: time})
    shown = attempt(pod(state=ended(143, finished=72), deleted=100, grace=30), edited)
    assert shown.message == "the job was cancelled; the process ended on SIGTERM (exit code 143)"


def test_attempt_failed_before_cancellation_keeps_its_cause() -> None:
    assert attempt(pod(state=ended(3, finished=20)), CANCELLED).cause == "exit_nonzero"


# https://github.com/kubernetes/kubernetes/issues/131530
def test_suspicious_success_has_message_but_no_cause() -> None:
    out_of_memory = attempt(pod(state=ended(0, "OOMKilled")))
    assert (out_of_memory.state, out_of_memory.cause) == ("succeeded", None)
    assert out_of_memory.message is not None
    assert "memory limit of 1Gi" in out_of_memory.message
    drained = attempt(pod(state=ended(0), conditions=[disrupted(message="Eviction API: evicting")]))
    assert (
        drained.message
        == "the pod was terminated (Eviction API: evicting) but exited with code 0; its work may be incomplete"
    )


def test_view_has_newest_attempts_and_count_of_others() -> None:
    pods = [pod(f"p{number:02}", state=ended(143), conditions=[disrupted()]) for number in range(25)]
    shown = view(*pods, pod("p25", state=running()))
    assert [item.pod for item in shown.attempts] == [f"p{number:02}" for number in range(6, 26)]
    assert (shown.attempts_left_out, shown.disruptions) == (6, 25)


def test_counted_attempt_is_no_disruption() -> None:
    shown = view(
        pod("a", state=ended(1)), pod("b", state=ended(143), conditions=[disrupted()]), pod("c", state=running())
    )
    assert (shown.attempts_left_out, shown.disruptions) == (0, 1)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod(state=ended(0), conditions=[disrupted()]), "the pod was terminated (EvictionByEvictionAPI)"),
        (pod(state=ended(0, finished=90), deleted=110, grace=30), "deleted while its process ran"),
        (pod(state=ended(0, "OOMKilled")), "memory limit of 1Gi"),
    ],
    ids=["drained", "deleted", "a child killed for memory"],
)
def test_success_that_may_be_incomplete_has_its_reason(found: Pod, words: str) -> None:
    """https://github.com/kubernetes/kubernetes/issues/90636: a process can save its work and exit with 0."""
    complete = view(found, of=job(outcome="Complete"))
    assert complete.state == "succeeded"
    assert words in (complete.may_be_incomplete or "")
    assert complete.may_be_incomplete == complete.attempts[0].message
    assert view(found).may_be_incomplete is None, "the Job is not complete yet"
    assert view(found, of=CANCELLED).may_be_incomplete is None


@pytest.mark.parametrize(
    "found",
    [
        pod(state=ended(0)),
        pod(state=ended(0, finished=90), deleted=95, grace=0),
        pod(state=ended(0, finished=60), deleted=110, grace=30),
    ],
    ids=["not deleted", "deleted when terminal", "ended before the deletion"],
)
def test_plain_success_is_complete(found: Pod) -> None:
    assert view(found, of=job(outcome="Complete")).may_be_incomplete is None


def test_success_after_a_disrupted_attempt_is_complete() -> None:
    first = pod("a", state=ended(143), conditions=[disrupted()])
    assert view(first, pod("b", created=50, state=ended(0)), of=job(outcome="Complete")).may_be_incomplete is None
