"""Random requests and random sequences of calls, from a seed that is printed; `RUNWAY_FUZZ_SEED` repeats one."""

from __future__ import annotations

import os
import random

from tests.fuzz.running import hold_against_the_document
from tests.support.served import Served

EXAMPLES = 200
"""Requests of each operation, and sequences: a number and not a time, so that a busy machine tests as much."""
SECONDS = 600.0
"""Far longer than it takes on a busy machine."""


def test_random_requests_and_sequences_are_answered_as_documented(served: Served) -> None:
    seed = os.environ.get("RUNWAY_FUZZ_SEED") or str(random.randrange(10**9))
    print(f"seed {seed}")
    shown = hold_against_the_document(
        served, "--phases=fuzzing,stateful", f"--seed={seed}", f"--max-examples={EXAMPLES}", seconds=SECONDS
    )
    assert "Tested: 12" in shown, shown
