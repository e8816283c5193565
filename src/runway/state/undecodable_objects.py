"""The objects in the cluster of which a part cannot be read: by kind, for the metric, `/readyz` and the log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from runway.kube.objects import Event, Job, Node, Pod
from runway.text import one_line

log = structlog.get_logger()

NODES_NAMESPACE: Final = ""
MAX_NAMED: Final = 1000
"""Objects of a kind that are remembered by name; more than these are not counted."""


@dataclass(frozen=True, slots=True)
class UndecodableObject:
    """Where the object is, and which of its parts cannot be read."""

    kind: str
    namespace: str
    name: str
    fields: tuple[str, ...]


class UndecodableObjects:
    """Kept up to date with every list and every change of a watch. O(1) for each change.

    Objects in namespaces that are no tenant's are left out: nothing depends on them, and anyone may create them there.
    """

    def __init__(self, kinds: Iterable[str], namespaces: Iterable[str]) -> None:
        self._namespaces = frozenset({NODES_NAMESPACE, *namespaces})
        self._found: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {kind: {} for kind in kinds}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are watched."""
        return tuple(self._found)

    def replace(self, kind: str, items: Iterable[Job | Pod | Event | Node]) -> None:
        """Take in a list of all objects of a kind."""
        before, self._found[kind] = self._found[kind], {}
        for item in items:
            if item.metadata.unreadable:
                self._put(kind, item, before)

    def change(self, kind: str, item: Job | Pod | Event | Node, *, deleted: bool) -> None:
        """Take in one change of an object."""
        if item.metadata.unreadable and not deleted:
            self._put(kind, item, self._found[kind])
        elif self._found[kind]:
            self._found[kind].pop((item.metadata.namespace, item.metadata.name), None)

    def count(self, kind: str) -> int:
        """How many objects of a kind cannot be read in full now."""
        return len(self._found[kind])

    def first(self, limit: int) -> list[UndecodableObject]:
        """The first of them."""
        found = (
            UndecodableObject(kind, place[0], place[1], fields)
            for kind, places in self._found.items()
            for place, fields in places.items()
        )
        return [item for item, _ in zip(found, range(limit), strict=False)]

    def _put(self, kind: str, item: Job | Pod | Event | Node, before: dict[tuple[str, str], tuple[str, ...]]) -> None:
        place, fields = (item.metadata.namespace, item.metadata.name), item.metadata.unreadable
        if place[0] not in self._namespaces:
            return
        if before.get(place) != fields:
            log.warning("object not readable", kind=kind, namespace=place[0], name=one_line(place[1]), fields=fields)
        if place in self._found[kind] or len(self._found[kind]) < MAX_NAMED:
            self._found[kind][place] = fields
