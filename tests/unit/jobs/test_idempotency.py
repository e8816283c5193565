"""Repetition or conflict: the hash of a request, and the comparison with Jobs of version 0.7."""

from __future__ import annotations

import hashlib
import json
import string
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runway.jobs.annotations import ANNOTATION_REQUEST_HASH, ANNOTATION_SPEC
from runway.jobs.idempotency import is_same_request, request_hash
from runway.jobs.manifest import canonical_json
from runway.jobs.spec import AdmittedSpec, decode
from runway.kube.objects import Job
from tests.support.builders import document, job
from tests.support.jobs_0_7 import JOBS, JobOf07
from tests.unit.strategies import ANY_TEXT, DOCUMENTS, specs

REQUESTS = specs().map(AdmittedSpec.to_json)
OLD = pytest.mark.parametrize("old", JOBS.values(), ids=lambda old: old.key)


def job_of(request: Any) -> Job:
    """Return the Job of this request. Its stored specification says something else, and must not matter."""
    return job(annotations={ANNOTATION_REQUEST_HASH: request_hash(request)})


def test_request_hash_never_changes_between_versions() -> None:
    """A repetition that spans an upgrade of Runway must find its job: this text is a promise, not an example."""
    request = {
        "resources": {"memory": "16384Mi", "cpu": "1500m", "gpu": 1, "gpu_type": None},
        "name": None, "image": "runway.local/train:1", "command": ["python", "é\n\"$"], "args": [],
        "env": {"B": "2", "A": ""}, "retries": 0, "max_cost_usd": "012.50",
    }  # fmt: skip
    text = (
        r'{"args":[],"command":["python","\u00e9\n\"$"],"env":{"A":"","B":"2"},"image":"runway.local/train:1",'
        r'"max_cost_usd":"12.5","resources":{"cpu":"1500m","gpu":1,"memory":"16Gi"},"retries":0}'
    )
    assert request_hash(request) == hashlib.sha256(text.encode()).hexdigest()


@given(REQUESTS, st.randoms(), st.sampled_from([None, 1, "\t"]))
def test_order_of_keys_and_whitespace_do_not_change_the_hash(request: Any, random: Any, indent: int | str) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = list(value.items())
        random.shuffle(items)
        return {name: shuffled(item) for name, item in items}

    body = json.dumps(shuffled(request), indent=indent, ensure_ascii=random.random() < 0.5).encode()
    assert request_hash(decode(body)) == request_hash(request)


@given(REQUESTS, st.sets(st.text(string.ascii_lowercase), max_size=3))
def test_null_is_the_same_as_an_absent_field(request: Any, names: set[str]) -> None:
    nulls = dict.fromkeys(names - set(request) - set(request["resources"]))
    padded = {**request, **nulls, "resources": {**request["resources"], **nulls}}
    assert request_hash(padded) == request_hash(request)


@pytest.mark.parametrize("request_of", [lambda value: {"env": {"A": value}}, lambda value: {"command": [value]}])
def test_null_inside_a_field_is_not_the_same_as_none(request_of: Any) -> None:
    assert request_hash(request_of(None)) not in (request_hash(request_of("")), request_hash({"env": {}}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"resources": {"cpu": "1"}}, {"resources": {"cpu": "1000m"}}),
        ({"resources": {"cpu": "0.5"}}, {"resources": {"cpu": "500m"}}),
        ({"resources": {"memory": "1Gi"}}, {"resources": {"memory": "1024Mi"}}),
        ({"resources": {"memory": "1e9"}}, {"resources": {"memory": "1G"}}),
        ({"resources": {"disk": "2Ti"}}, {"resources": {"disk": "2048Gi"}}),
        ({"resources": {"shared_memory": "0.5Gi"}}, {"resources": {"shared_memory": "512Mi"}}),
        ({"max_cost_usd": "2.5"}, {"max_cost_usd": "2.50"}),
        ({"max_cost_usd": "0"}, {"max_cost_usd": "0.00"}),
        ({"max_cost_usd": "100"}, {"max_cost_usd": "100.0"}),
    ],
)
def test_equal_amounts_have_equal_hashes(one: Any, other: Any) -> None:
    assert request_hash(document(**one)) == request_hash(document(**other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"resources": {"gpu_type": "1"}}, {"resources": {"gpu_type": "1000m"}}),
        ({"resources": {"gpu": 1}}, {"resources": {"gpu": True}}),
        ({"resources": {"gpu": 1}}, {"resources": {"gpu": 1.0}}),
        ({"resources": {"gpu": 1}}, {"resources": {"gpu": "1"}}),
        ({"resources": {"cpu": "1"}}, {"resources": {"cpu": 1}}),
        ({"env": {"A": "1"}}, {"env": {"A": "1000m"}}),
        ({"env": {"memory": "1Gi"}}, {"env": {"memory": "1024Mi"}}),
        ({"retries": 0}, {}),
        ({"command": []}, {}),
        ({"command": ["a", "b"]}, {"command": ["b", "a"]}),
        ({"command": ["a", "b"]}, {"command": ["a"], "args": ["b"]}),
        ({"a_later_field": "1"}, {}),
        ({"a_later_field": ["1"]}, {"a_later_field": ["2"]}),
    ],
)
def test_different_requests_have_different_hashes(one: Any, other: Any) -> None:
    assert request_hash(document(**one)) != request_hash(document(**other))


