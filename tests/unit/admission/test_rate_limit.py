"""The rate limiter against a token bucket, and its Retry-After."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.admission.rate_limit import RateLimiter
from runway.policy import Rate

SECOND = 1_000_000_000

RATES = st.builds(Rate, per_minute=st.integers(1, 6000), burst=st.integers(1, 20))
STEPS = st.lists(st.integers(0, 90 * SECOND) | st.integers(0, SECOND // 10) | st.just(0), max_size=60)


@dataclass(slots=True)
class TokenBucket:
    """The plain model: tokens drip in, a request takes one. The interval is rounded up to whole nanoseconds."""

    rate: Rate
    tokens: Fraction
    last: int = 0

    def take(self, now: int) -> bool:
        interval = -(-60 * SECOND // self.rate.per_minute)
        self.tokens = min(Fraction(self.rate.burst), self.tokens + Fraction(now - self.last, interval))
        self.last = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def times(steps: list[int]) -> list[int]:
    """Times with these nanoseconds between them."""
    return [sum(steps[: i + 1]) for i in range(len(steps))]


@given(RATES, STEPS)
def test_limiter_equals_a_token_bucket(rate: Rate, steps: list[int]) -> None:
    limiter, bucket = RateLimiter(rate), TokenBucket(rate, Fraction(rate.burst))
    for now in times(steps):
        assert (limiter.try_acquire(now) == 0) == bucket.take(now)


@given(RATES, STEPS)
def test_no_window_exceeds_burst_plus_rate(rate: Rate, steps: list[int]) -> None:
    limiter = RateLimiter(rate)
    taken = [now for now in times(steps) if limiter.try_acquire(now) == 0]
    for first, start in enumerate(taken):
        for count, end in enumerate(taken[first:], start=1):
            assert count <= rate.burst + Fraction((end - start) * rate.per_minute, 60 * SECOND)


@given(RATES, STEPS)
def test_request_after_returned_wait_is_accepted(rate: Rate, steps: list[int]) -> None:
    limiter = RateLimiter(rate)
    for now in times(steps):
        wait = limiter.try_acquire(now)
        if wait:
            assert limiter.try_acquire(now + (wait - 1) * SECOND) == 1
            assert limiter.try_acquire(now + wait * SECOND) == 0
            return


@given(RATES, STEPS)
def test_rejected_request_does_not_count(rate: Rate, steps: list[int]) -> None:
    impatient, patient = RateLimiter(rate), RateLimiter(rate)
    taken = [now for now in times(steps) if impatient.try_acquire(now) == 0]
    assert [patient.try_acquire(now) for now in taken] == [0] * len(taken)
    last = sum(steps)
    assert impatient.try_acquire(last) == patient.try_acquire(last)


@pytest.mark.parametrize(("per_minute", "burst", "wait"), [(6, 5, 10), (60, 20, 1), (600, 100, 1), (1, 1, 60)])
def test_wait_after_burst_is_one_interval_in_whole_seconds(per_minute: int, burst: int, wait: int) -> None:
    limiter = RateLimiter(Rate(per_minute=per_minute, burst=burst))
    assert [limiter.try_acquire(0) for _ in range(burst)] == [0] * burst
    assert limiter.try_acquire(0) == wait


def test_idle_time_accumulates_at_most_the_burst() -> None:
    limiter = RateLimiter(Rate(per_minute=60, burst=3))
    limiter.try_acquire(0)
    day = 86_400 * SECOND
    assert [limiter.try_acquire(day) for _ in range(4)] == [0, 0, 0, 1]


def test_new_limiter_has_the_full_burst_at_any_clock_value() -> None:
    for start in (0, 10**18):
        limiter = RateLimiter(Rate(per_minute=6, burst=2))
        assert [limiter.try_acquire(start) for _ in range(3)] == [0, 0, 10]
