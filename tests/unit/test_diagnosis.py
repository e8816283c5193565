"""The verdict on a failed job: which code, who has to act, and only claims that what was seen supports."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runway.jobs.case import Case
from runway.jobs.diagnosis import Category, Failure, FailureCode, diagnose, signal_of, waiting_condition
from runway.objects import Job, Pod
from tests.support.builders import Json, condition, disrupted, ended, job, moment, pod, running, unschedulable, waiting

LIMIT = "1Gi"


def verdict(failed: Job, *pods: Pod) -> Failure:
    found = diagnose(Case("vision", failed, pods))
    assert found is not None
    return found


def backoff_exceeded() -> Job:
    return job(verdict="Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")


def deadline_exceeded() -> Job:
    return job(verdict="Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline")


EXEC_MISSING = 'exec: "trainn": executable file not found in $PATH'

CASES: dict[str, tuple[Job, Sequence[Pod], FailureCode, Category, bool, str]] = {
    "exit code": (
        backoff_exceeded(), [pod(state=ended(3))],
        FailureCode.EXIT_NONZERO, Category.USER, False, "ended with exit code 3",
    ),
    "the highest exit code is no signal": (
        backoff_exceeded(), [pod(state=ended(255))],
        FailureCode.EXIT_NONZERO, Category.USER, False, "exit code 255",
    ),
    "segfault": (
        backoff_exceeded(), [pod(state=ended(139))],
        FailureCode.KILLED_BY_SIGNAL, Category.USER, False, "SIGSEGV (exit code 139)",
    ),
    "abort": (
        backoff_exceeded(), [pod(state=ended(134))],
        FailureCode.KILLED_BY_SIGNAL, Category.USER, False, "SIGABRT",
    ),
    "137 that was not for memory": (
        backoff_exceeded(), [pod(state=ended(137))],
        FailureCode.KILLED_BY_SIGNAL, Category.USER, False, "SIGKILL (exit code 137)",
    ),
    "killed for memory": (
        backoff_exceeded(), [pod(state=ended(137, "OOMKilled"))],
        FailureCode.OOM_KILLED, Category.USER, False, "memory limit of 1Gi",
    ),
    "killed for memory in a child, with an exit code of its own": (
        backoff_exceeded(), [pod(state=ended(1, "OOMKilled"))],
        FailureCode.OOM_KILLED, Category.USER, False, "memory limit of 1Gi",
    ),
    "no such program": (
        backoff_exceeded(), [pod(state=ended(128, "StartError", EXEC_MISSING))],
        FailureCode.START_FAILED, Category.USER, False, EXEC_MISSING,
    ),
    "a container that cannot run": (
        backoff_exceeded(), [pod(state=ended(127, "ContainerCannotRun", EXEC_MISSING))],
        FailureCode.START_FAILED, Category.USER, False, EXEC_MISSING,
    ),
    "drained from its node": (
        backoff_exceeded(), [pod(state=ended(143), conditions=[disrupted(message="evicted by the drain")])],
        FailureCode.DISRUPTED, Category.INFRA, True, "evicted by the drain",
    ),
    "preempted, which beats what the kernel did": (
        backoff_exceeded(), [pod(state=ended(137, "OOMKilled"), conditions=[disrupted("PreemptionByScheduler")])],
        FailureCode.DISRUPTED, Category.INFRA, True, "PreemptionByScheduler",
    ),
    "only the last attempt counts": (
        backoff_exceeded(), [pod("first", state=ended(137, "OOMKilled")), pod("second", state=ended(2))],
        FailureCode.EXIT_NONZERO, Category.USER, False, "exit code 2",
    ),
    "a disruption that did not happen": (
        backoff_exceeded(), [pod(state=ended(1), conditions=[condition("DisruptionTarget", "False")])],
        FailureCode.EXIT_NONZERO, Category.USER, False, "exit code 1",
    ),
    "the deadline beats the 143 that it causes": (
        deadline_exceeded(), [pod(state=ended(143), deleted=60)],
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, "reached its timeout and was told to end",
    ),
    "the deadline, with SIGTERM handled in good order": (
        deadline_exceeded(), [pod(state=ended(0), deleted=60)],
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, "reached its timeout and was told to end",
    ),
    "the deadline, with SIGTERM ignored": (
        deadline_exceeded(), [pod(state=ended(137, finished=90), deleted=60)],
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, "killed after its grace period of 30 s",
    ),
    "the deadline, never scheduled": (
        deadline_exceeded(), [pod(conditions=[unschedulable()], node=None, deleted=60)],
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, "before it could start: 0/1 nodes are available",
    ),
    "the deadline, image never pulled": (
        deadline_exceeded(), [pod(state=waiting("ImagePullBackOff", "no such image"), deleted=60)],
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, "before it could start: ImagePullBackOff: no such image",
    ),
    "the deadline, no pod at all": (
        deadline_exceeded(), [],
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, "reached its timeout",
    ),
    "no pod to look at": (
        backoff_exceeded(), [],
        FailureCode.UNKNOWN, Category.INFRA, False, "BackoffLimitExceeded: Job has reached the specified backoff limit",
    ),
    "a pod that says nothing": (
        backoff_exceeded(), [pod(phase="Failed", reason="UnexpectedAdmissionError")],
        FailureCode.UNKNOWN, Category.INFRA, False, "BackoffLimitExceeded",
    ),
    "a verdict that says nothing": (
        job(verdict="Failed"), [],
        FailureCode.UNKNOWN, Category.INFRA, False, "no reason given",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_verdict(case: str) -> None:
    failed, pods, code, category, retryable, words = CASES[case]
    found = verdict(failed, *pods)
    assert (found.code, found.category, found.retryable) == (code, category, retryable)
    assert words in found.message
    assert found.hint


@pytest.mark.parametrize(
    "found",
    [
        job(),
        job(verdict="Complete"),
        job(conditions=[condition("FailureTarget", reason="BackoffLimitExceeded")]),
        job(conditions=[condition("Failed", "False")]),
        job(verdict="Failed", reason="DeadlineExceeded", cancelled=True),
    ],
    ids=["unfinished", "complete", "only announced", "not true", "cancelled"],
)
def test_there_is_no_failure_without_kubernetes_verdict(found: Job) -> None:
    assert diagnose(Case("vision", found, (pod(state=ended(1)),))) is None


@pytest.mark.parametrize(
    "attempt", [ended(137, "OOMKilled", finished=20), ended(137, finished=20)], ids=["OOM", "kill -9"]
)
def test_a_deadline_between_attempts_does_not_claim_that_the_grace_period_ran_out(attempt: Json) -> None:
    """The last attempt had ended long before; the deadline came while the job waited for the next."""
    found = verdict(deadline_exceeded(), pod(state=attempt))
    assert found.code is FailureCode.DEADLINE_EXCEEDED
    assert "grace period" not in found.message
    assert "grace_period_seconds" not in found.evidence


def test_evidence_is_what_kubernetes_and_the_process_said() -> None:
    found = verdict(backoff_exceeded(), pod(state=ended(139, message="last line of the log")))
    assert found.evidence == {
        "job_reason": "BackoffLimitExceeded",
        "job_message": "Job has reached the specified backoff limit",
        "exit_code": "139",
        "container_reason": "Error",
        "last_words": "last line of the log",
        "signal": "SIGSEGV",
    }
    assert verdict(backoff_exceeded(), pod(state=ended(137, "OOMKilled"))).evidence["limit"] == LIMIT
    drained = verdict(backoff_exceeded(), pod(state=ended(143), conditions=[disrupted("DeletionByTaintManager")]))
    assert drained.evidence["pod_reason"] == "DeletionByTaintManager"
    starved = verdict(deadline_exceeded(), pod(conditions=[unschedulable()]))
    assert starved.evidence["waiting"] == "unschedulable"


def test_last_words_are_bounded_and_keep_the_end() -> None:
    found = verdict(backoff_exceeded(), pod(state=ended(1, message="x" * 5000 + "the end")))
    assert len(found.evidence["last_words"]) == 2048
    assert found.evidence["last_words"].endswith("the end")


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (ended(0), None),
        (ended(1), None),
        (ended(127), None),
        (ended(128), None),
        (ended(129), "SIGHUP"),
        (ended(130), "SIGINT"),
        (ended(132), "SIGILL"),
        (ended(134), "SIGABRT"),
        (ended(135), "SIGBUS"),
        (ended(136), "SIGFPE"),
        (ended(137), "SIGKILL"),
        (ended(139), "SIGSEGV"),
        (ended(141), "SIGPIPE"),
        (ended(143), "SIGTERM"),
        (ended(160), None),  # 32 belongs to the threads library and has no name
        (ended(200), None),
        (ended(255), None),
        (ended(0, signal=9), "SIGKILL"),
        (ended(137, "StartError"), None),
    ],
)
def test_signals_are_told_by_name(state: Json, name: str | None) -> None:
    terminated = pod(state=state).container.terminated
    assert terminated is not None
    assert signal_of(terminated) == name


@pytest.mark.parametrize(
    ("found", "code", "message"),
    [
        (
            pod(conditions=[unschedulable("0/3 nodes: Insufficient cpu")]),
            "unschedulable",
            "0/3 nodes: Insufficient cpu",
        ),
        (pod(state=waiting("ErrImagePull", "not found")), "image_pull_failing", "ErrImagePull: not found"),
        (pod(state=waiting("ImagePullBackOff")), "image_pull_failing", "ImagePullBackOff"),
        (pod(state=waiting("InvalidImageName")), "image_pull_failing", "InvalidImageName"),
        (
            pod(state=waiting("CreateContainerConfigError", "image will run as root")),
            "container_not_starting",
            "CreateContainerConfigError: image will run as root",
        ),
    ],
)
def test_why_a_pod_waits(found: Pod, code: str, message: str) -> None:
    condition_ = waiting_condition(found)
    assert condition_ is not None
    assert (condition_.code, condition_.message) == (code, message)
    assert condition_.since is not None


def test_a_pod_waits_since_it_was_found_unschedulable() -> None:
    found = waiting_condition(pod(created=1, conditions=[unschedulable()]))
    assert found is not None
    assert found.since == moment(2)


@pytest.mark.parametrize(
    "found",
    [
        pod(),
        pod(conditions=[condition("PodScheduled")]),
        pod(state=waiting("ContainerCreating")),
        pod(state=waiting("PodInitializing")),
        pod(state=running()),
        pod(state=ended()),
    ],
)
def test_a_pod_on_its_way_has_nothing_to_wait_for(found: Pod) -> None:
    assert waiting_condition(found) is None
