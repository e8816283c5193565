"""Why Runway ended a job that ran, an annotation of its Job. Pure.

Runway writes the annotation and a deadline of zero in one patch (`controllers.job_ender`). Without that deadline the
annotation means nothing: anyone with access can edit it. A job that never ran has another one
(`diagnosis.start_timeout`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from runway.jobs.annotations import ANNOTATION_ENDED, read_annotation
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import Job, is_possible_year
from runway.text import one_line

_CODES: Final = {str(code): code for code in (FailureCode.GPU_IDLE, FailureCode.DISRUPTED_TOO_OFTEN)}
_MAX_EVIDENCE: Final = 8


class Ending(msgspec.Struct, frozen=True):
    """Why and when Runway ended a job. `code` is a failure code, `evidence` has the measured figures."""

    code: str
    at: datetime
    message: str
    evidence: dict[str, str] = {}


_decoder = msgspec.json.Decoder(Ending)


def encode(ending: Ending) -> str:
    """Encode the annotation."""
    return msgspec.json.encode(ending).decode()


def ending_of(job: Job) -> Ending | None:
    """Return why Runway ended this Job; None if it did not, or if the annotation is invalid."""
    if job.spec.active_deadline_seconds != 0:
        return None
    found = read_annotation(_decoder, job.metadata.annotations.get(ANNOTATION_ENDED))
    if found is None or found.code not in _CODES or len(found.evidence) > _MAX_EVIDENCE:
        return None
    return found if found.at.tzinfo is not None and is_possible_year(found.at.year) else None


def diagnose_ending(ending: Ending, reaction: str = "") -> Diagnosis:
    """Diagnose a job that Runway ended. `reaction` is how its process reacted, as the end of a sentence."""
    evidence = {one_line(name, 80): one_line(value, 80) for name, value in ending.evidence.items()}
    return Diagnosis(_CODES[ending.code], f"{one_line(ending.message)}{reaction}", evidence)
