"""Decode a job spec: strict JSON, all violations at once."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runway.errors import Violation
from runway.jobs.spec import (
    MAX_ENV,
    MAX_ENV_BYTES,
    MAX_SECRETS,
    MAX_STRING_BYTES,
    MAX_STRINGS,
    MAX_VOLUMES,
    NVIDIA_ENV,
    AdmittedSpec,
    Resources,
    decode,
    read_draft,
    split_image,
)
from tests.support.builders import document, spec
from tests.unit.strategies import DOCUMENTS, JSON, specs


def faults(**changes: Any) -> set[tuple[str, str]]:
    """Return field and code of each violation of a small valid document with changes."""
    return {(found.field, found.code) for found in read_draft(document(**changes)).violations}


def only(**changes: Any) -> Violation:
    """Return the only violation of a small valid document with changes."""
    (found,) = read_draft(document(**changes)).violations
    return found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{'name': 'x'}", "not JSON"),
        (b'{"name": "x",}', "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON: Extra data at line 1"),
        (b'{"name": "a\nb"}', "Invalid control character"),
        (b'{"name": "a\\x"}', "Invalid .escape"),
        (b"\xef\xbb\xbf{}", "not JSON: it begins with a byte order mark"),
        (b'{"name": "\xff"}', r"not UTF-8 \(byte 10\)"),
        (b'{"name": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"name": "x"}'.encode("utf-16"), "not UTF-8"),
        (b'{"gpu": NaN}', "NaN is not a JSON number"),
        (b'{"gpu": Infinity}', "Infinity is not a JSON number"),
        (b'{"gpu": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"gpu": 01}', "not JSON"),
        (b'{"gpu": 1_000}', "not JSON"),
        (b'{"gpu": ' + b"9" * 5000 + b"}", "more than 20 digits"),
        (b'{"image": "a", "image": "b"}', "duplicate key 'image'"),
        (b'{"env": {"A": "1", "A": "2"}}', "duplicate key 'A'"),
        (b'{"\\u0000": 1, "\\u0000": 1}', "duplicate key"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    ],
)
def test_decode_refuses_invalid_json_with_a_message(body: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        decode(body)
    assert type(caught.value) is ValueError
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'"\\ud800"')
@example(b"1e999")
def test_decode_raises_only_value_error(body: bytes) -> None:
    with suppress(ValueError):
        decode(body)


def test_decode_accepts_twenty_digits() -> None:
    assert decode(b"12345678901234567890") == 12345678901234567890


def test_only_image_cpu_and_memory_are_required() -> None:
    draft = read_draft({"image": "python", "resources": {"cpu": "500m", "memory": "1Gi"}})
    assert draft.violations == ()
    assert (draft.form.image, draft.resources.cpu, draft.resources.memory) == ("python", 500, 1 << 30)
    assert (draft.form.timeout_seconds, draft.form.retries, draft.form.max_cost_usd) == (None, None, None)
    assert draft.resources.gpu is None


def test_all_missing_fields_are_reported_at_once() -> None:
    found = {(item.field, item.code) for item in read_draft({}).violations}
    assert found == {("image", "required"), ("resources.cpu", "required"), ("resources.memory", "required")}


def test_null_equals_an_absent_field() -> None:
    optional = [
        "name", "command", "args", "working_dir", "env", "user", "timeout_seconds", "retries", "grace_period_seconds",
        "max_cost_usd", "start_timeout_seconds",
    ]  # fmt: skip
    absent = dict.fromkeys(["gpu", "gpu_type", "disk", "shared_memory"])
    nulls = document(**dict.fromkeys(optional), resources=absent)
    assert read_draft(nulls) == read_draft(document())


@pytest.mark.parametrize("body", [None, 1, True, "job", [], [{}], 1.5])
def test_body_that_is_not_an_object_is_one_violation(body: object) -> None:
    (found,) = read_draft(body).violations
    assert (found.field, found.code) == ("body", "wrong_type")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": 1}, "name"),
        ({"name": ["a"]}, "name"),
        ({"image": 1}, "image"),
        ({"image": {}}, "image"),
        ({"command": "python train.py"}, "command"),
        ({"command": ["python", 3]}, "command[1]"),
        ({"args": [None]}, "args[0]"),
        ({"args": {"a": "b"}}, "args"),
        ({"env": ["A=1"]}, "env"),
        ({"env": {"A": 1}}, "env[A]"),
        ({"env": {"A": None}}, "env[A]"),
        ({"resources": "all"}, "resources"),
        ({"resources": []}, "resources"),
        ({"resources": {"cpu": 4}}, "resources.cpu"),
        ({"resources": {"memory": 1024}}, "resources.memory"),
        ({"resources": {"memory": ["1Gi"]}}, "resources.memory"),
        ({"resources": {"gpu": "1"}}, "resources.gpu"),
        ({"resources": {"gpu": 1.0}}, "resources.gpu"),
        ({"resources": {"gpu": True}}, "resources.gpu"),
        ({"resources": {"gpu_type": 1}}, "resources.gpu_type"),
        ({"resources": {"disk": 1 << 30}}, "resources.disk"),
        ({"resources": {"disk": {}}}, "resources.disk"),
        ({"resources": {"shared_memory": 1 << 20}}, "resources.shared_memory"),
        ({"resources": {"shared_memory": False}}, "resources.shared_memory"),
        ({"working_dir": 1}, "working_dir"),
        ({"working_dir": ["/scratch"]}, "working_dir"),
        ({"user": True}, "user"),
        ({"user": "1000"}, "user"),
        ({"user": "root"}, "user"),
        ({"user": 1000.0}, "user"),
        ({"user": {"uid": 0}}, "user"),
        ({"timeout_seconds": "60"}, "timeout_seconds"),
        ({"timeout_seconds": 60.0}, "timeout_seconds"),
        ({"timeout_seconds": True}, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"retries": False}, "retries"),
        ({"retries": [1]}, "retries"),
        ({"grace_period_seconds": "30"}, "grace_period_seconds"),
        ({"max_cost_usd": 12.5}, "max_cost_usd"),
        ({"max_cost_usd": 12}, "max_cost_usd"),
    ],
)
def test_wrong_types_are_reported_and_not_converted(changes: dict[str, Any], field: str) -> None:
    found = only(**changes)
    assert (found.field, found.code) == (field, "wrong_type")


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a\n", "a\nb", "\x1b[31m", "a\0", "-a", "a-", ".a", "a/b", "ä", "a\u202eb", "\ud800", "a" * 64],
)
def test_name_that_is_no_label_is_refused(name: str) -> None:
    found = only(name=name)
    assert (found.field, found.code) == ("name", "malformed")
    assert (found.observed or "").isprintable()


@pytest.mark.parametrize("name", ["a", "train-resnet", "Train_1.2", "a" * 63])
def test_name_that_is_a_label_is_accepted(name: str) -> None:
    assert read_draft(document(name=name)).form.name == name


@pytest.mark.parametrize(
    "image",
    ["", " python", "python:", "python:3.12\n", "Python", "a//b", "/a", "a/", "a:b:c", "a@sha256:abc", "https://x/y",
     "a b", "a\0b", "$(A)", "-a", "python@sha512:" + "a" * 64, "python@sha512:" + "A" * 128, "pythön", "r.io/Team/a",
     "r_x.io:5000/a", "r.io:x/a", "r.io:123456/a", "r-.io/a", "r..io/a", "[::1]:5000/a"],
)  # fmt: skip
def test_invalid_image_reference_is_refused(image: str) -> None:
    assert faults(image=image) == {("image", "malformed")}


@pytest.mark.parametrize(
    ("image", "repository", "rest"),
    [
        ("python", "python", ""),
        ("python:3.12-slim", "python", ":3.12-slim"),
        ("registry:5000", "registry", ":5000"),
        ("runway.local/team/train:1.4", "runway.local/team/train", ":1.4"),
        ("localhost:5000/a__b/c--d:x", "localhost:5000/a__b/c--d", ":x"),
        (f"r.io/a@sha256:{'0' * 64}", "r.io/a", f"@sha256:{'0' * 64}"),
        (f"r.io/a@sha512:{'0' * 128}", "r.io/a", f"@sha512:{'0' * 128}"),
        (f"r.io/a@sha384:{'0' * 96}", "r.io/a", f"@sha384:{'0' * 96}"),
        ("GHCR.io/acme/train:1", "GHCR.io/acme/train", ":1"),
        ("Registry:5000/train", "Registry:5000/train", ""),
        ("my_team/train", "my_team/train", ""),
        (f"r.io/a:1@sha256:{'0' * 64}", "r.io/a", f":1@sha256:{'0' * 64}"),
    ],
)
def test_image_is_split_into_repository_and_tag(image: str, repository: str, rest: str) -> None:
    assert read_draft(document(image=image)).form.image == image
    assert split_image(image) == (repository, rest)


def test_image_reference_has_a_maximum_length_and_is_shown_shortened() -> None:
    found = only(image="a" * 10_000)
    assert (found.field, found.code, found.limit) == ("image", "too_long", "512 characters")
    assert len(found.observed or "") < 100


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1_000", "1 Gi", "-1", "", "１", "1" * 33, "1e999"])
def test_invalid_quantity_is_refused_with_an_example(text: str) -> None:
    fields = ("cpu", "memory", "disk", "shared_memory")
    assert faults(resources=dict.fromkeys(fields, text)) == {(f"resources.{field}", "malformed") for field in fields}
    assert '"500m"' in (only(resources={"cpu": text}).hint or "")


@pytest.mark.parametrize(
    "text", ["-1", "1e3", "1,50", "NaN", "Infinity", "", " 1", "1.0000001", "١", "1_0", "$5", "1" * 10]
)
def test_money_is_a_plain_decimal_of_at_most_six_places(text: str) -> None:
    assert faults(max_cost_usd=text) == {("max_cost_usd", "malformed")}
    assert read_draft(document(max_cost_usd="12.50")).form.max_cost_usd == Decimal("12.50")


@pytest.mark.parametrize(
    "path",
    ["", "scratch", "./scratch", "~", "$HOME", " /scratch", "/..", "/../etc", "/scratch/..", "/scratch/../etc", "/a\0b",
     "/\ud800"],
)  # fmt: skip
def test_working_directory_that_is_no_plain_absolute_path_is_refused(path: str) -> None:
    found = only(working_dir=path)
    assert (found.field, found.code) == ("working_dir", "malformed")
    assert (found.observed or "").isprintable()


@pytest.mark.parametrize("path", ["/", "/scratch", "/a b/..c/d..", "/$(HOME)/$$", "/é😀", "/a\nb", "/" + "a" * 1023])
def test_working_directory_is_kept_verbatim(path: str) -> None:
    assert read_draft(document(working_dir=path)).form.working_dir == path


@pytest.mark.parametrize("path", ["/" + "a" * 1024, "/" + "é" * 512, "/" + "a" * 100_000])
def test_working_directory_is_bounded_in_bytes(path: str) -> None:
    found = only(working_dir=path)
    assert (found.field, found.code, found.limit) == ("working_dir", "too_large", "1024 bytes")
    assert found.observed == f"{len(path.encode())} bytes"


def test_group_is_not_a_field() -> None:
    """Every job shares one group, so that each can read what another wrote to a volume."""
    assert faults(fsGroup=0, group=0, run_as_group=0) == {
        (field, "unknown_field") for field in ("fsGroup", "group", "run_as_group")
    }


def test_unknown_fields_are_refused_and_known_fields_listed() -> None:
    assert faults(gpus=1, resources={"shm": "1Gi"}) == {("gpus", "unknown_field"), ("resources.shm", "unknown_field")}
    assert (only(timeout=1).hint or "").startswith("did you mean timeout_seconds? fields here: name, image")
    assert (only(resources={"gpus": 1}).hint or "").startswith(
        "did you mean gpu? fields here: cpu, memory, gpu, gpu_type"
    )


def test_many_unknown_fields_are_counted() -> None:
    found = read_draft(document(**{f"f{i}": i for i in range(5000)})).violations
    assert len(found) == 21
    assert "4980 more" in found[-1].message


def test_ten_thousand_variables_are_one_violation() -> None:
    found = only(env={f"K{i}": "v" for i in range(10_000)})
    assert (found.field, found.code, found.observed, found.limit) == ("env", "too_many", "10000", str(MAX_ENV))
    assert faults(env={f"K{i}": "v" for i in range(MAX_ENV)}) == set()


@pytest.mark.parametrize("field", ["command", "args"])
def test_lists_of_strings_have_bounds_on_entries_and_bytes(field: str) -> None:
    assert faults(**{field: ["x"] * MAX_STRINGS}) == set()
    assert faults(**{field: ["x"] * (MAX_STRINGS + 1)}) == {(field, "too_many")}
    assert faults(**{field: ["é" * (MAX_STRING_BYTES // 2)]}) == set()
    assert faults(**{field: ["é" * (MAX_STRING_BYTES // 2), "x"]}) == {(field, "too_large")}


def test_environment_is_bounded_in_bytes_including_names() -> None:
    assert faults(env={"A": "x" * (MAX_ENV_BYTES - 1)}) == set()
    assert faults(env={"AB": "x" * (MAX_ENV_BYTES - 1)}) == {("env", "too_large")}


@pytest.mark.parametrize(
    "name", ["A-B", "spring.profiles.active", "1A", "A B", "a:b/c", "..x", "~", "nvidia_x", "A" * 128]
)
def test_variable_name_that_kubernetes_accepts_is_accepted(name: str) -> None:
    """https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/"""
    assert read_draft(document(env={name: "x"})).form.env == {name: "x"}


@pytest.mark.parametrize("name", NVIDIA_ENV)
def test_nvidia_variable_that_opens_no_device_is_accepted(name: str) -> None:
    assert faults(env={name: ""}) == set()


@pytest.mark.parametrize(
    "name", ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_IMEX_CHANNELS", "NVIDIA_GDRCOPY",
             "NVIDIA_NEW", "NVIDIA_", "NVIDIA_REQUIRE_JETPACK", "NVIDIA_DRIVER_CAPABILITIES ", "NVIDIA_API_KEY_2"]
)  # fmt: skip
def test_other_nvidia_variables_are_refused(name: str) -> None:
    assert only(env={name: "all"}).code in ("reserved", "malformed")


@pytest.mark.parametrize(("value", "is_known"), [
    ("compute,utility", True), ("all", True), ("", True), ("compute,", True), ("compute,gpu", False),
    ("compute utility", False), ("ALL", False), ("x" * 30_000, False),
])  # fmt: skip
def test_driver_capability_must_be_known_to_the_container_toolkit(value: str, is_known: bool) -> None:
    found = faults(env={"NVIDIA_DRIVER_CAPABILITIES": value})
    assert found == (set() if is_known else {("env", "malformed")})


@pytest.mark.parametrize(
    "name", ["", "A=B", "=", "Ä", "A\n", "A\0", "\t", "A\x7f", " A", "A ", " ", "\ud800", "A" * 129]
)
def test_invalid_variable_name_is_refused(name: str) -> None:
    found = only(env={name: "x"})
    assert (found.field[:4], found.code) == ("env[", "malformed")
    assert found.field.isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "RUNWAY_JOB_ID", "RUNWAY_", "KUBERNETES_SERVICE_HOST", "NVIDIA_VISIBLE_DEVICES", "AWS_CONTAINER_TOKEN",
        "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    ],
)  # fmt: skip
def test_reserved_variable_is_refused_with_the_reserved_names(name: str) -> None:
    for field, value in (("env", "x"), ("secrets", "huggingface/token")):
        found = only(**{field: {name: value}})
        assert (found.field, found.code) == (f"{field}[{name}]", "reserved")
        assert "NVIDIA_*" in (found.hint or "")
        assert "AWS_ROLE_ARN" in (found.hint or "")


def test_variables_that_only_begin_like_reserved_names_are_allowed() -> None:
    assert faults(env={"AWS_ROLE_ARN_NAME": "x", "AWS_REGION": "us-east-1"}) == set()


@pytest.mark.parametrize(
    "reference", ["huggingface/token", "a.b-c/.dockerconfigjson", f"{'a' * 253}/{'K' * 253}", "a/_"]
)
def test_secret_reference_names_a_secret_and_a_key(reference: str) -> None:
    draft = read_draft(document(secrets={"HF_TOKEN": reference}))
    assert draft.violations == ()
    assert draft.form.secrets == {"HF_TOKEN": reference}


@pytest.mark.parametrize(
    "reference",
    [
        "huggingface", "/token", "huggingface/", "a/b/c", "other/huggingface/token", "../token", "./token", "a/..",
        "a/.", "a/..data", "A/token", "a_b/token", "-a/token", "a./token", "a..b/token", "a/to ken", "a/to\nken",
        "a/b\n", "a/tökén", "", f"{'a' * 254}/k", f"a/{'k' * 254}", f"{'a' * 300}/{'k' * 300}", "the-token-itself",
    ],
)  # fmt: skip
def test_malformed_secret_reference_is_refused_and_not_shown(reference: str) -> None:
    found = only(secrets={"HF_TOKEN": reference})
    assert found.field == "secrets[HF_TOKEN]"
    assert found.code in ("malformed", "too_long")
    assert found.observed is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("huggingface/token", ("secrets", "wrong_type")),
        (["huggingface/token"], ("secrets", "wrong_type")),
        ({"A": {"name": "huggingface", "key": "token"}}, ("secrets[A]", "wrong_type")),
        ({"A": None}, ("secrets[A]", "wrong_type")),
        ({"A=B": "huggingface/token"}, ("secrets[A=B]", "malformed")),
        ({f"K{at}": "a/b" for at in range(MAX_SECRETS + 1)}, ("secrets", "too_many")),
    ],
)
def test_secrets_are_an_object_of_references(value: object, fault: tuple[str, str]) -> None:
    assert faults(secrets=value) == {fault}


def test_variable_in_env_and_in_secrets_is_refused() -> None:
    found = only(env={"A": "1", "B": "2"}, secrets={"B": "huggingface/token", "C": "huggingface/token"})
    assert (found.field, found.code) == ("secrets[B]", "duplicate")
    assert "is also in env" in found.message


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("datasets", ("volumes", "wrong_type")),
        ({"datasets": "/data"}, ("volumes", "wrong_type")),
        ([1], ("volumes[0]", "wrong_type")),
        (["datasets", {"claim": "x"}], ("volumes[1]", "wrong_type")),
        (["/data"], ("volumes[0]", "malformed")),
        (["a", "../b"], ("volumes[1]", "malformed")),
        (["a\0"], ("volumes[0]", "malformed")),
        ([""], ("volumes[0]", "malformed")),
        (["x" * 64], ("volumes[0]", "malformed")),
        (["x" * 600], ("volumes[0]", "too_long")),
        ([f"v{at}" for at in range(MAX_VOLUMES + 1)], ("volumes", "too_many")),
        (["a", "b", "a"], ("volumes", "duplicate")),
    ],
)
def test_volumes_are_distinct_names(value: object, fault: tuple[str, str]) -> None:
    assert faults(volumes=value) == {fault}


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "ok \udfff"])
def test_string_that_a_process_cannot_receive_is_refused(text: str) -> None:
    assert faults(command=[text]) == {("command[0]", "malformed")}
    assert faults(args=["fine", text]) == {("args[1]", "malformed")}
    assert faults(env={"A": text}) == {("env[A]", "malformed")}


@pytest.mark.parametrize("text", ["a\nb", "\x1b[0m", "$(A) $$ `id`", "é😀", ""])
def test_strings_are_kept_verbatim(text: str) -> None:
    draft = read_draft(document(command=[text], args=[text], env={"A": text}))
    assert draft.violations == ()
    assert (draft.form.command, draft.form.args, draft.form.env) == ([text], [text], {"A": text})


def test_all_violations_are_reported_and_valid_fields_are_read() -> None:
    draft = read_draft(
        document(
            name="a\nb",
            image=7,
            command="x",
            env={"RUNWAY_X": 1},
            timeout_seconds=90,
            retries="1",
            max_cost_usd="free",
            surprise=1,
            resources={"cpu": "1_000", "gpu": True, "gpus": 1},
        )
    )
    assert {(found.field, found.code) for found in draft.violations} == {
        ("name", "malformed"),
        ("image", "wrong_type"),
        ("command", "wrong_type"),
        ("env[RUNWAY_X]", "reserved"),
        ("env[RUNWAY_X]", "wrong_type"),
        ("retries", "wrong_type"),
        ("max_cost_usd", "malformed"),
        ("surprise", "unknown_field"),
        ("resources.cpu", "malformed"),
        ("resources.gpu", "wrong_type"),
        ("resources.gpus", "unknown_field"),
    }
    assert (draft.resources.memory, draft.form.timeout_seconds) == (1 << 30, 90)
    assert draft.is_valid("resources.memory", "timeout_seconds")
    assert not draft.is_valid("resources.cpu")


def test_observed_values_are_escaped_and_shortened() -> None:
    assert only(name="a\nb").observed == "a\\nb"
    assert only(name="-" * 80).observed == "-" * 80
    assert only(name="-" * 81).observed == "-" * 80 + "…"
    assert only(name="\x1b" * 500).observed == ("\\x1b" * 80)[:80] + "…"
    assert only(name={"a": 1, "b": 2}).observed == "an object of 2 members"
    assert only(name=[1]).observed == "a list of 1 entries"
    assert only(name=True).observed == "true"


@given(DOCUMENTS)
def test_arbitrary_json_causes_only_printable_violations(value: Any) -> None:
    violations = read_draft(value).violations
    assert len(violations) < 1000
    for found in violations:
        assert found.hint
        for text in (found.field, found.code, found.message, found.observed or "-", found.limit or "-", found.hint):
            assert text.isprintable()
            assert len(text) <= 400
            text.encode()


@given(specs())
def test_to_json_round_trips(admitted: AdmittedSpec) -> None:
    draft = read_draft(decode(json.dumps(admitted.to_json()).encode()))
    assert draft.violations == ()
    form, wanted = draft.form, draft.resources
    assert admitted == AdmittedSpec(
        name=form.name,
        image=form.image or "",
        command=tuple(form.command or ()),
        args=tuple(form.args or ()),
        env=tuple((form.env or {}).items()),
        secrets=tuple((form.secrets or {}).items()),
        volumes=tuple(form.volumes or ()),
        resources=Resources(
            wanted.cpu or 0,
            wanted.memory or 0,
            wanted.gpu or 0,
            wanted.gpu_type,
            wanted.disk or 0,
            wanted.shared_memory or 0,
        ),
        timeout_seconds=form.timeout_seconds or 0,
        retries=form.retries or 0,
        grace_period_seconds=form.grace_period_seconds or 0,
        pool=form.pool,
        start_timeout_seconds=form.start_timeout_seconds,
        working_dir=form.working_dir,
        user=form.user or 0,
        max_cost_usd=form.max_cost_usd,
    )


def test_to_json_has_every_field() -> None:
    assert spec(name="a", cpu=500, memory=1 << 29, max_cost_usd=Decimal("0.000001")).to_json() == {
        "name": "a",
        "image": "runway.local/train:1",
        "command": [],
        "args": [],
        "working_dir": None,
        "env": {},
        "secrets": {},
        "volumes": [],
        "user": 1000,
        "resources": {
            "cpu": "500m",
            "memory": "512Mi",
            "gpu": 0,
            "gpu_type": None,
            "disk": "10Gi",
            "shared_memory": "512Mi",
        },
        "timeout_seconds": 3600,
        "pool": "cpu",
        "start_timeout_seconds": None,
        "retries": 0,
        "grace_period_seconds": 30,
        "max_cost_usd": "0.000001",
    }
