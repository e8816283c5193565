"""Validation of specs against the policy, with all violations at once."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.admission.validation import ValidatedSpec, canonical_repository, validate
from runway.errors import InvalidSpec, Violation
from runway.jobs.spec import MAX_ENV, MAX_ENV_BYTES, MAX_STRING_BYTES, MAX_STRINGS, Resources, read_draft
from runway.policy import Policy
from tests.support.builders import document, policy

POLICY = policy()


def admit(held_against: Policy = POLICY, **changes: Any) -> ValidatedSpec:
    """Validate a small valid document with changes."""
    return validate(read_draft(document(**changes)), held_against, "vision")


def refuse(held_against: Policy = POLICY, **changes: Any) -> tuple[Violation, ...]:
    """Return every violation of a small valid document with changes."""
    with pytest.raises(InvalidSpec) as caught:
        admit(held_against, **changes)
    return caught.value.violations


def codes(violations: tuple[Violation, ...]) -> set[tuple[str, str]]:
    return {(found.field, found.code) for found in violations}


def test_missing_fields_get_the_policy_defaults() -> None:
    passed = admit()
    assert passed.pool == "cpu"
    assert passed.spec.timeout_seconds == 3600
    assert passed.spec.grace_period_seconds == 30
    assert passed.spec.retries == 0
    assert passed.spec.resources == Resources(1000, 1 << 30, 0, None, disk=10 << 30, shared_memory=1 << 29)
    assert (passed.spec.user, passed.spec.working_dir) == (1000, None)


def test_given_fields_are_kept() -> None:
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
        ("resources.disk", "1Gi", "1073741823", "10Gi", "11Gi"),
        ("user", 1, 0, 65_535, 70_000),
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


def test_user_below_zero_is_refused() -> None:
    (found,) = refuse(user=-1)
    assert (found.field, found.code, found.observed, found.limit) == ("user", "too_small", "-1", "1")


def test_policy_bounds_and_defaults_disk_and_user() -> None:
    own = policy(
        (
            "retries: {max: 3}",
            """retries: {max: 3}
  disk: {min: 1Mi, max: 1Ti, default: 2Gi}
  user: {min: 1000, max: 1999, default: 1001}""",
        )
    )
    spec = admit(own).spec
    assert (spec.user, spec.resources.disk) == (1001, 2 << 30)
    assert codes(refuse(own, user=999, resources={"disk": "2Ti"})) == {
        ("user", "too_small"),
        ("resources.disk", "too_large"),
    }


def test_shared_memory_and_working_directory_are_kept() -> None:
    spec = admit(working_dir="/scratch", user=65_532, resources={"disk": "2Gi", "shared_memory": "1Gi"}).spec
    assert (spec.working_dir, spec.user) == ("/scratch", 65_532)
    assert (spec.resources.disk, spec.resources.shared_memory) == (2 << 30, 1 << 30)


def test_shared_memory_above_memory_is_refused_with_the_remedy() -> None:
    (found,) = refuse(resources={"memory": "1Gi", "shared_memory": "1025Mi"})
    assert (found.field, found.code, found.observed) == ("resources.shared_memory", "too_large", "1025Mi")
    assert (found.limit, found.hint) == ("1Gi", "ask for at most 1Gi, or raise resources.memory")


@pytest.mark.parametrize("size", ["0", "1", "1023Ki"])
def test_shared_memory_below_a_mebibyte_is_refused(size: str) -> None:
    """Kubernetes reads a size of 0 as no limit."""
    (found,) = refuse(resources={"shared_memory": size})
    assert (found.field, found.code, found.limit) == ("resources.shared_memory", "too_small", "1Mi")


@given(st.integers(32 << 20, 64 << 30))
def test_shared_memory_defaults_to_half_of_memory_in_whole_mebibytes(memory: int) -> None:
    found = admit(resources={"memory": str(memory)}).spec.resources.shared_memory
    assert memory // 2 - (1 << 20) < found <= memory // 2
    assert found % (1 << 20) == 0


def test_malformed_memory_hides_no_fault_of_shared_memory() -> None:
    assert codes(refuse(resources={"memory": "x", "shared_memory": "1"})) == {
        ("resources.memory", "malformed"),
        ("resources.shared_memory", "too_small"),
    }


def test_memory_above_bound_is_reported_beside_node_size() -> None:
    assert codes(refuse(resources={"memory": "129Gi"})) == {
        ("resources.memory", "too_large"),
        ("resources.memory", "never_fits"),
    }


SPOT = policy(
    (
        "gpu_type: a10g}\n",
        """gpu_type: a10g}
  a10g-big: {instance_type: g5.48xlarge, hourly_usd: "16.288", cpu: "190", memory: 760Gi, gpu: 8, gpu_type: a10g,
    node_selector: {size: big}}
  a10g-spot: {instance_type: g5.12xlarge, hourly_usd: "2.1", cpu: "48", memory: 192Gi, gpu: 4, gpu_type: a10g,
    spot: true, node_selector: {capacity: spot}}
  cpu-spot: {instance_type: m6i.4xlarge, hourly_usd: "0.3", cpu: "16", memory: 64Gi,
    spot: true, node_selector: {capacity: spot}}
  t4-spot: {instance_type: g4dn.xlarge, hourly_usd: "0.2", cpu: "4", memory: 16Gi, gpu: 1, gpu_type: t4, spot: true}
