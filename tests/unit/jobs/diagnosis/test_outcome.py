"""Diagnosis of failed jobs: code, category, message, hint and evidence."""

from __future__ import annotations

import pytest

from runway.jobs.annotations import ANNOTATION_SPEC, spec_of
from runway.jobs.diagnosis.codes import Category, FailureCode
from runway.jobs.diagnosis.container_exit import signal_of
from runway.jobs.diagnosis.outcome import diagnose
from runway.jobs.models import Failure
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Job, Pod
from tests.support.builders import Json, condition, ended, job, pod, unschedulable, waiting
from tests.support.diagnosis_case import BACKOFF, DEADLINE, overdue
from tests.unit.jobs.diagnosis.cases.deadline import DEADLINES
from tests.unit.jobs.diagnosis.cases.node import NODE
from tests.unit.jobs.diagnosis.cases.process import PROCESS
from tests.unit.jobs.diagnosis.cases.references import LATE, REFERENCES
from tests.unit.jobs.diagnosis.cases.waste import WASTE

CASES = PROCESS | NODE | DEADLINES | REFERENCES | WASTE


def failure(failed: Job, *pods: Pod) -> Failure:
    found = diagnose(JobSnapshot("vision", failed, pods))
    assert found is not None
    return found


@pytest.mark.parametrize("name", CASES)
def test_diagnosis_of_failed_job(name: str) -> None:
    case = CASES[name]
    found = diagnose(case.snapshot)
    assert found is not None
    assert (found.code, found.category, found.retryable) == (case.code, case.category, case.retryable), found.message
    assert case.message in found.message
    assert case.hint in found.hint
    assert case.evidence.items() <= found.evidence.items()


def test_every_code_has_a_case() -> None:
    assert len(CASES) == sum(map(len, (PROCESS, NODE, DEADLINES, REFERENCES, WASTE)))
    assert {case.code for case in CASES.values()} == set(FailureCode)


def test_every_code_has_meaning_and_advice() -> None:
    assert all(code.meaning and code.advice for code in FailureCode)
    assert all(not code.retryable for code in FailureCode if code.category in (Category.USER, Category.RUNWAY))


@pytest.mark.parametrize(
    "found",
    [
        job(),
        job(outcome="Complete"),
        job(conditions=[condition("FailureTarget", reason="BackoffLimitExceeded")]),
        job(conditions=[condition("Failed", "False")]),
        job(outcome="Failed", reason="DeadlineExceeded", cancelled=True),
    ],
    ids=["unfinished", "complete", "only FailureTarget", "Failed is False", "cancelled"],
)
def test_no_failure_before_kubernetes_fails_the_job(found: Job) -> None:
    assert diagnose(JobSnapshot("vision", found, (pod(state=ended(1)),))) is None


@pytest.mark.parametrize(
    "attempt", [ended(137, "OOMKilled", finished=20), ended(137, finished=20)], ids=["OOM", "kill -9"]
)
def test_deadline_between_attempts_does_not_mention_grace_period(attempt: Json) -> None:
    """The last attempt ended long before; the deadline passed while the job waited for the next."""
    found = failure(DEADLINE, pod(state=attempt))
    assert found.code is FailureCode.DEADLINE_EXCEEDED
    assert "grace period" not in found.message
    assert "grace_period" not in found.evidence


def test_evidence_has_kubernetes_fields_and_end_of_log() -> None:
    found = failure(BACKOFF, pod(state=ended(139, message="last line of the log")))
    assert found.evidence == {
        "job_reason": "BackoffLimitExceeded",
        "job_message": "Job has reached the specified backoff limit",
        "exit_code": "139",
        "container_reason": "Error",
        "last_words": "last line of the log",
        "signal": "SIGSEGV",
        "counted_attempts": "1",
    }


def test_kubelet_error_reading_log_is_no_evidence() -> None:
    lost = "Error on reading termination message from logs: failed to try resolving symlinks in path"
    found = failure(BACKOFF, pod(state=ended(1, message=lost)))
    assert "last_words" not in found.evidence
    assert lost not in found.message


