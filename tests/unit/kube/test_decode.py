"""Decode and sanitize each object of the API server separately."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from runway.admission.quota import observed_usage, pod_succeeded
from runway.jobs.annotations import ANNOTATION_COST, ANNOTATION_RECORD, ANNOTATION_SPEC, METADATA, cost_of, spec_of
from runway.jobs.record import had_final_record, record_of
from runway.jobs.resources import ResourceVector, requests_of
from runway.kube.decode import (
    MAX_DEPTH,
    MAX_MESSAGE,
    MAX_PARTS,
    MAX_WORD,
    MORE_THAN_ANY_QUOTA,
    decode_lease,
    decode_list,
    decode_object,
    decode_watch_event,
    shallow,
)
from runway.kube.objects import MAX_SECONDS, Event, Job, Node, Pod
from tests.support.builders import Json, job, pod, running, warning

YEAR_10000 = "10000-01-01T00:00:00Z"


def raw(item: Any, **status: Any) -> bytes:
    """Encode an object with these status fields."""
    document = json.loads(msgspec.json.encode(item))
    document["status"] |= status
    return json.dumps(document).encode()


def changed(item: Any, path: str, value: Any) -> bytes:
    """Encode an object with another value at this path."""
    document: Any = json.loads(msgspec.json.encode(item))
    *parents, last = path.split(".")
    inner = document
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner.setdefault(name, {})
    inner[last] = value
    return json.dumps(document).encode()


def test_valid_object_is_unchanged() -> None:
    assert decode_object(raw(job()), Job) == job()
    assert decode_object(raw(pod(state=running(5))), Pod) == pod(state=running(5))


@pytest.mark.parametrize(
    "time", [YEAR_10000, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-11-24T08:00:00", "", 5, [1]]
)
def test_impossible_time_is_dropped_and_condition_counts(time: Any) -> None:
    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": time}
    found = decode_object(raw(job(), conditions=[failed]), Job)
    assert found.finished
    assert found.status.conditions[0].last_transition_time is None
    assert found.metadata.unreadable != ()


def test_path_of_undecodable_field_is_named() -> None:
    started = {"name": "job", "state": {"running": {"startedAt": YEAR_10000}}}
    found = decode_object(raw(pod(), containerStatuses=[started]), Pod)
    assert found.metadata.unreadable == ("status.containerStatuses[0].state.running.startedAt",)
    assert found.container.running is not None


def test_null_is_an_absent_field() -> None:
    found = decode_object(raw(job(), conditions=None, active=None), Job)
    assert found.status.conditions == ()
    assert found.metadata.unreadable == ()


def test_undecodable_object_keeps_the_others_of_a_list() -> None:
    broken = json.loads(raw(job("rw-broken"), conditions=[{"type": "Failed"}], startTime=YEAR_10000))
    page = {"metadata": {"resourceVersion": "7"}, "items": [json.loads(raw(job())), broken, [], "text", None]}
    first, second, *rest = decode_list(json.dumps(page).encode(), Job).items
    assert first == job()
    assert (second.metadata.name, second.metadata.unreadable) == (
        "rw-broken",
        ("status.conditions[0]", "status.startTime"),
    )
    assert [item.metadata.unreadable for item in rest] == [("object",)] * 3


def test_list_without_items_is_empty_and_without_version_is_invalid() -> None:
    assert decode_list(b'{"metadata": {"resourceVersion": "7"}, "items": null}', Pod).items == ()
    for version in ("", "x", "-1", "9" * 30):
        with pytest.raises(msgspec.DecodeError):
            decode_list(json.dumps({"metadata": {"resourceVersion": version}}).encode(), Pod)


def test_texts_are_escaped_and_bounded() -> None:
    found = decode_object(
        raw(
            pod(),
            reason="\x1b[31m\u202eevil" + "x" * 300_000,
            message="first\nsecond\x1b" + "m" * 1_000_000 + "the end",
        ),
        Pod,
    )
    reason, message = found.status.reason or "", found.status.message or ""
    assert reason.startswith("\\x1b[31m\\u202eevil")
    assert len(reason) <= MAX_WORD
    assert message.startswith("first\nsecond\\x1bm")
    assert message.endswith("mthe end")
    assert len(message) <= MAX_MESSAGE + 10
    assert found.metadata.unreadable == ()


def test_large_event_is_cut() -> None:
    found = decode_object(changed(warning(pod(), "Failed", "x"), "message", "registry says no " * 60_000), Event)
    assert len(msgspec.json.encode(found)) < 8192


def test_conditions_are_bounded_by_type() -> None:
    many = [{"type": "Noise", "status": "True"}] * 5000 + [{"type": "Complete", "status": "True"}]
    found = decode_object(raw(job(), conditions=many), Job)
    assert found.finished
    assert len(found.status.conditions) <= MAX_PARTS


@pytest.mark.parametrize("terminal", ["Complete", "Failed"])
def test_terminal_condition_behind_many_others_is_read(terminal: str) -> None:
    noise = [{"type": f"Noise{number}", "status": "True"} for number in range(100)]
    known = [{"type": terminal, "status": "False"}, *noise, {"type": terminal, "status": "True"}]
    found = decode_object(raw(job(), conditions=known), Job)
    assert found.finished
    assert len(found.status.conditions) <= MAX_PARTS


def test_job_container_behind_many_others_is_read() -> None:
    others = [{"name": f"a{number}", "state": {"terminated": {"exitCode": 0}}} for number in range(5000)]
    own = {"name": "job", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    found = decode_object(raw(pod(), containerStatuses=[*others, own]), Pod)
    assert found.container.terminated is not None
    assert found.container.terminated.reason == "OOMKilled"
    assert len(found.status.container_statuses) <= MAX_PARTS


NESTED = b'{"f:a":' * 10_000 + b"{}" + b"}" * 10_000
"""The nesting limit of the API server. https://github.com/golang/go/blob/go1.24.0/src/encoding/json/scanner.go"""


