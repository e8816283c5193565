"""What many objects have in common is kept once: most jobs are of a few sizes, and Kubernetes' words are the same.

Decoding makes every text and every part anew. Here equal ones become the same one, which is safe since nothing changes
them. It halves what a job takes of memory (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from runway.kube.api_types import Object
from runway.kube.objects import Condition, Job, JobSpec, Metadata, Pod, PodSpec

MAX_INTERNED: Final = 10_000
"""Different specifications that are remembered: beyond that it is begun anew, and only sharing is lost."""
MAX_INTERNED_BYTES: Final = 2048
"""Bytes of a specification that others may have too; a larger one is its own, so that what is remembered is bounded."""
MAX_TEXT_LENGTH: Final = 512
"""Characters of a text that others may have too; longer ones, such as a job's record, are its own."""

_Spec = TypeVar("_Spec", JobSpec, PodSpec)

_specs: dict[tuple[type, bytes], JobSpec | PodSpec] = {}
_encoder = msgspec.msgpack.Encoder()


def intern_object(item: Object) -> Object:
    """The same Job or pod, of parts that equal ones have too. Other kinds, of which there are few, stay as they are."""
    if isinstance(item, Job):
        seen = replace(item.status, conditions=_conditions(item.status.conditions))
        return replace(item, metadata=_metadata(item.metadata), spec=_spec(item.spec), status=seen)
    if isinstance(item, Pod):
        status = replace(item.status, phase=intern(item.status.phase), conditions=_conditions(item.status.conditions))
        return replace(item, metadata=_metadata(item.metadata), spec=_spec(item.spec), status=status)
    return item


def _metadata(metadata: Metadata) -> Metadata:
    return replace(
        metadata,
        # A Job's name and uid stand on its pods too.
        name=intern(metadata.name),
        uid=intern(metadata.uid),
        namespace=intern(metadata.namespace),
        labels=_texts(metadata.labels),
        annotations=_texts(metadata.annotations),
    )


def _texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {intern(name): intern(text) if len(text) <= MAX_TEXT_LENGTH else text for name, text in texts.items()}


def _conditions(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return tuple(
        replace(
            condition,
            type=intern(condition.type),
            status=intern(condition.status),
            reason=condition.reason and intern(condition.reason),
            message=condition.message and intern(condition.message),
        )
        for condition in conditions
    )


def _spec(spec: _Spec) -> _Spec:
    encoded = _encoder.encode(spec)
    if len(encoded) > MAX_INTERNED_BYTES:
        return spec
    if len(_specs) >= MAX_INTERNED:
        _specs.clear()
    return _specs.setdefault((type(spec), encoded), spec)  # type: ignore[return-value]