""",
    )
)


@pytest.mark.parametrize(
    ("wanted", "pool", "gpu_type"),
    [
        ({}, "cpu", None),
        ({"pool": "cpu-spot"}, "cpu-spot", None),
        ({"pool": None}, "cpu", None),
        ({"resources": {"gpu": 1, "gpu_type": "a10g"}}, "a10g", "a10g"),
        ({"resources": {"gpu": 1, "gpu_type": "a10g"}, "pool": "a10g-big"}, "a10g-big", "a10g"),
        ({"resources": {"gpu": 1}, "pool": "a10g-spot"}, "a10g-spot", "a10g"),
        ({"resources": {"gpu": 1}, "pool": "t4-spot"}, "t4-spot", "t4"),
    ],
)
def test_job_runs_in_named_pool_or_first_that_is_not_spot(
    wanted: dict[str, Any], pool: str, gpu_type: str | None
) -> None:
    passed = admit(SPOT, **wanted)
    assert (passed.pool, passed.spec.pool, passed.spec.resources.gpu_type) == (pool, pool, gpu_type)
    assert passed.price.rate_card.startswith(f"{pool}/")


@pytest.mark.parametrize(
    ("wanted", "code", "hint"),
    [
        ({"pool": "a10g-spott"}, "unknown_pool", "choose one of: cpu, cpu-spot"),
        ({"pool": "a10g"}, "pool_mismatch", "choose one of: cpu, cpu-spot, or ask for resources.gpu of at least 1"),
        ({"pool": "cpu", "resources": {"gpu": 1, "gpu_type": "t4"}}, "pool_mismatch", "choose one of: t4-spot"),
        ({"pool": "a10g", "resources": {"gpu": 1, "gpu_type": "h100"}}, "pool_mismatch", "choose one of: h100"),
        ({"resources": {"gpu": 1, "gpu_type": "t4"}}, "required", "choose one of: t4-spot"),
        ({"pool": "-"}, "malformed", "write it as a10g"),
        ({"pool": "x" * 64}, "malformed", "write it as a10g"),
        ({"pool": 1}, "wrong_type", "put it in quotes"),
        ({"pool": ["cpu"]}, "wrong_type", "put it in quotes"),
    ],
)
def test_pool_that_cannot_run_the_job_is_refused(wanted: dict[str, Any], code: str, hint: str) -> None:
    (found,) = refuse(SPOT, **wanted)
    assert (found.field, found.code, found.hint) == ("pool", code, hint)


def test_unknown_pool_and_unknown_gpu_type_are_reported_together() -> None:
    found = refuse(SPOT, pool="none", resources={"gpu": 1, "gpu_type": "v100"})
    assert codes(found) == {("resources.gpu_type", "unknown_gpu_type"), ("pool", "unknown_pool")}


def test_spot_pool_refuses_a_grace_period_longer_than_its_notice() -> None:
    long = policy(("max: 120, default: 30", "max: 600, default: 300"), ("memory: 64Gi}", "memory: 64Gi, spot: true}"))
    (found,) = refuse(long, pool="cpu", grace_period_seconds=121)
    assert (found.field, found.code, found.observed, found.limit) == ("grace_period_seconds", "too_large", "121", "120")
    assert admit(long, pool="cpu", grace_period_seconds=120).spec.grace_period_seconds == 120
    assert admit(long, pool="cpu").spec.grace_period_seconds == 120  # The policy's default is longer.


SHARED = policy(("gpu_type: a10g}", 'gpu_type: a10g, per_gpu: {cpu: "12", memory: 48Gi}}'))


def on_a10g(gpu: int, cpu: str, memory: str = "1Gi") -> dict[str, Any]:
    return {"resources": {"gpu": gpu, "gpu_type": "a10g", "cpu": cpu, "memory": memory}}


def test_job_that_would_strand_gpus_is_refused_with_what_fits() -> None:
    wide = policy(
        ('max: "16"', 'max: "48"'), ("gpu_type: a10g}", 'gpu_type: a10g, per_gpu: {cpu: "12", memory: 48Gi}}')
    )
    cpu, memory = refuse(wide, **on_a10g(1, "46", "49Gi"))
    assert (cpu.field, cpu.code, cpu.observed, cpu.limit) == ("resources.cpu", "over_gpu_share", "46", "12")
    assert cpu.message == "would strand GPUs: pool a10g allows 12 for each GPU"
    assert cpu.hint == "ask for at most 12, or for 4 GPUs"
    assert (memory.field, memory.code, memory.limit) == ("resources.memory", "over_gpu_share", "48Gi")
    assert memory.hint == "ask for at most 48Gi, or for 2 GPUs"
    admit(wide, **on_a10g(1, "12", "48Gi"))
    admit(wide, **on_a10g(4, "48", "128Gi"))


def test_gpu_share_hint_offers_no_more_gpus_than_a_node_has() -> None:
    small = policy(("gpu_type: a10g}", "gpu_type: a10g, per_gpu: {cpu: 500m, memory: 48Gi}}"))
    (found,) = refuse(small, **on_a10g(4, "3"))
    assert found.hint == "ask for at most 2"


def test_pool_without_gpu_share_is_unbounded() -> None:
    admit(**on_a10g(1, "16", "128Gi"))


def test_more_gpus_or_cpu_than_a_node_is_reported_once() -> None:
    assert codes(refuse(SHARED, **on_a10g(1, "49"))) == {
        ("resources.cpu", "too_large"),
        ("resources.cpu", "never_fits"),
    }
    assert codes(refuse(SHARED, **on_a10g(5, "16"))) == {
        ("resources.gpu", "too_large"),
        ("resources.gpu", "never_fits"),
    }


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 16_000), st.integers(1 << 25, 1 << 37)), max_size=12))
def test_job_within_its_gpu_shares_fits_wherever_its_gpus_are_free(jobs: list[tuple[int, int, int]]) -> None:
    """No GPU is stranded: on a node with enough free GPUs there is enough CPU and memory for any admitted job."""
    pool = SHARED.pools["a10g"]
    free_gpu, free_cpu, free_memory = pool.gpu, pool.cpu, pool.memory
    for gpu, cpu, memory in jobs:
        try:
            passed = admit(SHARED, **on_a10g(gpu, f"{max(cpu, 100)}m", str(memory)))
        except InvalidSpec:
            continue
        if gpu > free_gpu:
            continue
        free_gpu -= gpu
        free_cpu -= passed.spec.resources.cpu
        free_memory -= passed.spec.resources.memory
        assert free_cpu >= 0
        assert free_memory >= 0


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
        ("docker.io/python:3", "docker.io/library/python"),
        ("Docker.io/python", "docker.io/library/python"),
        ("ghcr.io/acme/train:1", "ghcr.io/acme/train"),
        ("localhost/x", "localhost/x"),
        ("registry:5000/x:1", "registry:5000/x"),
        ("GHCR.io/acme/train", "ghcr.io/acme/train"),
        ("Registry/x", "registry/x"),
        (f"python@sha512:{'0' * 128}", "docker.io/library/python"),
    ],
)
def test_canonical_repository_matches_the_pulled_image(image: str, repository: str) -> None:
    assert canonical_repository(image) == repository


@pytest.mark.parametrize(
    "allowed", ["docker.io/python", "docker.io/library/python", "docker.io/library/*", "docker.io/*"]
)
@pytest.mark.parametrize("image", ["python:3", "docker.io/python:3", "docker.io/library/python:3"])
def test_official_image_is_allowed_by_each_of_its_names(image: str, allowed: str) -> None:
    text = ('allow: ["runway.local/*", "docker.io/library/*", "ghcr.io/acme/train"]', f'allow: ["{allowed}"]')
    assert admit(policy(text), image=image).spec.image == image


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
        f"GHCR.IO/acme/train@sha512:{'a' * 128}",
    ],
)
def test_allowed_image_is_valid(image: str) -> None:
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
def test_other_image_is_refused_with_the_allowed_patterns(image: str) -> None:
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
def test_job_goes_to_the_pool_of_its_gpu_type(
    held_against: Policy, asked: dict[str, Any], pool: str, gpu_type: str | None
) -> None:
    passed = admit(held_against, resources=asked)
    assert (passed.pool, passed.spec.resources.gpu_type) == (pool, gpu_type)


def test_job_without_gpu_goes_to_first_pool_without_gpus() -> None:
    second = '  tiny: {instance_type: m6i.large, hourly_usd: "0.096", cpu: "2", memory: 8Gi}\n'
    assert admit(policy(("  a10g:", f"{second}  a10g:"))).pool == "cpu"
    assert admit(policy(("pools:\n", f"pools:\n{second}"))).pool == "tiny"


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
def test_job_without_a_matching_pool_is_refused(
    held_against: Policy, asked: dict[str, Any], field: str, code: str
) -> None:
    (found,) = refuse(held_against, resources=asked)
    assert (found.field, found.code) == (field, code)
    assert found.hint


def test_unknown_gpu_type_lists_the_offered_types() -> None:
    (found,) = refuse(resources={"gpu": 1, "gpu_type": "v100"})
    assert (found.observed, found.limit, found.hint) == ("v100", "a10g, h100", "choose one of: a10g, h100")


def test_resources_above_node_size_never_fit() -> None:
    small = policy(('cpu: "48", memory: 192Gi, gpu: 4', 'cpu: "4", memory: 16Gi, gpu: 1'))
    found = refuse(small, resources={"cpu": "5", "memory": "17Gi", "gpu": 2, "gpu_type": "a10g"})
    assert {(item.field, item.code, item.observed, item.limit) for item in found} == {
        ("resources.cpu", "never_fits", "5", "4"),
        ("resources.memory", "never_fits", "17Gi", "16Gi"),
        ("resources.gpu", "never_fits", "2", "1"),
    }
    assert all("g5.12xlarge" in item.message for item in found)


def test_job_above_its_cost_cap_is_refused_with_the_price() -> None:
    ceiling = admit().price.ceiling
    assert admit(max_cost_usd=ceiling).price.ceiling == ceiling
    (found,) = refuse(max_cost_usd=str(Decimal(ceiling) - Decimal("0.000001")))
    assert (found.field, found.code) == ("max_cost_usd", "over_max_cost")
    assert found.observed == ceiling


def test_ceiling_covers_timeout_and_grace_period() -> None:
    price = admit(timeout_seconds=3540, grace_period_seconds=60).price
    assert price.ceiling == price.hourly
    (found,) = refuse(timeout_seconds=3540, grace_period_seconds=61, max_cost_usd=price.hourly)
    assert found.message == f"the job could cost more: {price.hourly} USD an hour for up to 3540 s and 61 s of grace"
    assert str(found.hint).startswith("lower timeout_seconds to at most 3539,")


@given(st.integers(10, 86_400), st.integers(1, 10**7), st.integers(100, 16_000))
def test_timeout_from_cost_hint_is_valid(timeout: int, millionths: int, cpu: int) -> None:
    cap = f"{Decimal(millionths).scaleb(-6):f}"
    changes: dict[str, Any] = {"timeout_seconds": timeout, "max_cost_usd": cap, "resources": {"cpu": f"{cpu}m"}}
    try:
        admit(**changes)
    except InvalidSpec as error:
        (found,) = error.violations
        named = re.search(r"timeout_seconds to at most (\d+)", found.hint or "")
        if named is not None:
            admit(**{**changes, "timeout_seconds": int(named[1])})


def test_violations_of_form_bounds_pool_fit_and_cost_come_at_once() -> None:
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


TENANTS = policy(
    (
        "    rate: {per_minute: 600, burst: 100}\n",
        """    rate: {per_minute: 600, burst: 100}
    volumes: {datasets: {claim: datasets, path: /data}, checkpoints: {claim: checkpoints, path: /checkpoints}}
    secrets: [huggingface, wandb]
    images: {allow: ["registry.example.com/vision/*"]}
