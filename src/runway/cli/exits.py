"""Exit codes of every command, and the exit code that a job's outcome maps to."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from runway.jobs.models import JobView


class Exit(IntEnum):
    """The exit codes. `wait`, `run` and `submit --wait` add the job's own exit code, which may be any other one.

    124, 125 and 130 mean the same as for `timeout`, `docker run` and the shell; 75 is EX_TEMPFAIL of sysexits.h.
    """

    doc: str

    OK = 0, "success; for a job that was waited for: it succeeded"
    REJECTED = 1, "rejected by Runway (a 4xx problem, a dry run), by policy validation, or cancelled at the prompt"
    USAGE = 2, "invalid command line or file; cancel without -y and without a terminal"
    TIMED_OUT = 75, "wait --timeout expired; the job continues"
    DEADLINE = 124, "the job exceeded its deadline"
    FAILED = 125, "the job could not run, or failed for a reason outside it; Runway failed or is unreachable"
    CANCELLED = 130, "the job was cancelled, or the command was interrupted"

    def __new__(cls, value: int, doc: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


def exit_code(view: JobView) -> int:
    """Return the exit code for a finished job: its own where the job itself failed, else one of `Exit`."""
    if view.state == "succeeded":
        return Exit.OK
    if view.state == "cancelled":
        return Exit.CANCELLED
    if view.failure is None:
        return Exit.FAILED
    if view.failure.code == "deadline_exceeded":
        return Exit.DEADLINE
    own = view.attempts[-1].exit_code if view.attempts else None
    return own if view.failure.category == "user" and own else Exit.FAILED


def exit_code_help() -> str:
    """Return the table of exit codes for help texts, one line each."""
    return "\n".join(f"{code.value:>4}  {code.doc}" for code in Exit)