def test_termination_message_keeps_bounded_end_of_log() -> None:
    found = failure(BACKOFF, pod(state=ended(1, message="x" * 5000 + "the end")))
    assert len(found.evidence["last_words"]) == 2048
    assert found.evidence["last_words"].endswith("the end")


@pytest.mark.parametrize(
    "hostile",
    [
        pod(state=ended(1, message="\x1b[2J\x00\u202e" * 4000)),
        pod(state=ended(128, "StartError", "\x1b[2J\u202e" * 100_000)),
        pod(state=ended(255, "Unknown\x07" * 50_000, "\r\n" * 50_000)),
        pod(phase="Failed", reason="Evicted", message="\x9b31m Usage of EmptyDir volume " * 20_000),
        pod(phase="Failed", reason="OutOf\x1b" * 9_000, message="Pod was rejected: " + "\x1b" * 100_000),
        pod(state=waiting("ErrImagePull", "failed to resolve: " * 100_000 + "\x1b]0;pwned\x07"), phase="Failed"),
    ],
)
def test_hostile_text_is_bounded_and_escaped(hostile: Pod) -> None:
    assert_bounded(failure(BACKOFF, hostile))


@pytest.mark.parametrize(
    "hostile",
    [
        overdue(node=None, conditions=[unschedulable('persistentvolumeclaim "\x1b[2J\u202e" not found')]),
        overdue(node=None, conditions=[unschedulable("0/1 nodes are available: " + 'persistentvolumeclaim "a' * 9999)]),
        overdue(waiting("CreateContainerConfigError", f"couldn't find key {'k' * 9999} in Secret a/wandb")),
        overdue(waiting("CreateContainerConfigError", 'secret "wandb" not found\x1b]0;pwned\x07')),
        overdue(waiting("CreateContainerConfigError", "couldn't find key \u202e in Secret a/wandb")),
    ],
)
def test_hostile_text_about_volumes_and_secrets_is_bounded_and_escaped(hostile: Pod) -> None:
    assert_bounded(failure(LATE, hostile))


def assert_bounded(found: Failure) -> None:
    texts = [found.message, found.hint, *found.evidence.values()]
    assert all(letter.isprintable() or letter in "\n\t" for text in texts for letter in text)
    assert len(found.message) <= 1000
    assert sum(map(len, texts)) <= 6000


def test_edited_spec_annotation_does_not_hide_failure() -> None:
    text = BACKOFF.metadata.annotations[ANNOTATION_SPEC].replace('"memory":"1Gi"', '"memory":"much"')
    changed = job(outcome="Failed", annotations={ANNOTATION_SPEC: text})
    spec = spec_of(changed)
    assert spec is not None
    assert spec.resources.memory == "much"
    assert failure(changed, pod(state=ended(137, "OOMKilled"))).hint.startswith("raise resources.memory")
    unread = failure(job(outcome="Failed", annotations={ANNOTATION_SPEC: "{"}), pod(state=ended(137, "OOMKilled")))
    assert (unread.code, "memory_limit" in unread.evidence) == (FailureCode.OOM_KILLED, False)


def test_grace_period_falls_back_to_specification() -> None:
    """A pod deleted by an older Kubernetes, without FailureTarget or the time of the deadline."""
    old = job(outcome="Failed", reason="DeadlineExceeded")
    found = failure(old, pod(state=ended(137, finished=90), deleted=90))
    assert "killed after its grace period of 30 s" in found.message
    assert failure(DEADLINE, overdue(ended(137, finished=99))).evidence["grace_period"] == "overrun"


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
        (ended(160), None),  # the threads library uses 32, which has no name
        (ended(200), None),
        (ended(255), None),
        (ended(0, signal=9), "SIGKILL"),
        (ended(137, "StartError"), None),
        (ended(137, "ContainerStatusUnknown"), None),
    ],
)
def test_signal_of_exit_code(state: Json, name: str | None) -> None:
    terminated = pod(state=state).container.terminated
    assert terminated is not None
    assert signal_of(terminated) == name
