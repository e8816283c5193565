"""A bound in bytes on a cache that tenants share: the tenant that uses most of it gives way first."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item", bound=Hashable)


class ByteBudget(Generic[_Item]):
    """The sizes of cached items by owner, oldest first.

    A tenant that uses no more than its equal part never loses anything: what exceeds the budget is taken from the owner
    that uses most, and nobody uses most with less than the average.
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
        """Count an item, or count it again as the newest with another size. O(1)."""
        self.discard(owner, item)
        self._sizes.setdefault(owner, {})[item] = size
        self._used[owner] = self._used.get(owner, 0) + size
        self._total += size

    def discard(self, owner: str, item: _Item) -> None:
        """Stop counting an item; one that is not counted is no error. O(1)."""
        size = self._sizes.get(owner, {}).pop(item, None)
        if size is None:
            return
        self._total -= size
        self._used[owner] -= size
        if not self._sizes[owner]:
            del self._sizes[owner], self._used[owner]

    def excess(self) -> Iterator[tuple[str, _Item]]:
        """Owner and item of what has to go, until the rest fits; each is no longer counted. O(owners) for each."""
        while self._total > self._max_bytes:
            owner = max(self._used, key=self._used.__getitem__)
            item = next(iter(self._sizes[owner]))
            self.discard(owner, item)
            yield owner, item
