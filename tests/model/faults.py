"""What can become of a call on its way to the API server and back, and of the network around it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hypothesis import strategies as st

REQUEST_LIMIT: Final = 60.0
"""Seconds that the API server spends on a request at most (`--request-timeout`): nothing lands later than that.

https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""


class Answer(StrEnum):
    """What the caller of a call gets to see."""

    TRUE = "the true answer"
    NONE = "no answer"
    RESET = "the connection breaks"
    ERROR = "500"
    GARBLED = "the true status with half a body"
    THROTTLED = "429"
    REFUSED = "connection refused"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one call.

    `lands`: after how many seconds the API server carries it out; None: never. `answers`: how many seconds after that
    the caller is answered, or after the sending where the answer does not say that it was carried out.
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
"""Slow, unclear, or clearly not done. An unclear call may land long after its caller has been told something."""


class Calls(StrEnum):
    """The kinds of calls that a fault is set for."""

    CREATE = "create"
    READ = "read"
    PATCH = "patch"
    LIST = "list"
    LEASE = "lease"
    WATCH = "watch"


def kind_of_call(method: str, path: str) -> Calls:
    """What kind of call this is."""
    if "/leases" in path:
        return Calls.LEASE
    if method == "GET":
        return Calls.LIST if path in ("/apis/batch/v1/jobs", "/api/v1/pods") else Calls.READ
    return Calls.CREATE if method == "POST" else Calls.PATCH


@dataclass(slots=True)
class Network:
    """The faults in force at the API server, for all its callers alike."""

    fates: dict[Calls, deque[Fate]] = field(default_factory=lambda: {calls: deque() for calls in Calls})
    """What will become of the next calls of each kind."""
    stalled: bool = False
    """The API server is stopped (SIGSTOP): it takes connections and does nothing."""

    def next_fate(self, calls: Calls) -> Fate:
        """What becomes of this call."""
        queue = self.fates[calls]
        return queue.popleft() if queue else FINE

    def clear(self) -> None:
        """Everything works again."""
        for queue in self.fates.values():
            queue.clear()
        self.stalled = False
