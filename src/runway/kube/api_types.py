"""What the API wraps objects in: lists, watch events, and its answer to a call that failed."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

from runway.kube.objects import Event, Job, Node, Pod

Object = TypeVar("Object", Job, Pod, Event, Node)


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = "0"
    continue_: str | None = msgspec.field(name="continue", default=None)


class ObjectList(msgspec.Struct, Generic[Object], frozen=True, rename="camel"):
    """One page of a list, or a whole one. The resource version is that of the collection."""

    metadata: ListMeta
    items: tuple[Object, ...] = ()


class WatchEvent(msgspec.Struct, Generic[Object], frozen=True, rename="camel"):
    """One event of a watch. A bookmark's object holds nothing but its resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The API's answer to a call that failed."""

    code: int = 0
    reason: str | None = None
    message: str | None = None
