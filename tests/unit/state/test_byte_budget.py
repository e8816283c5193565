"""Bound a shared cache in bytes, and evict from the largest owner."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runway.state.job_store import ByteBudget


def test_oldest_item_of_largest_owner_is_evicted() -> None:
    budget: ByteBudget[str] = ByteBudget(100)
    budget.put("small", "s1", 30)
    budget.put("large", "l1", 40)
    budget.put("large", "l2", 40)
    assert list(budget.excess()) == [("large", "l1")]
    assert budget.total == 70


def test_updated_item_counts_once_and_becomes_newest() -> None:
    budget: ByteBudget[str] = ByteBudget(10)
    for item in ("a", "b", "a"):
        budget.put("one", item, 5)
    assert list(budget.excess()) == []
    budget.put("one", "c", 5)
    assert list(budget.excess()) == [("one", "b")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 50), st.booleans()), max_size=100))
def test_owner_below_equal_share_loses_nothing(steps: list[tuple[str, int, int, bool]]) -> None:
    budget: ByteBudget[int] = ByteBudget(120)
    known: dict[tuple[str, int], int] = {}
    for owner, item, size, put in steps:
        if put:
            budget.put(owner, item, size)
            known[owner, item] = size
        else:
            budget.discard(owner, item)
            known.pop((owner, item), None)
        for who, what in budget.excess():
            assert sum(bytes_ for (by, _), bytes_ in known.items() if by == who) > 120 / 3
            del known[who, what]
        assert budget.total == sum(known.values()) <= 120
