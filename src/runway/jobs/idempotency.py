"""Tell the repetition of a submission from another submission under its key. Pure.

The hash covers the request as the caller sent it, without any default. So a changed policy, an upgrade or a new field
never turns a repetition into a conflict, and the specification need not be valid today.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from runway.jobs.annotations import ANNOTATION_REQUEST_HASH, ANNOTATION_SPEC, read_annotation
from runway.jobs.spec import MONEY
from runway.kube.objects import Job
from runway.quantity import format_bytes, format_cpu, parse_bytes, parse_cpu


def request_hash(document: object) -> str:
    """Hash a decoded request.

    The order of keys does not change the hash. Neither does a null, which is the same as an absent field, nor another
    notation of an amount: `1` and `1000m`, or `2.5` and `2.50` USD. Everything else does. Raises RecursionError for a
    document that is nested deeper than any job specification.
    """
    return hashlib.sha256(_encode(_normal_request(document)).encode()).hexdigest()


def is_same_request(job: Job, document: object) -> bool:
    """Return whether the Job was created by this request, now or earlier. Only a valid request creates a Job."""
    annotations = job.metadata.annotations
    try:
        if ANNOTATION_REQUEST_HASH in annotations:
            return annotations[ANNOTATION_REQUEST_HASH] == request_hash(document)
        stored = read_annotation(_object_decoder, annotations.get(ANNOTATION_SPEC))
        return stored is not None and _is_admitted_by_0_7(document, stored)
    except RecursionError:
        return False


def _is_admitted_by_0_7(document: object, stored: dict[str, object]) -> bool:
    """Compare a request with the specification that version 0.7 stored, which has every default filled in.

    Defaults of the policy of that time are taken from `stored`. A field that 0.7 did not know makes a difference.
    """
    sent, admitted = _normal_request(document), _normal_request(stored)
    if not isinstance(sent, dict) or not isinstance(admitted, dict):
        return False
    resources, admitted_resources = sent.get("resources"), admitted.get("resources")
    if not isinstance(resources, dict) or not isinstance(admitted_resources, dict):
        return False
    sent = {**_DEFAULTS_0_7, **_pick(admitted, _POLICY_DEFAULTS_0_7), **sent}
    sent["resources"] = {"gpu": 0, **_pick(admitted_resources, ("gpu_type",)), **resources}
    return _encode(sent) == _encode(admitted)


def _pick(fields: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    return {name: fields[name] for name in names if name in fields}


def _normal_request(document: object) -> object:
    if not isinstance(document, dict):
        return document
    fields = _normal_fields(document)
    resources = fields.get("resources")
    return {**fields, "resources": _normal_fields(resources)} if isinstance(resources, dict) else fields


def _normal_fields(fields: dict[str, object]) -> dict[str, object]:
    """Drop nulls, and write each amount in one notation."""
    return {name: _normal_value(name, value) for name, value in fields.items() if value is not None}


def _normal_value(name: str, value: object) -> object:
    if not isinstance(value, str) or name not in _NOTATIONS:
        return value
    try:
        return _NOTATIONS[name](value)
    except ValueError:
        return value


def _normal_usd(text: str) -> str:
    return f"{Decimal(text).normalize():f}" if MONEY.fullmatch(text) else text


def _normal_cpu(text: str) -> str:
    return format_cpu(parse_cpu(text))


def _normal_bytes(text: str) -> str:
    return format_bytes(parse_bytes(text))


_NOTATIONS: Final[Mapping[str, Callable[[str], str]]] = {
    "cpu": _normal_cpu,
    "memory": _normal_bytes,
    "disk": _normal_bytes,
    "shared_memory": _normal_bytes,
    "max_cost_usd": _normal_usd,
}
"""The fields that hold amounts. Each result is itself a notation of the amount, so no other text has the same hash."""
_DEFAULTS_0_7: Final[Mapping[str, object]] = {"command": [], "args": [], "env": {}, "retries": 0}
_POLICY_DEFAULTS_0_7: Final = ("timeout_seconds", "grace_period_seconds")

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""In ASCII, because a request that is not valid may have lone surrogates."""
_object_decoder = msgspec.json.Decoder(dict[str, object])
