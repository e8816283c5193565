"""Every call with its examples and at the bounds of its schema: always the same requests."""

from __future__ import annotations

from tests.fuzz.running import hold_against_the_document
from tests.support.served import Served


def test_examples_and_bounds_are_answered_as_documented(served: Served) -> None:
    shown = hold_against_the_document(
        served, "--phases=examples,coverage", "--generation-deterministic", "--seed=1", seconds=120
    )
    assert "Tested: 12" in shown
