"""What went wrong, told in plain words: pure, from the Job and its pods as last seen.

Precedence, first match wins:

1. The Job has not failed: no failure.
2. The Job failed by its deadline: `deadline_exceeded`, whatever exit code the SIGTERM caused.
3. The last attempt was disrupted (pod condition DisruptionTarget): `disrupted`, not the job's fault.
4. The container was killed by the kernel for memory: `oom_killed`.
5. The container could not be started: `start_failed`.
6. The process was ended by a signal (exit code 128 + n): `killed_by_signal`.
7. The process ended with a code other than 0: `exit_nonzero`.
8. Anything else: `unknown`, with Kubernetes' own words as evidence.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from runway.jobs.admitted import spec_of
from runway.jobs.case import Case
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.objects import Pod, Terminated


class FailureCode(StrEnum):
    """Stable codes of why a job failed."""

    DEADLINE_EXCEEDED = "deadline_exceeded"
    DISRUPTED = "disrupted"
    OOM_KILLED = "oom_killed"
    START_FAILED = "start_failed"
    KILLED_BY_SIGNAL = "killed_by_signal"
    EXIT_NONZERO = "exit_nonzero"
    UNKNOWN = "unknown"


class Category(StrEnum):
    """Who has to act: the job's owner, the platform's operators, or the policy."""

    USER = "user"
    INFRA = "infra"
    POLICY = "policy"
    RUNWAY = "runway"


@dataclass(frozen=True, slots=True)
class Failure:
    """The verdict on a failed job. `retryable`: the same spec may succeed if it is submitted again."""

    code: FailureCode
    category: Category
    retryable: bool
    message: str
    hint: str
    evidence: dict[str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """Why a job that is not over is not further along."""

    code: str
    message: str
    since: datetime | None


_START_REASONS = frozenset({"StartError", "ContainerCannotRun", "CreateContainerError", "RunContainerError"})
_PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def diagnose(case: Case) -> Failure | None:
    """The verdict on this job; None unless Kubernetes has failed it."""
    job, pods, spec = case.job, case.pods, spec_of(case.job)
    memory_limit, grace_seconds = (spec.resources.memory, spec.grace_period_seconds) if spec else ("", 0)
    failed = job.condition("Failed")
    if failed is None or ANNOTATION_CANCELLED_AT in job.metadata.annotations:
        return None
    last = pods[-1] if pods else None
    ended = last.container.terminated if last else None
    evidence = {"job_reason": failed.reason or "", "job_message": failed.message or ""}
    if ended is not None:
        evidence |= {"exit_code": str(ended.exit_code), "container_reason": ended.reason or ""}
        if ended.last_words:
            evidence["last_words"] = ended.last_words[-2048:]
    if failed.reason == "DeadlineExceeded":
        return _deadline(last, grace_seconds, evidence)
    disruption = last.condition("DisruptionTarget") if last else None
    if disruption is not None and disruption.status == "True":
        evidence["pod_reason"] = disruption.reason or ""
        return Failure(
            FailureCode.DISRUPTED, Category.INFRA, True,
            f"the pod was taken away by the cluster: {disruption.message or disruption.reason or 'no reason given'}",
            "submit the job again; it was not at fault", evidence,
        )  # fmt: skip
    if ended is not None and ended.reason == "OOMKilled":
        return Failure(
            FailureCode.OOM_KILLED, Category.USER, False,
            f"the kernel killed the process: it needed more than its memory limit of {memory_limit}",
            f"raise resources.memory above {memory_limit}, or make the job use less",
            evidence | {"limit": memory_limit},
        )  # fmt: skip
    if ended is not None and ended.reason in _START_REASONS:
        return Failure(
            FailureCode.START_FAILED, Category.USER, False,
            f"the container could not be started: {ended.message or ended.reason}",
            "check command and image: the program must exist in the image and be executable", evidence,
        )  # fmt: skip
    if ended is not None and ended.exit_code:
        return _exit(ended, evidence)
    return Failure(
        FailureCode.UNKNOWN, Category.INFRA, False,
        f"Kubernetes failed the job: {failed.reason or 'no reason given'}: {failed.message or ''}".rstrip(": "),
        "look at the Job itself: kubectl describe job, in the namespace named in this view", evidence,
    )  # fmt: skip


def signal_of(ended: Terminated) -> str | None:
    """The name of the signal that ended a container, where its exit code follows the shell's 128 + n."""
    number = ended.signal or (ended.exit_code - 128 if 128 < ended.exit_code <= 192 else 0)
    if ended.reason in _START_REASONS or number not in set(signal.Signals):
        return None
    return signal.Signals(number).name


def waiting_condition(pod: Pod) -> Condition | None:
    """Why this pod does not run yet, where Kubernetes says so."""
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return Condition("unschedulable", scheduled.message or scheduled.reason or "", scheduled.last_transition_time)
    waiting = pod.container.waiting
    if waiting is None or waiting.reason in (None, "ContainerCreating", "PodInitializing"):
        return None
    code = "image_pull_failing" if waiting.reason in _PULL_REASONS else "container_not_starting"
    return Condition(code, f"{waiting.reason}: {waiting.message or ''}".rstrip(": "), pod.status.start_time)


def _deadline(last: Pod | None, grace_seconds: int, evidence: dict[str, str]) -> Failure:
    message = "the job reached its timeout and was told to end"
    ended = last.container.terminated if last else None
    waiting = waiting_condition(last) if last else None
    if last is not None and last.metadata.deletion_timestamp and ended is not None and signal_of(ended) == "SIGKILL":
        message += f"; it did not end on SIGTERM and was killed after its grace period of {grace_seconds} s"
        evidence["grace_period_seconds"] = str(grace_seconds)
    elif ended is None and waiting is not None:
        message = f"the job reached its timeout before it could start: {waiting.message}"
        evidence["waiting"] = waiting.code
    return Failure(
        FailureCode.DEADLINE_EXCEEDED, Category.USER, False, message,
        "raise timeout_seconds (it counts from acceptance: waiting and retries included), or make the job shorter",
        evidence,
    )  # fmt: skip


def _exit(ended: Terminated, evidence: dict[str, str]) -> Failure:
    name = signal_of(ended)
    if name is not None:
        return Failure(
            FailureCode.KILLED_BY_SIGNAL, Category.USER, False,
            f"the process was ended by {name} (exit code {ended.exit_code})",
            "look at the last lines of the log; the kernel's memory limit was not the cause",
            evidence | {"signal": name},
        )  # fmt: skip
    return Failure(
        FailureCode.EXIT_NONZERO, Category.USER, False, f"the process ended with exit code {ended.exit_code}",
        "look at the last lines of the log", evidence,
    )  # fmt: skip