def nested(document: bytes) -> bytes:
    """Add managed fields of that depth."""
    return document.replace(b'"metadata": {', b'"metadata": {"managedFields": [{"fieldsV1": ' + NESTED + b"}], ", 1)


def test_deeply_nested_object_is_read_in_responses_lists_and_watches() -> None:
    deep, plain = nested(raw(job())), raw(pod())
    assert decode_object(deep, Job) == job()
    listed = b'{"metadata": {"resourceVersion": "9"}, "items": [' + deep + b"," + raw(job()) + b"]}"
    assert decode_list(listed, Job).items == (job(), job())
    assert decode_watch_event(b'{"type": "ADDED", "object": ' + nested(raw(pod())) + b"}", Pod).object == pod()
    assert decode_watch_event(b'{"type": "ADDED", "object": ' + plain + b"}", Pod).object == pod()


def test_deeply_nested_undecodable_object_keeps_valid_fields() -> None:
    found = decode_object(nested(raw(job(), startTime="never")), Job)
    assert found.metadata.name == job().metadata.name
    assert found.metadata.unreadable == ("status.startTime",)


def test_brackets_in_strings_are_no_nesting() -> None:
    text = json.dumps({"a": '[{"\\' * 1000, "b": [1, {"c": "]}"}]}).encode()
    assert shallow(text) == text


def test_only_deep_parts_are_dropped() -> None:
    levels = MAX_DEPTH - 1
    text = b'{"a":' * levels + b'[{"b":[1]},{},2]' + b"}" * levels
    assert shallow(text) == b'{"a":' * levels + b"[null,null,2]" + b"}" * levels


def test_unclosed_nesting_is_no_list() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_list(b'{"metadata": ' * 5000, Job)


def test_label_is_escaped_and_bounded() -> None:
    labels = {"runway.internal/name": "\x1b[2J\u202e" + "n" * 3000}
    shown = decode_object(changed(job(), "metadata.labels", labels), Job, METADATA).metadata.labels[
        "runway.internal/name"
    ]
    assert shown.isprintable()
    assert len(shown) <= MAX_WORD


def test_unread_and_oversized_annotations_are_dropped_or_cut() -> None:
    notes = dict.fromkeys(("runway.internal/junk", ANNOTATION_RECORD, ANNOTATION_COST), "x" * 200_000)
    found = decode_object(changed(job(), "metadata.annotations", notes), Job, METADATA)
    assert sum(map(len, found.metadata.annotations.values())) < 64 * 1024
    assert decode_object(changed(pod(), "metadata.annotations", notes), Pod, METADATA).metadata.annotations == {}


