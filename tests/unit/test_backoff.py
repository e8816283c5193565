"""Back-off: positive, bounded, and reset after a success."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runway.backoff import Backoff


def test_maximum_delays_double_up_to_the_limit() -> None:
    backoff = Backoff(lambda: 1.0, first=0.5, longest=5.0)
    assert [backoff.next() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_minimum_delays_are_half_of_the_maximum() -> None:
    backoff = Backoff(lambda: 0.0, first=0.5, longest=5.0)
    assert [backoff.next() for _ in range(6)] == [0.25, 0.5, 1.0, 2.0, 2.5, 2.5]


def test_success_resets_the_delay() -> None:
    backoff = Backoff(lambda: 1.0, first=0.5, longest=5.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.5


def test_each_delay_is_random() -> None:
    draws = iter([0.0, 1.0, 0.5])
    backoff = Backoff(lambda: next(draws), first=4.0, longest=4.0)
    assert [backoff.next() for _ in range(3)] == [2.0, 4.0, 3.0]


@given(st.integers(), st.floats(0.01, 10), st.floats(1, 100), st.integers(1, 2000))
def test_every_delay_is_positive_and_bounded(seed: int, first: float, factor: float, failures: int) -> None:
    backoff = Backoff(random.Random(seed).random, first=first, longest=first * factor)
    pauses = [backoff.next() for _ in range(failures)]
    assert all(first / 2 <= pause <= first * factor for pause in pauses)
