"""Decoded objects share equal parts."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runway.kube import decode
from runway.kube.decode import decode_object
from runway.kube.objects import Job, Pod
from tests.support.builders import ended, job, pod, unschedulable, waiting

_Item = TypeVar("_Item", Job, Pod)

JOBS = st.builds(
    lambda name, cpu, outcome, message: job(f"rw-{name}", requests={"cpu": cpu}, outcome=outcome, message=message),
    st.integers(),
    st.sampled_from(["1", "2"]),
    st.sampled_from([None, "Complete", "Failed"]),
    st.none() | st.text(st.characters(categories=["L", "N", "P"])),
)
PODS = st.builds(
    lambda name, node, state: pod(f"rw-{name}", node=node, state=state, conditions=[unschedulable()]),
    st.integers(),
    st.sampled_from([None, "node-1", "node-2"]),
    st.sampled_from([None, waiting("ErrImagePull", "no such image"), ended(3)]),
)


@given(JOBS, PODS)
def test_decoded_object_is_equal(one: Job, attempt: Pod) -> None:
    assert _decoded(one) == one
    assert _decoded(attempt) == attempt


def test_equal_specs_are_shared() -> None:
    first, second, other = (
        _decoded(job(name, requests={"cpu": cpu})) for name, cpu in (("a", "1"), ("b", "1"), ("c", "2"))
    )
    assert first.spec is second.spec
    assert first.spec != other.spec
    here, there, elsewhere = (_decoded(pod(name, node=on)) for name, on in (("a", "x"), ("b", "x"), ("c", "y")))
    assert here.spec is there.spec
    assert here.spec != elsewhere.spec


def test_label_of_pod_shares_uid_of_job() -> None:
    owner, attempt = _decoded(job()), _decoded(pod())
    assert attempt.controller_uid is owner.metadata.uid


def test_undecodable_field_of_equal_specs_is_named_in_each_object() -> None:
    first, second = (_decoded(job(name, requests={"cpu": "many"})) for name in ("a", "b"))
    assert [item.metadata.unreadable for item in (first, second)] == [
        ("spec.template.spec.containers[0].resources.requests.cpu",)
    ] * 2


def test_interned_specs_are_bounded() -> None:
    found = [_decoded(job(f"rw-{cpu}", requests={"cpu": str(cpu)})) for cpu in range(decode.MAX_INTERNED_SPECS + 100)]
    assert [item.spec.template.spec for item in found] == [
        job(requests={"cpu": str(cpu)}).spec.template.spec for cpu in range(len(found))
    ]
    assert len(decode._interned_specs) <= decode.MAX_INTERNED_SPECS


def _decoded(item: _Item) -> _Item:
    return decode_object(msgspec.json.encode(item), type(item))
