"""Divide what tenants share: turns, slots and memory. Pure, but for the semaphore.

Each bound of the process is one of these four, with the tenant or its namespace as the owner:

- `FairQueue`: owners take turns, so an item waits for one item of each other owner per turn, however many there are.
- `FairSlots`: an owner takes a slot only while it holds fewer than are free. So one owner holds at most half, n owners
  leave about one in 2^n, and released slots go to those that hold least. No reserve per owner lies idle.
- `FairSemaphore`: slots that owners wait for in turns.
- `FairBudget`: the owner that uses most loses its oldest item first.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

_Item = TypeVar("_Item", bound=Hashable)

Owner = str | None
"""A tenant or its namespace; None for all callers without one."""


class FairQueue(Generic[_Item]):
    """Items by owner, each once. Each owner's items stay in order."""

    def __init__(self) -> None:
        self._items: OrderedDict[Owner, OrderedDict[_Item, None]] = OrderedDict()
        """In the order of the owners' turns."""

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, owner: Owner, item: _Item) -> None:
        """Add an item; one that waits already keeps its place. O(1)."""
        self._items.setdefault(owner, OrderedDict())[item] = None

    def discard(self, owner: Owner, item: _Item) -> None:
        """Remove an item if it waits. O(1)."""
        items = self._items.get(owner)
        if items is not None:
            items.pop(item, None)
            if not items:
                del self._items[owner]

    def take(self, may_take: Callable[[Owner], bool] = lambda _: True) -> tuple[Owner, _Item] | None:
        """Remove the oldest item of the first owner that may take its turn. O(owners that may not)."""
        for owner, items in self._items.items():
            if may_take(owner):
                item, _ = items.popitem(last=False)
                self._items.move_to_end(owner)
                if not items:
                    del self._items[owner]
                return owner, item
        return None

    def take_up_to(self, most: int) -> list[_Item]:
        """Remove at most this number of items, in turns."""
        found: list[_Item] = []
        while len(found) < most and (taken := self.take()) is not None:
            found.append(taken[1])
        return found


class FairSlots:
    """A number of slots, each held by an owner. Every operation is O(1)."""

    def __init__(self, limit: int) -> None:
        self.limit = self.free = limit
        self.held: Counter[Owner] = Counter()
        """Slots by owner."""

    def has_room(self, owner: Owner) -> bool:
        """Return whether the owner may take one more slot."""
        return self.held[owner] < self.free

    def take(self, owner: Owner) -> None:
        self.held[owner] += 1
        self.free -= 1

    def release(self, owner: Owner) -> None:
        self.held[owner] -= 1
        self.free += 1
        if not self.held[owner]:
            del self.held[owner]


class FairSemaphore:
    """Fair slots to wait for. No owner with room waits, so a caller without a wait overtakes nobody."""

    def __init__(self, limit: int) -> None:
        self._slots = FairSlots(limit)
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    def try_acquire(self, owner: Owner) -> bool:
        """Take a slot if the owner has room."""
        has_room = self._slots.has_room(owner)
        if has_room:
            self._slots.take(owner)
        return has_room

    async def acquire(self, owner: Owner) -> None:
        """Take a slot, once the owner has room and it is its turn."""
        if self.try_acquire(owner):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(owner, turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.discard(owner, turn)
            if not turn.cancelled():  # The slot was granted just before.
                self.release(owner)
            raise

    def release(self, owner: Owner) -> None:
        """Return a slot, and grant slots to those whose turn it is."""
        self._slots.release(owner)
        while (following := self._waiting.take(self._slots.has_room)) is not None:
            granted, turn = following
            if not turn.done():
                self._slots.take(granted)
                turn.set_result(None)

    @asynccontextmanager
    async def slot(self, owner: Owner) -> AsyncIterator[None]:
        await self.acquire(owner)
        try:
            yield
        finally:
            self.release(owner)


class FairBudget(Generic[_Item]):
    """A bound on the bytes or the number of items. An owner below its equal share never loses one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.total = 0
        self._used: dict[str, int] = {}
        self._sizes: dict[str, dict[_Item, int]] = {}
        """The sizes of the items by owner, oldest first."""

    def put(self, owner: str, item: _Item, size: int = 1) -> None:
        """Add an item, or update its size and make it the newest. O(1)."""
        self.discard(owner, item)
        self._sizes.setdefault(owner, {})[item] = size
        self._used[owner] = self._used.get(owner, 0) + size
        self.total += size

    def discard(self, owner: str, item: _Item) -> None:
        """Remove an item if it is present. O(1)."""
        size = self._sizes.get(owner, {}).pop(item, None)
        if size is None:
            return
        self.total -= size
        self._used[owner] -= size
        if not self._sizes[owner]:
            del self._sizes[owner], self._used[owner]

    def excess(self) -> Iterator[tuple[str, _Item]]:
        """Remove and yield owner and item until the rest fits. O(owners) for each item."""
        while self.total > self._limit:
            owner = max(self._used, key=self._used.__getitem__)
            item = next(iter(self._sizes[owner]))
            self.discard(owner, item)
            yield owner, item
