"""What a scenario is: a claim about Runway, a function that looks for it, and what came of looking."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import httpx2

from testbed.kernel_log import KernelUnreadable
from testbed.kubectl import KubectlFailed
from testbed.waiting import TimedOut

if TYPE_CHECKING:
    from testbed.context import Stage


class Source(StrEnum):
    """Who says so."""

    RUNWAY = "Runway"
    KUBERNETES = "Kubernetes"
    LINUX = "Linux"
    JOB = "the job"


class NotSeen(Exception):
    """The claim did not show; the message says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One claim. `run` returns once it has seen what `claim` says, and raises NotSeen otherwise."""

    title: str
    claim: str
    run: Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of looking: `missing` says what was not seen, None where everything was."""

    scenario: Scenario
    missing: str | None
    seconds: float

    @property
    def seen(self) -> bool:
        """Whether the claim showed."""
        return self.missing is None


def play(scenario: Scenario, stage: Stage) -> Outcome:
    """Run a scenario and end the jobs that it left. A source that cannot be read counts as not seen.

    A fault of the scenario's own (any other exception) is not caught: it is a defect, not an outcome.
    """
    started = time.monotonic()
    try:
        missing = _missing(lambda: scenario.run(stage))
    finally:
        unended = _missing(stage.end_jobs)
    return Outcome(scenario, missing or unended, time.monotonic() - started)


def _missing(look: Callable[[], None]) -> str | None:
    try:
        look()
    except (NotSeen, TimedOut, KubectlFailed, KernelUnreadable, httpx2.HTTPStatusError) as reason:
        return str(reason)
    except httpx2.TransportError as reason:
        return f"{reason.request.method} {reason.request.url.path}: {reason or type(reason).__name__}"
    return None
