"""Job names: stable for a tenant and key, and unique across both."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.annotations import ANNOTATION_SPEC, JOB_ID, spec_of
from runway.jobs.manifest import canonical_json, job_id, spec_hash_0_7
from runway.jobs.models import SpecView
from runway.jobs.spec import AdmittedSpec, Resources
from tests.support.builders import job, spec
from tests.unit.strategies import specs

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
TENANTS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)


def test_job_id_never_changes_between_versions() -> None:
    """A retry that spans an upgrade of Runway must find its job: these are promises, not examples."""
    assert job_id("vision", "key nightly-17") == "rw-q5qobp2u275tr7ll6nxk"
    assert job_id("speech", "key nightly-17") == "rw-u4ed47ge5dba2nvi3zqq"


@given(TENANTS, st.text(st.characters(exclude_categories=["Cs"])))
def test_job_id_is_a_dns_label_with_room_for_a_pod_suffix(tenant: str, key: str) -> None:
    name = job_id(tenant, key)
    assert JOB_ID.fullmatch(name)
    assert DNS_LABEL.fullmatch(name)
    assert len(f"{name}-abcde") <= 63
    assert name == job_id(tenant, key)


@given(st.sets(st.tuples(TENANTS, st.text(st.characters(exclude_categories=["Cs"]))), max_size=20))
def test_tenants_and_keys_never_share_a_job_id(pairs: set[tuple[str, str]]) -> None:
    assert len({job_id(tenant, key) for tenant, key in pairs}) == len(pairs)


def test_tenant_and_key_are_separated_in_the_hash() -> None:
    assert job_id("a", "bc") != job_id("ab", "c")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"image": "runway.local/train:2"},
        {"command": ("a",)},
        {"args": ("a",)},
        {"env": (("A", "1"),)},
        {"resources": Resources(1001, 1 << 30)},
        {"resources": Resources(1000, 1 << 31)},
        {"resources": Resources(1000, 1 << 30, 1, "a10g")},
        {"timeout_seconds": 3601},
        {"retries": 1},
        {"grace_period_seconds": 31},
        {"max_cost_usd": Decimal("1.00")},
    ],
)
def test_change_of_a_field_of_0_7_changes_its_hash(change: dict[str, Any]) -> None:
    assert spec_hash_0_7(replace(spec(), **change)) != spec_hash_0_7(spec())


def test_equal_amounts_of_money_have_equal_hashes_in_0_7() -> None:
    one, other = spec(max_cost_usd=Decimal("12.5")), spec(max_cost_usd=Decimal("12.50"))
    assert spec_hash_0_7(one) == spec_hash_0_7(other)


def test_canonical_json_is_one_text_per_value() -> None:
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


@given(specs())
def test_canonical_json_round_trip(admitted: AdmittedSpec) -> None:
    assert json.loads(canonical_json(admitted.to_json())) == admitted.to_json()


def _read(document: dict[str, Any]) -> SpecView | None:
    return spec_of(job(annotations={ANNOTATION_SPEC: json.dumps(document)}))


def test_spec_of_version_0_7_is_read_with_the_values_that_0_7_used() -> None:
    document = spec().to_json()
    document["resources"] = {"cpu": "1", "memory": "1Gi", "gpu": 0, "gpu_type": None}
    found = _read({name: value for name, value in document.items() if name not in ("working_dir", "user")})
    assert found is not None
    assert (found.working_dir, found.user) == (None, 1000)
    assert (found.resources.disk, found.resources.shared_memory) == (None, "64Mi")


@given(specs())
def test_spec_is_read_back_from_its_annotation(admitted: AdmittedSpec) -> None:
    found = _read(admitted.to_json())
    assert found is not None
    assert asdict(found) == admitted.to_json()


@pytest.mark.parametrize("user", [0, -1, 1 << 31, 10**30, "1000", None, True, 1.5])
def test_edited_spec_with_an_impossible_user_is_no_spec(user: object) -> None:
    assert _read({**spec().to_json(), "user": user}) is None


@given(specs())
def test_canonical_json_matches_hashes_of_existing_jobs(admitted: AdmittedSpec) -> None:
    """Another encoder with other escapes would turn every replay of a job from before into a conflict."""
    document = admitted.to_json()
    assert canonical_json(document) == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
