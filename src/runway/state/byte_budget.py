"""Bound a cache that tenants share, in bytes, and evict from the largest user."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item", bound=Hashable)


class ByteBudget(Generic[_Item]):
    """The sizes of cached items by owner, oldest first.

    An owner that uses no more than its equal share never loses an item: the largest user always exceeds that share.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        self._used: dict[str, int] = {}
        self._sizes: dict[str, dict[_Item, int]] = {}

    @property
    def total(self) -> int:
        """Bytes of all items."""
        return self._total

    def put(self, owner: str, item: _Item, size: int) -> None:
        """Add an item, or update its size and make it the newest. O(1)."""
        self.discard(owner, item)
        self._sizes.setdefault(owner, {})[item] = size
        self._used[owner] = self._used.get(owner, 0) + size
        self._total += size

    def discard(self, owner: str, item: _Item) -> None:
        """Remove an item if it is present. O(1)."""
        size = self._sizes.get(owner, {}).pop(item, None)
        if size is None:
            return
        self._total -= size
        self._used[owner] -= size
        if not self._sizes[owner]:
            del self._sizes[owner], self._used[owner]

    def excess(self) -> Iterator[tuple[str, _Item]]:
        """Remove and yield owner and item until the rest fits. O(owners) for each item."""
        while self._total > self._max_bytes:
            owner = max(self._used, key=self._used.__getitem__)
            item = next(iter(self._sizes[owner]))
            self.discard(owner, item)
            yield owner, item
