"""The verdict on a failed job: which code, who has to act, and only claims that what was seen supports."""

from __future__ import annotations

import pytest

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import MEANINGS, Category, Failure, FailureCode
from runway.jobs.diagnosis.container_exit import signal_of
from runway.jobs.diagnosis.outcome import diagnose
from runway.jobs.identity import ANNOTATION_SPEC
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Job, Pod
from tests.support.builders import Json, condition, ended, job, pod, waiting
from tests.support.diagnosis_case import BACKOFF, DEADLINE, overdue
from tests.unit.jobs.diagnosis.cases.deadline import DEADLINES
from tests.unit.jobs.diagnosis.cases.node import NODE
from tests.unit.jobs.diagnosis.cases.process import PROCESS

CASES = PROCESS | NODE | DEADLINES


def verdict(failed: Job, *pods: Pod) -> Failure:
    found = diagnose(JobSnapshot("vision", failed, pods))
    assert found is not None
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_verdict(name: str) -> None:
    told = CASES[name]
    found = diagnose(told.case)
    assert found is not None
    assert (found.code, found.category, found.retryable) == (told.code, told.category, told.retryable), found.message
    assert told.message in found.message
    assert told.hint in found.hint
    assert told.evidence.items() <= found.evidence.items()


def test_every_code_is_told_of_some_real_status() -> None:
    assert len(CASES) == len(PROCESS) + len(NODE) + len(DEADLINES)
    assert {told.code for told in CASES.values()} == set(FailureCode)


def test_every_code_has_a_meaning_and_something_to_do() -> None:
    assert list(MEANINGS) == list(FailureCode)
    assert all(item.meaning and item.advice for item in MEANINGS.values())
    assert all(not item.retryable for item in MEANINGS.values() if item.category in (Category.USER, Category.RUNWAY))


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
    assert diagnose(JobSnapshot("vision", found, (pod(state=ended(1)),))) is None


@pytest.mark.parametrize(
    "attempt", [ended(137, "OOMKilled", finished=20), ended(137, finished=20)], ids=["OOM", "kill -9"]
)
def test_a_deadline_between_attempts_does_not_claim_that_the_grace_period_ran_out(attempt: Json) -> None:
    """The last attempt had ended long before; the deadline came while the job waited for the next."""
    found = verdict(DEADLINE, pod(state=attempt))
    assert found.code is FailureCode.DEADLINE_EXCEEDED
    assert "grace period" not in found.message
    assert "grace_period" not in found.evidence


def test_evidence_is_what_kubernetes_and_the_process_said() -> None:
    found = verdict(BACKOFF, pod(state=ended(139, message="last line of the log")))
    assert found.evidence == {
        "job_reason": "BackoffLimitExceeded",
        "job_message": "Job has reached the specified backoff limit",
        "exit_code": "139",
        "container_reason": "Error",
        "last_words": "last line of the log",
        "signal": "SIGSEGV",
        "counted_attempts": "1",
    }


def test_the_kubelets_failure_to_read_the_log_is_no_evidence() -> None:
    lost = "Error on reading termination message from logs: failed to try resolving symlinks in path"
    found = verdict(BACKOFF, pod(state=ended(1, message=lost)))
    assert "last_words" not in found.evidence
    assert lost not in found.message


def test_last_words_are_bounded_and_keep_the_end() -> None:
    found = verdict(BACKOFF, pod(state=ended(1, message="x" * 5000 + "the end")))
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
def test_hostile_text_is_bounded_and_its_control_characters_are_made_visible(hostile: Pod) -> None:
    found = verdict(BACKOFF, hostile)
    texts = [found.message, found.hint, *found.evidence.values()]
    assert all(letter.isprintable() or letter in "\n\t" for text in texts for letter in text)
    assert len(found.message) <= 1000
    assert sum(map(len, texts)) <= 6000


def test_a_specification_changed_by_hand_hides_no_verdict() -> None:
    text = BACKOFF.metadata.annotations[ANNOTATION_SPEC].replace('"memory":"1Gi"', '"memory":"much"')
    changed = job(verdict="Failed", annotations={ANNOTATION_SPEC: text})
    spec = spec_of(changed)
    assert spec is not None
    assert spec.resources.memory == "much"
    assert verdict(changed, pod(state=ended(137, "OOMKilled"))).hint.startswith("raise resources.memory")
    unread = verdict(job(verdict="Failed", annotations={ANNOTATION_SPEC: "{"}), pod(state=ended(137, "OOMKilled")))
    assert (unread.code, "memory_limit" in unread.evidence) == (FailureCode.OOM_KILLED, False)


def test_a_deadline_without_a_grace_period_in_the_pod_goes_by_that_of_the_specification() -> None:
    """A pod as an older Kubernetes deletes it, without FailureTarget or the time of the deadline."""
    old = job(verdict="Failed", reason="DeadlineExceeded")
    found = verdict(old, pod(state=ended(137, finished=90), deleted=90))
    assert "killed after its grace period of 30 s" in found.message
    assert verdict(DEADLINE, overdue(ended(137, finished=99))).evidence["grace_period"] == "overrun"


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
        (ended(137, "ContainerStatusUnknown"), None),
    ],
)
def test_signals_are_told_by_name(state: Json, name: str | None) -> None:
    terminated = pod(state=state).container.terminated
    assert terminated is not None
    assert signal_of(terminated) == name