""",
    )
)
"""Only vision has volumes, Secrets and images of its own."""
OWN_IMAGE = "registry.example.com/vision/train:1"


def refuse_as(tenant: str, **changes: Any) -> Violation:
    """Return the only violation of a tenant's small valid document with changes."""
    with pytest.raises(InvalidSpec) as caught:
        validate(read_draft(document(**changes)), TENANTS, tenant)
    (found,) = caught.value.violations
    return found


def test_volumes_and_secrets_of_the_tenant_are_admitted() -> None:
    secrets = {"HF_TOKEN": "huggingface/token", "WANDB_API_KEY": "wandb/key"}  # pragma: allowlist secret
    spec = admit(TENANTS, image=OWN_IMAGE, volumes=["checkpoints", "datasets"], secrets=secrets).spec
    assert spec.volumes == ("checkpoints", "datasets")
    assert dict(spec.secrets) == secrets


def test_unknown_volume_is_refused_with_those_of_the_tenant() -> None:
    found = refuse_as("vision", image=OWN_IMAGE, volumes=["datasets", "models"])
    assert (found.field, found.code, found.observed) == ("volumes[1]", "unknown_volume", "models")
    assert found.hint == "choose one of: datasets, checkpoints"


def test_unknown_secret_is_refused_with_those_of_the_tenant() -> None:
    found = refuse_as("vision", image=OWN_IMAGE, secrets={"A": "huggingface/any", "B": "runway-grafana/admin-password"})
    assert (found.field, found.code, found.observed) == ("secrets[B]", "unknown_secret", "runway-grafana")
    assert found.hint == "choose one of: huggingface, wandb"


