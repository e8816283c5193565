"""A scenario: a claim about Runway, the function that checks it, the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from testbed.context import Context, NotSeen, Unavailable
from testbed.kernel_log import KernelUnreadable
from testbed.kubectl import KubectlFailed
from testbed.waiting import TimedOut


@dataclass(frozen=True, slots=True)
class Scenario:
    """One claim. `run` returns if the claim holds, and raises NotSeen otherwise."""

    title: str
    claim: str
    run: Callable[[Context], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a scenario.

    `missing` is the observation that contradicts the claim, or None. `needs` is what the cluster lacks to show it.
    """

    scenario: Scenario
    missing: str | None
    seconds: float
    needs: str | None = None

    @property
    def seen(self) -> bool:
        """Whether the claim is verified."""
        return self.missing is None and self.needs is None


def play(scenario: Scenario, context: Context) -> Outcome:
    """Run a scenario and cancel its unfinished jobs. An unreadable source counts as not verified.

    What the cluster or its kubeconfig lacks counts as not shown.

    Any other exception is a defect of the scenario and propagates.
    """
    started = time.monotonic()
    missing = needs = None
    try:
        missing = _missing(lambda: scenario.run(context))
    except Unavailable as lack:
        needs = str(lack)
    finally:
        not_cancelled = _missing(context.cancel_jobs)
    return Outcome(scenario, missing or not_cancelled, time.monotonic() - started, needs)


def _missing(look: Callable[[], None]) -> str | None:
    try:
        look()
    except (NotSeen, TimedOut, KubectlFailed, KernelUnreadable, httpx2.HTTPStatusError) as reason:
        if isinstance(reason, KubectlFailed) and "(Forbidden)" in str(reason):
            raise Unavailable(f"a permission that this kubeconfig lacks: {reason}") from reason
        return str(reason)
    except httpx2.TransportError as reason:
        return f"{reason.request.method} {reason.request.url.path}: {reason or type(reason).__name__}"
    return None