def test_oversized_record_counts_as_written() -> None:
    notes = {ANNOTATION_RECORD: "x" * 200_000}
    found = decode_object(changed(job(), "metadata.annotations", notes), Job, METADATA)
    assert record_of(found) is None
    assert had_final_record(found)


@pytest.mark.parametrize(
    "change",
    [
        {"currency": "\x1b[2J"},
        {"rate_card": "r" * 300_000},
        {"hourly": "1e999999"},
        {"ceiling": "-1"},
        {"lines": [{"resource": "cpu", "quantity": "1", "hourly": "0.1"}] * 1000},
        {"lines": [{"resource": "\u202e", "quantity": "1", "hourly": "0.1"}]},
    ],
    ids=["currency", "rate card", "hourly", "ceiling", "many lines", "line"],
)
def test_impossible_price_is_ignored(change: dict[str, object]) -> None:
    price = {
        "currency": "USD", "rate_card": "cpu/m6i.xlarge@0.192", "hourly": "0.1", "ceiling": "0.2", "actual": None,
        "lines": [{"resource": "cpu", "quantity": "1", "hourly": "0.1"}],
    }  # fmt: skip
    notes = "metadata.annotations"
    own = decode_object(changed(job(), notes, {ANNOTATION_COST: json.dumps(price)}), Job)
    assert cost_of(own) is not None
    edited = decode_object(changed(job(), notes, {ANNOTATION_COST: json.dumps(price | change)}), Job)
    assert cost_of(edited) is None


def test_claims_of_a_job_are_read_by_volume() -> None:
    found = decode_object(raw(job(claims={"datasets": "datasets-v2", "a": "b"})), Job)
    assert found.claims == {"datasets": "datasets-v2", "a": "b"}


@pytest.mark.parametrize("invalid", [1, {"a": 1}, [1], [{"name": 1}], [{"persistentVolumeClaim": {"claimName": 1}}]])
def test_undecodable_volumes_of_a_job_do_not_change_its_requests(invalid: Any) -> None:
    found = decode_object(changed(job(), "spec.template.spec.volumes", invalid), Job)
    assert found.metadata.unreadable[0].startswith("spec.template.spec.volumes")
    assert not any(found.claims.values())
    assert requests_of(found.spec.template.spec) == requests_of(job().spec.template.spec)


def test_job_whose_container_has_only_limits_requests_them() -> None:
    container = "spec.template.spec.containers.0.resources"
    limits = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "4"}
    found = decode_object(changed(job(), container, {"limits": limits, "requests": {"cpu": "1"}}), Job)
    assert requests_of(found.spec.template.spec) == ResourceVector(gpu=4, cpu=1000, memory=4 << 30)
    assert observed_usage(found, []) == observed_usage(job(requests=limits | {"cpu": "1"}), [])


def test_object_that_is_not_utf_8_is_undecodable() -> None:
    broken = raw(pod()).replace(b"first", b"\xff")
    assert decode_object(broken, Pod).metadata.unreadable
    event = decode_watch_event(b'{"type": "ADDED", "object": ' + broken + b"}", Pod)
    assert event.object.metadata.unreadable


@pytest.mark.parametrize("seconds", [10**18, 2**63 - 1, -(10**18), 10**30])
def test_duration_is_bounded(seconds: int) -> None:
    found = decode_object(changed(job(), "spec.activeDeadlineSeconds", seconds), Job)
    assert 0 <= (found.spec.active_deadline_seconds or 0) <= MAX_SECONDS
    deleted = decode_object(changed(pod(), "metadata.deletionGracePeriodSeconds", seconds), Pod)
    assert 0 <= (deleted.metadata.deletion_grace_period_seconds or 0) <= MAX_SECONDS


@pytest.mark.parametrize("quantity", ["lots", "1" * 40, "1e9999", "-5", "٣"])
def test_invalid_quantity_counts_as_more_than_any_quota(quantity: str) -> None:
    requests = {"cpu": "1", "memory": quantity, "example.com/other": "x" * 1000}
    item = json.loads(raw(pod(state=running(5))))
    item["spec"]["containers"][0]["resources"]["requests"] = requests
    found = decode_object(json.dumps(item).encode(), Pod)
    assert (found.spec.containers or ())[0].resources.requests == {"cpu": "1", "memory": MORE_THAN_ANY_QUOTA}
    usage = observed_usage(None, [found])
    assert usage is not None
    assert (usage.amounts.cpu, usage.amounts.jobs) == (1000, 1)
    assert usage.amounts.memory >= 10**18


