"""The gate: which specifications may enter, and every reason at once why one may not."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.admission.validation import ValidatedSpec, canonical_repository, validate
from runway.errors import InvalidSpec, Violation
from runway.jobs.spec import Resources, read_draft
from runway.policy import Policy
from tests.support.builders import document, policy

POLICY = policy()


def admit(held_against: Policy = POLICY, **changes: Any) -> ValidatedSpec:
    """A small valid document with these changes, through the gate."""
    return validate(read_draft(document(**changes)), held_against)


def refuse(held_against: Policy = POLICY, **changes: Any) -> tuple[Violation, ...]:
    """Every violation of a small valid document with these changes."""
    with pytest.raises(InvalidSpec) as caught:
        admit(held_against, **changes)
    return caught.value.violations


def codes(violations: tuple[Violation, ...]) -> set[tuple[str, str]]:
    return {(found.field, found.code) for found in violations}


def test_what_is_left_out_comes_from_the_policy() -> None:
    passed = admit()
    assert passed.pool == "cpu"
    assert passed.spec.timeout_seconds == 3600
    assert passed.spec.grace_period_seconds == 30
    assert passed.spec.retries == 0
    assert passed.spec.resources == Resources(1000, 1 << 30, 0, None)


def test_what_is_given_is_kept() -> None:
    passed = admit(
        name="train", command=["a"], args=["b"], env={"K": "v"}, timeout_seconds=60, retries=2, grace_period_seconds=5,
        max_cost_usd="50", resources={"gpu": 2, "gpu_type": "h100"},
    )  # fmt: skip
    spec = passed.spec
    assert (spec.name, spec.command, spec.args, spec.env) == ("train", ("a",), ("b",), (("K", "v"),))
    assert (spec.timeout_seconds, spec.retries, spec.grace_period_seconds) == (60, 2, 5)
    assert (spec.max_cost_usd, spec.resources.gpu_type, passed.pool) == (Decimal(50), "h100", "h100")


@pytest.mark.parametrize(
    ("field", "low", "below", "high", "above"),
    [
        ("resources.cpu", "100m", "99m", "16", "16001m"),
        ("resources.memory", "32Mi", "33554431", "64Gi", None),
        ("resources.gpu", 0, -1, 4, 5),
        ("timeout_seconds", 10, 9, 86_400, 86_401),
        ("retries", 0, -1, 3, 4),
        ("grace_period_seconds", 1, 0, 120, 121),
    ],
)
def test_bounds_are_inclusive_and_named(field: str, low: object, below: object, high: object, above: object) -> None:
    def given(value: object) -> dict[str, Any]:
        if field == "resources.gpu" and value not in (0, -1):
            return {"resources": {"gpu": value, "gpu_type": "h100"}}
        group, _, name = field.rpartition(".")
        return {group: {name: value}} if group else {name: value}

    for value in (low, high):
        admit(**given(value))
    (found,) = refuse(**given(below))
    assert (found.field, found.code, found.observed, found.limit) == (field, "too_small", str(below), str(low))
    assert str(low) in (found.hint or "")
    if above is not None:
        found = next(item for item in refuse(**given(above)) if item.code == "too_large")
        assert (found.field, found.observed, found.limit) == (field, str(above), str(high))


def test_memory_above_the_bound_is_named_even_where_no_node_has_it() -> None:
    assert codes(refuse(resources={"memory": "129Gi"})) == {
        ("resources.memory", "too_large"),
        ("resources.memory", "never_fits"),
    }


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("python", "docker.io/library/python"),
        ("python:3.12", "docker.io/library/python"),
        (f"python@sha256:{'0' * 64}", "docker.io/library/python"),
        ("library/python", "docker.io/library/python"),
        ("acme/train", "docker.io/acme/train"),
        ("acme/train/x", "docker.io/acme/train/x"),
        ("docker.io/library/python:3", "docker.io/library/python"),
        ("ghcr.io/acme/train:1", "ghcr.io/acme/train"),
        ("localhost/x", "localhost/x"),
        ("registry:5000/x:1", "registry:5000/x"),
    ],
)
def test_an_image_is_known_by_what_a_node_would_pull(image: str, repository: str) -> None:
    assert canonical_repository(image) == repository


@pytest.mark.parametrize(
    "image",
    [
        "runway.local/train",
        "runway.local/team/train:1.4",
        f"runway.local/train:1@sha256:{'a' * 64}",
        "python:3.12",
        "library/python",
        "docker.io/library/python",
        "ghcr.io/acme/train",
        "ghcr.io/acme/train:1",
        f"ghcr.io/acme/train@sha256:{'a' * 64}",
    ],
)
def test_an_allowed_image_enters(image: str) -> None:
    assert admit(image=image).spec.image == image


@pytest.mark.parametrize(
    "image",
    [
        "runway.local.evil.com/x",
        "runway.localx/train",
        "runway.local:5000/train",
        "evil.com/runway.local/train",
        "runway/train",
        "acme/train",
        "docker.io/libraryx/python",
        "docker.io/acme/library",
        "evil.io/library/python",
        "ghcr.io/acme/train/x",
        "ghcr.io/acme/trainx",
        "ghcr.io/acme",
        "localhost/library/python",
        "library.io/python",
    ],
)
def test_an_image_from_elsewhere_is_refused_with_what_is_allowed(image: str) -> None:
    (found,) = refuse(image=image)
    assert (found.field, found.code, found.observed) == ("image", "image_not_allowed", image)
    assert found.limit == "runway.local/*, docker.io/library/*, ghcr.io/acme/train"


ONE_GPU_POOL = policy(
    ('  h100: {instance_type: p5.48xlarge, hourly_usd: "55.04", cpu: "192", memory: 2Ti, gpu: 8, gpu_type: h100}\n', "")
)
NO_GPU_POOL = policy(
    (", gpu: 4, gpu_type: a10g", ""),
    (", gpu: 8, gpu_type: h100", ""),
)
ONLY_GPU_POOLS = policy(
    ('  cpu: {instance_type: m6i.4xlarge, hourly_usd: "0.768", cpu: "16", memory: 64Gi}\n', ""),
)


@pytest.mark.parametrize(
    ("held_against", "asked", "pool", "gpu_type"),
    [
        (POLICY, {}, "cpu", None),
        (POLICY, {"gpu": 0}, "cpu", None),
        (POLICY, {"gpu": 1, "gpu_type": "a10g"}, "a10g", "a10g"),
        (POLICY, {"gpu": 4, "gpu_type": "h100"}, "h100", "h100"),
        (ONE_GPU_POOL, {"gpu": 1}, "a10g", "a10g"),
    ],
)
def test_a_job_goes_to_the_pool_of_its_gpu_type(
    held_against: Policy, asked: dict[str, Any], pool: str, gpu_type: str | None
) -> None:
    passed = admit(held_against, resources=asked)
    assert (passed.pool, passed.spec.resources.gpu_type) == (pool, gpu_type)


@pytest.mark.parametrize(
    ("held_against", "asked", "field", "code"),
    [
        (POLICY, {"gpu": 1, "gpu_type": "v100"}, "resources.gpu_type", "unknown_gpu_type"),
        (POLICY, {"gpu_type": "v100"}, "resources.gpu_type", "unknown_gpu_type"),
        (POLICY, {"gpu": 1, "gpu_type": "A10G"}, "resources.gpu_type", "unknown_gpu_type"),
        (POLICY, {"gpu_type": "a10g"}, "resources.gpu_type", "gpu_type_without_gpu"),
        (POLICY, {"gpu": 0, "gpu_type": "a10g"}, "resources.gpu_type", "gpu_type_without_gpu"),
        (POLICY, {"gpu": 1}, "resources.gpu_type", "required"),
        (NO_GPU_POOL, {"gpu": 1}, "resources.gpu", "never_fits"),
        (NO_GPU_POOL, {"gpu": 1, "gpu_type": "a10g"}, "resources.gpu_type", "unknown_gpu_type"),
        (ONLY_GPU_POOLS, {}, "resources.gpu", "never_fits"),
    ],
)
def test_a_job_that_no_pool_is_for_is_refused(
    held_against: Policy, asked: dict[str, Any], field: str, code: str
) -> None:
    (found,) = refuse(held_against, resources=asked)
    assert (found.field, found.code) == (field, code)
    assert found.hint


def test_an_unknown_gpu_type_is_told_which_there_are() -> None:
    (found,) = refuse(resources={"gpu": 1, "gpu_type": "v100"})
    assert (found.observed, found.limit, found.hint) == ("v100", "a10g, h100", "choose one of: a10g, h100")


def test_what_is_larger_than_a_whole_node_never_fits_and_says_so_for_each_resource() -> None:
    small = policy(('cpu: "48", memory: 192Gi, gpu: 4', 'cpu: "4", memory: 16Gi, gpu: 1'))
    found = refuse(small, resources={"cpu": "5", "memory": "17Gi", "gpu": 2, "gpu_type": "a10g"})
    assert {(item.field, item.code, item.observed, item.limit) for item in found} == {
        ("resources.cpu", "never_fits", "5", "4"),
        ("resources.memory", "never_fits", "17Gi", "16Gi"),
        ("resources.gpu", "never_fits", "2", "1"),
    }
    assert all("g5.12xlarge" in item.message for item in found)


def test_a_job_that_could_cost_more_than_its_cap_is_refused_with_the_price() -> None:
    ceiling = admit().price.ceiling
    assert admit(max_cost_usd=str(ceiling)).price.ceiling == ceiling
    (found,) = refuse(max_cost_usd=str(ceiling - Decimal("0.000001")))
    assert (found.field, found.code) == ("max_cost_usd", "over_max_cost")
    assert found.observed == str(ceiling)


@given(st.integers(10, 86_400), st.integers(1, 10**7), st.integers(100, 16_000))
def test_a_timeout_that_the_cost_hint_names_is_let_in(timeout: int, millionths: int, cpu: int) -> None:
    cap = f"{Decimal(millionths).scaleb(-6):f}"
    changes: dict[str, Any] = {"timeout_seconds": timeout, "max_cost_usd": cap, "resources": {"cpu": f"{cpu}m"}}
    try:
        admit(**changes)
    except InvalidSpec as error:
        (found,) = error.violations
        named = re.search(r"timeout_seconds to at most (\d+)", found.hint or "")
        if named is not None:
            admit(**{**changes, "timeout_seconds": int(named[1])})


def test_form_bounds_pool_fit_and_cost_are_all_told_at_once() -> None:
    found = refuse(
        name="a\nb",
        image="evil.com/x",
        surprise=1,
        timeout_seconds=90_000,
        retries=9,
        max_cost_usd="0.01",
        resources={"cpu": "17", "memory": "100Gi"},
    )
    assert codes(found) == {
        ("name", "malformed"),
        ("surprise", "unknown_field"),
        ("image", "image_not_allowed"),
        ("timeout_seconds", "too_large"),
        ("retries", "too_large"),
        ("resources.cpu", "too_large"),
        ("resources.cpu", "never_fits"),
        ("resources.memory", "never_fits"),
        ("max_cost_usd", "over_max_cost"),
    }


def test_a_field_that_could_not_be_read_is_not_also_called_out_of_bounds() -> None:
    assert codes(refuse(image=1, timeout_seconds="x", retries="x", resources={"gpu": "x", "cpu": "x"})) == {
        ("image", "wrong_type"),
        ("timeout_seconds", "wrong_type"),
        ("retries", "wrong_type"),
        ("resources.gpu", "wrong_type"),
        ("resources.cpu", "malformed"),
    }
    assert codes(refuse(resources="all")) == {("resources", "wrong_type")}


def test_a_flood_of_unknown_resources_does_not_hide_what_else_is_wrong() -> None:
    found = refuse(resources={**{f"x{i}": 1 for i in range(30)}, "gpu": 1, "gpu_type": "v100"})
    assert ("resources.gpu_type", "unknown_gpu_type") in codes(found)
