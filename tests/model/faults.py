"""Faults of calls to the API server, and of the network."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hypothesis import strategies as st

REQUEST_LIMIT: Final = 60.0
"""The API server executes no request after this time (`--request-timeout`), in seconds.

https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""


class Answer(StrEnum):
    """The response that the caller of a call gets."""

    TRUE = "the true response"
    NONE = "no response"
    RESET = "the connection breaks"
    ERROR = "500"
    GARBLED = "the true status with a truncated body"
    THROTTLED = "429"
    REFUSED = "connection refused"


@dataclass(frozen=True, slots=True)
class Fate:
    """The execution and the response of one call.

    `lands`: delay in seconds until the API server executes it; None: never. `answers`: delay in seconds from then to
    the response, or from the send if the response is independent of the execution.
    """

    lands: float | None = 0.0
    answer: Answer = Answer.TRUE
    answers: float = 0.0


FINE: Final = Fate()

_SOON: Final = st.sampled_from([0.0, 0.1, 1.0, 2.0])
_EVER: Final = st.sampled_from([None, 0.0, 1.0, 2.4, 5.0, 20.0, 40.0, 59.0])
_UNCLEAR: Final = st.sampled_from([Answer.NONE, Answer.RESET, Answer.ERROR, Answer.GARBLED])
_NOT_DONE: Final = st.sampled_from([Answer.THROTTLED, Answer.REFUSED])

FATES: Final = st.one_of(
    st.builds(Fate, lands=_SOON, answers=_SOON),
    st.builds(Fate, lands=_EVER, answer=_UNCLEAR, answers=st.sampled_from([0.0, 1.0])),
    st.builds(Fate, lands=st.none(), answer=_NOT_DONE, answers=st.sampled_from([0.0, 1.0])),
)
"""Slow, ambiguous, or certainly not executed. An ambiguous call may be executed long after its response."""


class Calls(StrEnum):
    """The kinds of calls that faults apply to."""

    CREATE = "create"
    READ = "read"
    PATCH = "patch"
    LIST = "list"
    LEASE = "lease"
    WATCH = "watch"
    NODES = "nodes"


def kind_of_call(method: str, path: str) -> Calls:
    """Return the kind of this call."""
    if "/leases" in path:
        return Calls.LEASE
    if path == "/api/v1/nodes":
        return Calls.NODES
    if method == "GET":
        return Calls.LIST if path in ("/apis/batch/v1/jobs", "/api/v1/pods") else Calls.READ
    return Calls.CREATE if method == "POST" else Calls.PATCH


@dataclass(slots=True)
class Network:
    """The active faults of the API server, for all its callers."""

    fates: dict[Calls, deque[Fate]] = field(default_factory=lambda: {calls: deque() for calls in Calls})
    """The fates of the next calls of each kind."""
    stalled: bool = False
    """Whether the API server is stopped (SIGSTOP): it accepts connections and does nothing."""

    def next_fate(self, calls: Calls) -> Fate:
        """Return the fate of the next call of this kind."""
        queue = self.fates[calls]
        return queue.popleft() if queue else FINE

    def clear(self) -> None:
        """Remove all faults."""
        for queue in self.fates.values():
            queue.clear()
        self.stalled = False
