"""Random Kubernetes objects: no reader raises, and decoded objects are bounded.

Each field has a value of its type or any JSON.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runway.admission.quota import finished_at, observed_usage
from runway.console.job_page import timeline_of
from runway.jobs.record import encode, final_record, merge_attempts, needs_interim_record, record_of
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.decode import MAX_MESSAGE, MAX_PARTS, MAX_WORD, decode_object
from runway.kube.objects import Event, Job, Node, Pod, is_possible_year
from tests.support.builders import JOB, JOB_UID, NAMESPACE
from tests.support.mutated import NUMBERS, TEXTS, TIMES

NOW = datetime(2026, 11, 29, tzinfo=UTC)
READABLE = ("2026-11-24T08:00:00Z", "2026-11-24T08:00:59Z", "1970-01-01T00:00:00Z")
WORDS = ("OOMKilled", "Evicted", "ContainerStatusUnknown", "FailedCreate", "DeadlineExceeded", "Warning", JOB, "1", "x")
OF_FIELD = {
    "type": ("Complete", "Failed", "FailureTarget", "DisruptionTarget", "PodScheduled", "Ready"),
    "status": ("True", "True", "True", "False", "Unknown"),
    "phase": ("Pending", "Running", "Succeeded", "Failed", "Failed"),
    "name": ("job", "job", "other"),
}
"""Likely values by field name, so that most objects are meaningful."""
LEAVES = st.none() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.sampled_from(TIMES) | st.text(max_size=30)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
)


@cache
def of_type(type_: Any, field: str = "") -> st.SearchStrategy[Any]:
    """Return JSON of a type, or any JSON in one of twelve cases."""
    well_formed = st.deferred(lambda: _well_formed(type_, field))
    return st.integers(0, 11).flatmap(lambda draw: ANYTHING if draw == 0 else well_formed)


def _well_formed(type_: Any, field: str) -> st.SearchStrategy[Any]:
    if get_origin(type_) in (Union, UnionType):
        return of_type(next(part for part in get_args(type_) if part is not type(None)), field)
    if hasattr(type_, "__metadata__"):
        return of_type(get_args(type_)[0], field)
    if get_origin(type_) is tuple:
        return st.lists(of_type(get_args(type_)[0]), min_size=1, max_size=3)
    if get_origin(type_) is dict:
        return st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=10), st.sampled_from(WORDS), max_size=3)
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _struct(type_)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.sampled_from(OF_FIELD.get(field, WORDS)),
        int: st.integers(-300, 10**6),
        bool: st.booleans(),
        datetime: st.sampled_from(READABLE),
    }
    return simple.get(type_, ANYTHING)


def _struct(type_: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(type_, include_extras=True)
    fields = {field.encode_name: of_type(hints[field.name], field.name) for field in msgspec.structs.fields(type_)}
    return st.fixed_dictionaries(fields)


def _named(document: Any, kind: type, number: int = 0) -> bytes:
    """Return the object as bytes, with the identity that the API server sets."""
    known = document["metadata"]
    meta = dict(known) if isinstance(known, dict) else {}
    identity = {"namespace": NAMESPACE, "resourceVersion": "7", "name": JOB, "uid": JOB_UID}
    if kind is not Job:
        identity |= {"name": f"{JOB}-{number}", "uid": f"u{number}"}
    if kind is Pod:
        labels = {"batch.kubernetes.io/job-name": JOB, "batch.kubernetes.io/controller-uid": JOB_UID}
        meta |= {"labels": labels}
    # Half of the pods are terminating.
    if number % 2 or kind is Job:
        meta.pop("deletionTimestamp", None)
    return json.dumps({**document, "metadata": {**meta, **identity}}).encode("utf-8", "replace")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(_struct(Job), st.lists(_struct(Pod), max_size=3), st.lists(_struct(Event), max_size=2), _struct(Node))
def test_objects_of_any_content_raise_nothing(job: Any, pods: list[Any], events: list[Any], node: Any) -> None:
    decoded = decode_object(_named(job, Job), Job)
    attempts = tuple(decode_object(_named(pod, Pod, number), Pod) for number, pod in enumerate(pods))
    warnings = tuple(decode_object(_named(event, Event, number), Event) for number, event in enumerate(events))
    known = decode_object(_named(node, Node), Node)
    booking = observed_usage(decoded, attempts)
    assert booking is None or min(booking.amounts.gpu, booking.amounts.cpu, booking.amounts.memory) >= 0
    finished_at(decoded, attempts)
    case = JobSnapshot("vision", decoded, attempts, frozenset(), warnings, {known.metadata.name: known})
    view = job_view(case)
    msgspec.json.encode(view)
    timeline_of(view, NOW)
    kept = record_of(decoded)
    needs_interim_record(case, kept)
    merge_attempts(case, kept)
    if view.is_finished:
        encode(final_record(case, kept, None, None, NOW), decoded)
    for item in (decoded, *attempts, *warnings, known):
        _assert_bounded(item)


def _assert_bounded(item: Any) -> None:
    """Check every part of a decoded object."""
    if isinstance(item, datetime):
        assert item.tzinfo is not None
        assert is_possible_year(item.year)
    elif isinstance(item, msgspec.Struct):
        for field in item.__struct_fields__:
            value = getattr(item, field)
            if field in ("reason", "type", "status", "phase") and isinstance(value, str):
                assert value.isprintable()
                assert len(value) <= MAX_WORD
            elif field == "message" and value is not None:
                assert len(value) <= MAX_MESSAGE + 10
            elif field in ("conditions", "container_statuses", "tolerations", "taints"):
                assert len(value) <= MAX_PARTS
            _assert_bounded(value)
    elif isinstance(item, tuple):
        for part in item:
            _assert_bounded(part)