def test_malformed_variable_hides_no_violation_of_another() -> None:
    big, unknown_capability = "x" * MAX_ENV_BYTES, {"NVIDIA_DRIVER_CAPABILITIES": "all,root"}
    found = refuse(
        env={"A=B": 1, "DB_PASSWORD": "x", "TOKEN": "x"} | unknown_capability,
        secrets={"A": "/", "B": "runway-grafana/password", "TOKEN": "a/b"},
    )
    assert {(each.field, each.code) for each in found} == {
        ("env[A=B]", "malformed"),
        ("env[A=B]", "wrong_type"),
        ("env", "malformed"),  # The capability.
        ("secrets[A]", "malformed"),
        ("secrets[B]", "unknown_secret"),
        ("secrets[TOKEN]", "unknown_secret"),
    }
    found = refuse(env={"A=B": "x", "BIG": big})
    assert {(each.field, each.code) for each in found} == {("env[A=B]", "malformed"), ("env", "too_large")}
    found = refuse(env={"A=B": "x", "DB_PASSWORD": "x"}, secrets={"DB_PASSWORD": "a/b", "C": None})
    assert {(each.field, each.code) for each in found} == {
        ("env[A=B]", "malformed"),
        ("env[DB_PASSWORD]", "secret_in_env"),
        ("secrets[DB_PASSWORD]", "duplicate"),
        ("secrets[DB_PASSWORD]", "unknown_secret"),
        ("secrets[C]", "wrong_type"),
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"volumes": ["datasets"]}, "unknown_volume"), ({"secrets": {"A": "huggingface/token"}}, "unknown_secret")],
)
def test_references_of_another_tenant_are_refused_without_their_names(changes: dict[str, Any], code: str) -> None:
    found = refuse_as("speech", **changes)
    assert found.code == code
    assert "ask the platform operators" in (found.hint or "")
    assert not {"checkpoints", "wandb"} & set((found.hint or "").split())