@given(REQUESTS, st.data())
def test_change_of_any_value_changes_the_hash(request: Any, data: st.DataObject) -> None:
    changed = deepcopy(request)
    place: Any = changed
    name = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[name], (dict, list)) and place[name]:
        place = place[name]
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    before = place[name]
    place[name] = data.draw(st.integers() | ANY_TEXT.map(lambda text: f"no amount {text}") | st.just({"a": 1}))
    assume(type(before) is not type(place[name]) or before != place[name])
    assert request_hash(changed) != request_hash(request)


@given(DOCUMENTS)
def test_any_document_has_a_hash(request: Any) -> None:
    assert len(request_hash(request)) == 64
    assert is_same_request(job_of(request), deepcopy(request))


@pytest.mark.parametrize("nested", [lambda inner: [inner], lambda inner: {"resources": inner}])
def test_document_nested_deeper_than_any_job_is_another_request(nested: Any) -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = nested(deep)
    assert not is_same_request(job_of(document()), {"image": deep})
    assert not is_same_request(JOBS["minimal"].job, {**JOBS["minimal"].request, "env": deep})


def test_job_without_the_annotations_of_runway_is_another_request() -> None:
    assert not is_same_request(msgspec.convert({"metadata": {"name": "rw-a"}}, Job), document())


# Jobs of version 0.7


@OLD
def test_request_to_0_7_is_the_same_request(old: JobOf07) -> None:
    assert is_same_request(old.job, old.request)


@OLD
def test_request_to_0_7_in_another_notation_is_the_same_request(old: JobOf07) -> None:
    resources = {"cpu": f"{_milli(old.request['resources']['cpu'])}m", "gpu_type": None, "disk": None}
    assert is_same_request(old.job, {"user": None, **old.request, "resources": old.request["resources"] | resources})


def _milli(cpu: str) -> int:
    return int(cpu[:-1]) if cpu.endswith("m") else int(float(cpu) * 1000)


@OLD
@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"}, {"image": "runway.local/other:1"}, {"command": ["other"]}, {"args": ["other"]},
        {"env": {"OTHER": "1"}}, {"timeout_seconds": 11}, {"retries": 3}, {"retries": True},
        {"grace_period_seconds": 7}, {"max_cost_usd": "7"}, {"resources": {"cpu": "7", "memory": "64Mi"}},
        {"resources": None}, {"resources": "1"},
        {"user": 1000}, {"volumes": []},
    ],
    ids=lambda change: "-".join(change),
)  # fmt: skip
def test_changed_request_is_another_request_than_that_of_0_7(old: JobOf07, change: dict[str, Any]) -> None:
    assert not is_same_request(old.job, {**old.request, **change})


@pytest.mark.parametrize("resource", [{"gpu": 1}, {"gpu_type": "h100"}, {"disk": "1Gi"}, {"memory": "65Mi"}])
def test_changed_resource_is_another_request_than_that_of_0_7(resource: dict[str, Any]) -> None:
    old = JOBS["minimal"]
    assert not is_same_request(old.job, {**old.request, "resources": old.request["resources"] | resource})


@pytest.mark.parametrize("field", ["name", "command", "args", "env", "retries", "max_cost_usd"])
def test_field_that_is_missing_now_is_another_request_than_that_of_0_7(field: str) -> None:
    """The default of such a field was no part of the policy, so the caller must have sent the stored value."""
    old = JOBS["all-fields"]
    assert not is_same_request(old.job, {name: value for name, value in old.request.items() if name != field})


def test_default_of_the_policy_of_0_7_is_the_same_as_its_value() -> None:
    old = JOBS["gpu-of-default-type"]
    resources = {**old.request["resources"], "gpu_type": "a10g"}
    assert is_same_request(old.job, {**old.request, "timeout_seconds": 3600, "resources": resources})


@pytest.mark.parametrize(
    "stored", [None, "", "{", "[]", "null", "{}", '{"resources": []}', '{"a": ' * 5000, "\ud800", "{" + "x" * 300_000]
)
def test_unreadable_specification_of_0_7_is_another_request(stored: str | None) -> None:
    annotations = {} if stored is None else {ANNOTATION_SPEC: stored}
    broken = msgspec.convert({"metadata": {"name": "rw-a", "annotations": annotations}}, Job)
    assert not is_same_request(broken, JOBS["minimal"].request)
    assert not is_same_request(broken, [])


def test_request_hash_decides_where_there_is_one() -> None:
    """A hash that was edited or cut makes a conflict; the stored specification then says nothing."""
    old = JOBS["minimal"]
    annotations = {**old.annotations, ANNOTATION_REQUEST_HASH: ""}
    edited = msgspec.convert({"metadata": {"name": old.name, "annotations": annotations}}, Job)
    assert not is_same_request(edited, old.request)


@given(REQUESTS)
def test_specification_of_0_7_is_its_own_request(request: Any) -> None:
    stored = job(annotations={ANNOTATION_SPEC: canonical_json(request)})
    assert is_same_request(stored, request)