def test_undecodable_pod_proves_no_success() -> None:
    whole = pod(phase="Succeeded")
    assert pod_succeeded(job(), decode_object(raw(whole), Pod))
    assert not pod_succeeded(job(), decode_object(changed(whole, "metadata.deletionTimestamp", YEAR_10000), Pod))


def test_foreign_annotations_are_dropped() -> None:
    found = decode_object(changed(job(), "metadata.annotations.example\u2024com/notes", "n" * 200_000), Job, METADATA)
    assert found.metadata.annotations.keys() == job().metadata.annotations.keys()


@pytest.mark.parametrize("version", ["", "abc", "-1", "1.5", "9" * 40, None])
def test_object_without_version_has_no_name(version: str | None) -> None:
    found = decode_object(changed(job(), "metadata.resourceVersion", version), Job)
    if version is None:
        assert found.metadata.resource_version == "0"
    else:
        assert (found.metadata.name, found.metadata.unreadable) == ("", ("metadata.resourceVersion",))


def test_invalid_allocatable_resource_is_dropped() -> None:
    document: Json = {
        "metadata": {"name": "n", "resourceVersion": "1"},
        "status": {"allocatable": {"cpu": "many", "memory": "1Gi", "hugepages-2Mi": "0"}},
    }
    found = decode_object(json.dumps(document).encode(), Node)
    assert found.status.allocatable == {"memory": "1Gi"}
    assert found.metadata.unreadable == ("status.allocatable.cpu",)


def test_lease_keeps_foreign_annotations() -> None:
    text = {"metadata": {"annotations": {"example.com/x": "y"}, "creationTimestamp": YEAR_10000}, "spec": {}}
    assert decode_lease(json.dumps(text).encode()).metadata.annotations == {"example.com/x": "y"}


@pytest.mark.parametrize("seconds", [10**18, -1, 10**400])
def test_impossible_spec_is_ignored(seconds: int) -> None:
    spec = json.loads(job().metadata.annotations[ANNOTATION_SPEC]) | {"timeout_seconds": seconds}
    assert spec_of(job(annotations={ANNOTATION_SPEC: json.dumps(spec)})) is None


def test_annotation_of_brackets_is_ignored() -> None:
    assert spec_of(job(annotations={ANNOTATION_SPEC: "[" * 100_000})) is None
    assert spec_of(job(annotations={ANNOTATION_SPEC: '{"x":' + "[" * 100_000})) is None


@pytest.mark.parametrize("path", ["spec", "spec.containers", "spec.containers.0.resources", "spec.containers.0.name"])
def test_pod_with_undecodable_requests_uses_more_than_any_quota(path: str) -> None:
    found = decode_object(changed(pod(state=running(5)), path, 7), Pod)
    usage = observed_usage(None, [found])
    assert usage is not None
    assert min(usage.amounts.gpu, usage.amounts.cpu, usage.amounts.memory) >= 10**18


def test_job_with_undecodable_template_uses_more_than_any_quota_until_finished() -> None:
    usage = observed_usage(decode_object(changed(job(suspend=True), "spec.template", "gone"), Job), [])
    assert usage is not None
    assert usage.amounts.gpu >= 10**18
    finished = decode_object(changed(job(outcome="Complete"), "spec.template", "gone"), Job)
    assert observed_usage(finished, []) is None


def test_long_list_with_undecodable_elements_is_cut() -> None:
    many = [{"type": "x"}] * 20_000 + [{"type": "Complete", "status": "True"}]
    found = decode_object(raw(job(), conditions=many), Job)
    assert not found.finished
    assert "status.conditions" in found.metadata.unreadable
    containers = [{"name": 1}] * 1000
    lost = observed_usage(None, [decode_object(changed(pod(state=running(5)), "spec.containers", containers), Pod)])
    assert lost is not None
    assert lost.amounts.gpu >= 10**18


def test_undecodable_pod_level_requests_count_as_more_than_any_quota() -> None:
    found = decode_object(changed(pod(state=running(5)), "spec.resources", {"requests": {"cpu": "lots"}}), Pod)
    usage = observed_usage(None, [found])
    assert usage is not None
    assert usage.amounts.cpu >= 10**18