def test_hint_lists_at_most_ten_names() -> None:
    names = ", ".join(f"secret-{at}" for at in range(12))
    many = policy(("    rate: {per_minute: 600", f"    secrets: [{names}]\n    rate: {{per_minute: 600"))
    (found,) = refuse(many, secrets={"A": "other/key"})
    assert (found.hint or "").endswith("secret-9 and 2 more")


def test_own_images_of_a_tenant_replace_the_common_ones() -> None:
    admit(TENANTS, image=OWN_IMAGE)
    found = refuse_as("vision", image="runway.local/train:1")
    assert (found.code, found.limit) == ("image_not_allowed", "registry.example.com/vision/*")
    assert refuse_as("speech", image=OWN_IMAGE).code == "image_not_allowed"


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
        "GITHUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "API_KEY", "DB_PASSWORD", "PASSWORD", "password",
        "PGPASSWORD", "AZURE_CLIENT_SECRET", "S3_SECRET_KEY", "NEPTUNE_API_TOKEN", "SLACK_ACCESS_TOKEN",
        "SSH_PRIVATE_KEY", "MINIO_SECRET_ACCESS_KEY", "DB_PASS", "MYSQL_PASSWD", "NPM_TOKEN",
    ],
)  # fmt: skip
def test_credential_in_env_is_refused_without_its_value(name: str) -> None:
    (found,) = refuse(env={name: "geheim", "EPOCHS": "3"})
    assert (found.field, found.code, found.observed) == (f"env[{name}]", "secret_in_env", None)
    assert "secrets" in (found.hint or "")


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "TOKEN_LIMIT", "EOS_TOKEN", "PAD_TOKEN", "KEY_COLUMN", "SORT_KEY",
        "PASSWORD_MIN_LENGTH", "HF_TOKEN_PATH", "SECRETS_DIR", "AWS_REGION", "API_KEY_FILE", "XPASSWORD", "AUTHOR",
        "FORWARD_PASS",
    ],
)  # fmt: skip
def test_other_names_are_no_credentials(name: str) -> None:
    assert admit(env={name: "1"}).spec.env == ((name, "1"),)


