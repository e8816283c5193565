"""The exit codes of every command, and what a job's end means as one."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from runway.cli.wire import JobView


class Exit(IntEnum):
    """What the shell sees. `wait`, `run` and `submit --wait` add the job's own exit code, which may be any other one.

    124, 125 and 130 mean what they mean for `timeout`, `docker run` and the shell; 75 is EX_TEMPFAIL of sysexits.h.
    """

    doc: str

    OK = 0, "done; for a job that was waited for: it succeeded"
    REJECTED = 1, "refused: by Runway (a 4xx problem, a dry run), by the policy check, or by you at a prompt"
    USAGE = 2, "the command line, or a file named on it, cannot be used; cancel without -y where it cannot ask"
    TIMED_OUT = 75, "wait --timeout ran out and the job goes on"
    DEADLINE = 124, "the job reached its deadline"
    FAILED = 125, "the job could not be run, or failed for a reason that is not its own; Runway failing or unreachable"
    CANCELLED = 130, "the job was cancelled, or the command was interrupted"

    def __new__(cls, value: int, doc: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


def exit_code(view: JobView) -> int:
    """The exit code of a job that is over: its own where it failed by itself, else one of `Exit`."""
    if view["state"] == "succeeded":
        return Exit.OK
    if view["state"] == "cancelled":
        return Exit.CANCELLED
    failure = view["failure"]
    if failure is None:
        return Exit.FAILED
    if failure["code"] == "deadline_exceeded":
        return Exit.DEADLINE
    own = view["attempts"][-1]["exit_code"] if view["attempts"] else None
    return own if failure["category"] == "user" and own else Exit.FAILED


def exit_code_help() -> str:
    """The table of exit codes for help texts, one line each."""
    return "\n".join(f"{code.value:>4}  {code.doc}" for code in Exit)
