"""The start deadline that ended a job, an annotation of its Job. Pure.

Runway writes the annotation and a deadline of zero in one patch (`controllers.start_deadlines`). Without that deadline
the annotation means nothing: anyone with access can edit it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from runway.jobs.annotations import ANNOTATION_START_TIMEOUT, read_annotation
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import MAX_SECONDS, Job, is_possible_year
from runway.text import one_line

_CODES: Final = {str(code): code for code in FailureCode}


class StartLimit(StrEnum):
    """The limits on a job's start: four of the policy, by cause, and the job's own `start_timeout_seconds`."""

    IMAGE = "image"
    REGISTRY = "registry"
    CONFIG = "config"
    UNSCHEDULABLE = "unschedulable"
    JOB = "job"


_LIMITS: Final = {
    FailureCode.IMAGE_NAME_INVALID: StartLimit.IMAGE,
    FailureCode.IMAGE_NOT_FOUND: StartLimit.IMAGE,
    FailureCode.IMAGE_ACCESS_DENIED: StartLimit.IMAGE,
    FailureCode.REGISTRY_UNAVAILABLE: StartLimit.REGISTRY,
    # An unknown reason can be an outage too, so it gets the long limit.
    FailureCode.IMAGE_PULL_FAILED: StartLimit.REGISTRY,
    FailureCode.UNSCHEDULABLE: StartLimit.UNSCHEDULABLE,
    # The scheduler reports them, and a new node or volume ends them.
    FailureCode.VOLUME_NOT_BOUND: StartLimit.UNSCHEDULABLE,
    FailureCode.VOLUME_ZONE_CONFLICT: StartLimit.UNSCHEDULABLE,
}


def limit_of(code: FailureCode) -> StartLimit:
    """Return the policy's limit for a cause; `config` for all causes in the configuration of the container."""
    return _LIMITS.get(code, StartLimit.CONFIG)


class StartTimeout(msgspec.Struct, frozen=True):
    """The start deadline that ended a job. `cause` is a failure code, `message` its explanation."""

    limit: StartLimit
    limit_seconds: int
    cause: str
    since: datetime
    """When this process first saw the cause; for `job` the acceptance."""
    message: str


_decoder = msgspec.json.Decoder(StartTimeout)


def encode(timeout: StartTimeout) -> str:
    """Encode the annotation."""
    return msgspec.json.encode(timeout).decode()


def start_timeout_of(job: Job) -> StartTimeout | None:
    """Return the start deadline that ended this Job; None without one, or if the annotation is invalid."""
    if job.spec.active_deadline_seconds != 0:
        return None
    found = read_annotation(_decoder, job.metadata.annotations.get(ANNOTATION_START_TIMEOUT))
    if found is None or found.cause not in _CODES or not 0 < found.limit_seconds <= MAX_SECONDS:
        return None
    return found if found.since.tzinfo is not None and is_possible_year(found.since.year) else None


def diagnose_start_timeout(timeout: StartTimeout, *, started: bool, reaction: str = "") -> Diagnosis:
    """Diagnose a job that a start deadline ended.

    `started`: a container started at that moment. `reaction` is how its process reacted, as the end of a sentence.
    """
    code, seconds, message = _CODES[timeout.cause], timeout.limit_seconds, one_line(timeout.message)
    evidence = {
        "cause": code.value,
        "since": timeout.since.isoformat(timespec="seconds"),
        "limit": timeout.limit.value,
        "limit_seconds": str(seconds),
    }
    waited = f"it had not started for {seconds} s"
    if timeout.limit is StartLimit.JOB:
        waited = f"it did not start within its start_timeout_seconds of {seconds} s"
    because = f": {message}" if message else ""
    if started:
        text = f"Runway ended the job at the moment when its container started, because {waited}{because}{reaction}"
        return Diagnosis(FailureCode.START_TIMEOUT, text, evidence, "resubmit the job, because it can start now")
    return Diagnosis(code, f"Runway ended the job because {waited}{because}", evidence, _hint(code, timeout))


def _hint(code: FailureCode, timeout: StartTimeout) -> str | None:
    if code is FailureCode.UNSCHEDULABLE:
        return "resubmit the job when nodes are free, or request less"
    if code is FailureCode.START_TIMEOUT:
        return f"raise start_timeout_seconds above {timeout.limit_seconds}, or resubmit the job later"
    return None