def test_policy_can_allow_credentials_in_env() -> None:
    allowing = policy(("retries: {max: 3}", "retries: {max: 3}\n  secrets_in_env: allow"))
    assert admit(allowing, env={"HF_TOKEN": "geheim"}).spec.env == (("HF_TOKEN", "geheim"),)


def test_malformed_field_has_one_violation() -> None:
    assert codes(refuse(image=1, timeout_seconds="x", retries="x", resources={"gpu": "x", "cpu": "x"})) == {
        ("image", "wrong_type"),
        ("timeout_seconds", "wrong_type"),
        ("retries", "wrong_type"),
        ("resources.gpu", "wrong_type"),
        ("resources.cpu", "malformed"),
    }
    assert codes(refuse(resources="all")) == {("resources", "wrong_type")}


def test_many_unknown_fields_do_not_hide_other_violations() -> None:
    found = refuse(resources={**{f"x{i}": 1 for i in range(30)}, "gpu": 1, "gpu_type": "v100"})
    assert ("resources.gpu_type", "unknown_gpu_type") in codes(found)


CONTROLS = "\x01\x1f" * 3000  # Six bytes each in JSON: 36,000 bytes.


def test_texts_that_escaping_makes_too_large_for_an_annotation_are_refused() -> None:
    admit(command=[CONTROLS] * 2, args=[CONTROLS] * 2, env={"A": CONTROLS})
    [found] = refuse(command=[CONTROLS] * 2, args=[CONTROLS] * 2, env={"A": CONTROLS * 2})
    assert (found.field, found.code) == ("body", "too_large")
    assert re.fullmatch("216[0-9]{3} bytes", found.observed or "")
    assert found.limit == "212992 bytes"
    assert found.hint


@pytest.mark.parametrize("text", ["\n", '"', "\\", "é", "x"])
def test_texts_without_control_characters_fit_at_their_own_limits(text: str) -> None:
    texts = [text * (MAX_STRING_BYTES // len(text.encode()) // MAX_STRINGS)] * MAX_STRINGS
    value = text * ((MAX_ENV_BYTES // MAX_ENV - len("V100")) // len(text.encode()))
    admit(command=texts, args=texts, env={f"V{number}": value for number in range(MAX_ENV)})


def test_size_is_reported_beside_all_other_violations() -> None:
    found = refuse(image="evil.example/x", retries=99, command=[CONTROLS] * 5, args=[CONTROLS] * 5)
    assert codes(found) == {("body", "too_large"), ("image", "image_not_allowed"), ("retries", "too_large")}
