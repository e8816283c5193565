"""Tenants divide turns, slots and memory: no one displaces another that stays within its share."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.fair_share import FairBudget, FairQueue, FairSemaphore, FairSlots, Owner

OWNERS = st.sampled_from(["vision", "speech", "research", None])


@given(st.lists(st.tuples(OWNERS, st.integers(0, 9), st.sampled_from(["put", "put", "take", "discard"])), max_size=80))
def test_queue_gives_each_item_once_in_its_owners_order_and_is_never_idle(
    steps: list[tuple[Owner, int, str]],
) -> None:
    queue: FairQueue[int] = FairQueue()
    known: dict[Owner, dict[int, None]] = {}
    for owner, item, step in steps:
        items = known.setdefault(owner, {})
        if step == "put":
            queue.put(owner, item)
            items.setdefault(item)
        elif step == "discard":
            queue.discard(owner, item)
            items.pop(item, None)
        elif (taken := queue.take()) is None:
            assert not any(known.values())
        else:
            assert taken[1] == next(iter(known[taken[0]]))
            del known[taken[0]][taken[1]]
        assert len(queue) == sum(map(len, known.values()))


@given(st.lists(st.tuples(OWNERS, st.integers(1, 20)), max_size=20), st.integers(0, 5))
def test_item_waits_for_one_item_of_each_other_owner_per_turn(backlog: list[tuple[Owner, int]], ahead: int) -> None:
    queue: FairQueue[int] = FairQueue()
    for start, (owner, items) in enumerate(backlog):
        for item in range(items):
            queue.put(owner, 100 * start + item)
            queue.put("vision", -1 - item)
    for number in range(ahead + 1):
        queue.put("newcomer", number)
    others = len({owner for owner, _ in backlog} | {"vision"})
    taken = [queue.take() for _ in range((ahead + 1) * (others + 1))]
    assert ("newcomer", ahead) in taken


def test_owner_that_may_not_take_its_turn_keeps_it() -> None:
    queue: FairQueue[str] = FairQueue()
    for owner in ("vision", "speech"):
        queue.put(owner, owner)
    assert queue.take(lambda owner: owner != "vision") == ("speech", "speech")
    queue.put("speech", "again")
    assert queue.take() == ("vision", "vision")


@given(st.integers(1, 40), st.lists(st.tuples(OWNERS, st.booleans()), max_size=120))
def test_owners_leave_slots_for_another(limit: int, steps: list[tuple[Owner, bool]]) -> None:
    slots = FairSlots(limit)
    for owner, wants in steps:
        if wants and slots.has_room(owner):
            slots.take(owner)
        elif not wants and slots.held[owner]:
            slots.release(owner)
        assert slots.free + slots.held.total() == limit
        assert max(slots.held.values(), default=0) <= -(-limit // 2)
        assert slots.free + 1 >= (limit + 1) / 2 ** len(slots.held), "n owners leave one in 2^n"
        assert slots.has_room("newcomer") == (slots.free > 0)


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from(["acquire", "acquire", "release", "cancel"]), OWNERS), max_size=60),
)
def test_semaphore_loses_no_slot_and_everyone_gets_one(limit: int, steps: list[tuple[str, Owner]]) -> None:
    asyncio.run(_played(limit, steps))


async def _played(limit: int, steps: list[tuple[str, Owner]]) -> None:
    semaphore = FairSemaphore(limit)
    held: Counter[Owner] = Counter()
    waiting: list[tuple[Owner, asyncio.Task[None]]] = []

    async def acquire(owner: Owner) -> None:
        await semaphore.acquire(owner)
        held[owner] += 1

    async def release(owner: Owner) -> None:
        held[owner] -= 1
        semaphore.release(owner)
        await asyncio.sleep(0)

    for step, owner in steps:
        mine = [task for by, task in waiting if by == owner and not task.done()]
        if step == "acquire":
            waiting.append((owner, asyncio.create_task(acquire(owner))))
        elif step == "release" and held[owner]:
            semaphore.release(owner)
            held[owner] -= 1
            if mine:
                mine[0].cancel()  # Perhaps just after its slot was granted.
        elif step == "cancel" and mine:
            mine[-1].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waits = {by for by, task in waiting if not task.done()}
        free = limit - held.total()
        assert free >= 0
        assert all(held[by] >= free for by in waits), "no one waits that has room"
    for _ in range(len(steps)):
        for owner in [owner for owner, slots in held.items() if slots]:
            await release(owner)
    assert all(task.done() for _, task in waiting)
    assert held.total() == 0


async def test_call_of_another_owner_waits_for_one_slot_not_for_the_backlog() -> None:
    semaphore = FairSemaphore(2)
    order: list[Owner] = []

    async def use(owner: Owner) -> None:
        async with semaphore.slot(owner):
            order.append(owner)
            await asyncio.sleep(0)

    backlog = [asyncio.create_task(use("vision")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(use("speech"), *backlog)
    assert order.index("speech") == 1


def test_oldest_item_of_largest_owner_is_evicted() -> None:
    budget: FairBudget[str] = FairBudget(100)
    budget.put("small", "s1", 30)
    budget.put("large", "l1", 40)
    budget.put("large", "l2", 40)
    assert list(budget.excess()) == [("large", "l1")]
    assert budget.total == 70


def test_updated_item_counts_once_and_becomes_newest() -> None:
    budget: FairBudget[str] = FairBudget(10)
    for item in ("a", "b", "a"):
        budget.put("one", item, 5)
    assert list(budget.excess()) == []
    budget.put("one", "c", 5)
    assert list(budget.excess()) == [("one", "b")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 50), st.booleans()), max_size=100))
def test_owner_below_equal_share_loses_nothing(steps: list[tuple[str, int, int, bool]]) -> None:
    budget: FairBudget[int] = FairBudget(120)
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


@pytest.mark.parametrize("limit", [1, 2, 3, 64])
def test_owner_alone_gets_half_of_the_slots_and_at_least_one(limit: int) -> None:
    slots = FairSlots(limit)
    while slots.has_room("vision"):
        slots.take("vision")
    assert slots.held == {"vision": -(-limit // 2)}
