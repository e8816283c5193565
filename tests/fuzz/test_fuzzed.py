"""Random requests and random sequences of calls, from a seed that is printed; `RUNWAY_FUZZ_SEED` repeats one."""

from __future__ import annotations

import os
import random

from tests.fuzz.running import hold_against_the_document
from tests.support.served import Served

SECONDS = 45


def test_random_requests_and_sequences_are_answered_as_documented(served: Served) -> None:
    seed = os.environ.get("RUNWAY_FUZZ_SEED") or str(random.randrange(10**9))
    print(f"seed {seed}")
    shown = hold_against_the_document(
        served, "--phases=fuzzing,stateful", f"--seed={seed}", f"--max-time={SECONDS}", seconds=SECONDS * 4
    )
    assert "Tested: 12" in shown, shown
