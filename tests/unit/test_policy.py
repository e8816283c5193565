"""The policy file: the shipped one means what the documents say, and a faulty one is refused by the field's name."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from runway.errors import PolicyError
from runway.policy import Policy, load_policy, parse_policy
from runway.yaml_loader import MAX_FILE_BYTES
from tests.support.builders import policy, policy_text

SHIPPED = Path(__file__).parents[2] / "config" / "policy.local.yaml"
GIB = 1 << 30
CPU = 'cpu: {min: 100m, max: "16"}'


def faults(*edits: tuple[str, str]) -> list[tuple[str, str]]:
    """The faults that are found once the policy is edited."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(policy_text(*edits))
    return caught.value.faults


def test_the_local_policy_has_exactly_the_tenants_quotas_and_rates_of_the_contract() -> None:
    shipped = load_policy(SHIPPED)
    assert {
        name: (
            tenant.namespace,
            (tenant.quota.gpu, tenant.quota.cpu, tenant.quota.memory, tenant.quota.jobs),
            (tenant.rate.per_minute, tenant.rate.burst),
        )
        for name, tenant in shipped.tenants.items()
    } == {
        "vision": ("runway-vision", (4, 32_000, 128 * GIB, 100), (600, 100)),
        "speech": ("runway-speech", (2, 16_000, 64 * GIB, 50), (6, 5)),
        "research": ("runway-research", (0, 8_000, 32 * GIB, 20), (60, 20)),
    }


def test_the_local_policy_has_the_bounds_images_and_prices_of_the_contract() -> None:
    shipped = load_policy(SHIPPED)
    limits = shipped.limits
    assert (limits.cpu.min, limits.cpu.max) == (100, 16_000)
    assert (limits.memory.min, limits.memory.max) == (32 << 20, 128 * GIB)
    assert limits.gpu.max == 4
    timeout = limits.timeout_seconds
    assert (timeout.min, timeout.max, timeout.default) == (1, 86_400, 3600)
    assert (limits.grace_period_seconds.max, limits.grace_period_seconds.default) == (120, 30)
    assert limits.retries.max == 3
    assert shipped.images.allow == ("runway.local/*", "docker.io/library/*")
    assert {name: (p.instance_type, p.hourly_usd, p.cpu, p.memory, p.gpu) for name, p in shipped.pools.items()} == {
        "cpu": ("m6i.4xlarge", Decimal("0.768"), 16_000, 64 * GIB, 0),
        "a10g": ("g5.12xlarge", Decimal("5.672"), 48_000, 192 * GIB, 4),
    }


def test_disk_and_retention_have_defaults() -> None:
    limits = policy().limits
    assert limits.ephemeral_storage.per_job == 10 * GIB
    assert limits.retention_seconds == 86_400


@pytest.mark.parametrize(
    "edit",
    [
        (CPU, 'cpu: {min: 1m, max: "16"}'),
        (CPU, 'cpu: {min: "16", max: "16"}'),
        ("min: 10, max: 86400, default: 3600", "min: 1, max: 1, default: 1"),
        ("max: 120, default: 30", "max: 30, default: 30"),
        ("retries: {max: 3}", "retries: {max: 0}"),
        ("gpu: {max: 4}", "gpu: {max: 0}"),
        ("quota: {gpu: 4,", "quota: {gpu: 0,"),
    ],
)
def test_bounds_may_be_as_narrow_as_one_value(edit: tuple[str, str]) -> None:
    policy(edit)


def test_a_loaded_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().tenants["vision"].quota.gpu = 99  # type: ignore[misc]


FAULTS = {
    "a missing section": (("images:\n  allow:", "x_images:\n  allow:"), "images", "required"),
    "an unknown section": (("version: 1\n", "version: 1\nquota: {}\n"), "quota", "not permitted"),
    "an unknown field": (("retries: {max: 3}", "retries: {max: 3, min: 0}"), "limits.retries.min", "not permitted"),
    "another version": (("version: 1", "version: 2"), "version", "1"),
    "a version in quotes": (("version: 1", 'version: "1"'), "version", "integer"),
    "a version of true": (("version: 1", "version: true"), "version", "integer"),
    "an allowed image without a registry": (
        ('"docker.io/library/*"', '"python"'),
        "images.allow",
        "start with a registry",
    ),
    "a bare number for a quantity": (
        (CPU, "cpu: {min: 100m, max: 16}"),
        "limits.cpu.max",
        'quoted quantity, for example "16"',
    ),
    "a float for a quantity": ((CPU, 'cpu: {min: 0.5, max: "16"}'), "limits.cpu.min", "quoted quantity"),
    "a number YAML reads as octal": ((CPU, 'cpu: {min: 0100, max: "16"}'), "limits.cpu.min", "quoted quantity"),
    "not a quantity": ((CPU, 'cpu: {min: 100m, max: "1_000"}'), "limits.cpu.max", "not a Kubernetes quantity"),
    "memory in thousandths": (("min: 32Mi", "min: 32m"), "limits.memory.min", "Mi means mebibytes"),
    "CPU below 1m": ((CPU, 'cpu: {min: 1u, max: "16"}'), "limits.cpu.min", "finer than 1m"),
    "CPU min above max": ((CPU, 'cpu: {min: "17", max: "16"}'), "limits.cpu", "min <= max"),
    "CPU min of 0": ((CPU, 'cpu: {min: "0", max: "16"}'), "limits.cpu", "0 < min"),
    "memory min above max": (("min: 32Mi", "min: 129Gi"), "limits.memory", "min <= max"),
    "a default timeout below min": (("default: 3600", "default: 9"), "limits.timeout_seconds", "min <= default <= max"),
    "a default timeout above max": (
        ("default: 3600", "default: 86401"),
        "limits.timeout_seconds",
        "min <= default <= max",
    ),
    "a default grace above max": (("max: 120", "max: 29"), "limits.grace_period_seconds", "default is above max"),
    "a YAML no": (("retries: {max: 3}", "retries: {max: no}"), "limits.retries.max", "integer"),
    "a YAML yes": (("gpu: {max: 4}", "gpu: {max: yes}"), "limits.gpu.max", "integer"),
    "a float for an integer": (("max: 86400", "max: 1e5"), "limits.timeout_seconds.max", "integer"),
    "a number of 5000 digits": (("max: 86400", f"max: {'9' * 5000}"), "limits.timeout_seconds.max", "integer"),
    "an empty section": (("gpu: {max: 4}", "gpu:"), "limits.gpu", "dictionary"),
    "a negative quota": (("jobs: 50", "jobs: -1"), "tenants.speech.quota.jobs", "greater than or equal to 0"),
    "a rate of 0": (
        ("per_minute: 6,", "per_minute: 0,"),
        "tenants.speech.rate.per_minute",
        "greater than or equal to 1",
    ),
    "a tenant that is no label": (("  speech:", "  Speech_2:"), "tenants.Speech_2", "match pattern"),
    "a namespace that is no label": (("runway-speech", '"a b"'), "tenants.speech.namespace", "match pattern"),
    "Runway's own namespace": (("runway-speech", "runway"), "tenants.speech.namespace", "not for tenants"),
    "a namespace of Kubernetes": (("runway-speech", "kube-system"), "tenants.speech.namespace", "not for tenants"),
    "a newline after a namespace": (
        ("runway-speech", '"runway-speech\\n"'),
        "tenants.speech.namespace",
        "match pattern",
    ),
    "no images": (
        ('["runway.local/*", "docker.io/library/*", "ghcr.io/acme/train"]', "[]"),
        "images.allow",
        "at least 1",
    ),
    "a star inside an image": (('"runway.local/*"', '"runway.*/x"'), "images.allow.0", "match pattern"),
    "every image": (('"runway.local/*"', '"*"'), "images.allow.0", "match pattern"),
    "GPUs without a type": ((", gpu_type: a10g", ""), "pools.a10g", "gpu and gpu_type go together"),
    "a type without GPUs": (
        (", gpu: 4, gpu_type: a10g", ", gpu_type: a10g"),
        "pools.a10g",
        "gpu and gpu_type go together",
    ),
    "a negative price": (('"0.768"', '"-0.768"'), "pools.cpu.hourly_usd", "above 0"),
    "a price of 0": (('"0.768"', '"0"'), "pools.cpu.hourly_usd", "above 0"),
    "a price of NaN": (('"0.768"', '"NaN"'), "pools.cpu.hourly_usd", "above 0"),
    "a price in words": (('"0.768"', '"cheap"'), "pools.cpu.hourly_usd", "amount in USD"),
    "a price with a currency": (('"0.768"', '"$0.768"'), "pools.cpu.hourly_usd", "amount in USD"),
    "a bare price": (('"0.768"', "0.768"), "pools.cpu.hourly_usd", "quoted amount"),
    "a price too fine": (('"0.768"', '"0.7680001"'), "pools.cpu.hourly_usd", "at most 6 decimals"),
    "a node without CPU": (('cpu: "48"', 'cpu: "0"'), "pools.a10g.cpu", "greater than 0"),
    "an endless retention": (
        ("  gpu: {max: 4}", "  gpu: {max: 4}\n  retention_seconds: 9999999"),
        "limits.retention_seconds",
        "less than",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_names_its_field(case: str) -> None:
    edit, field, message = FAULTS[case]
    found = faults(edit)
    assert any(name.startswith(field) and message in text for name, text in found), found


def test_every_fault_is_named_at_once() -> None:
    found = faults(("retries: {max: 3}", "retries: {max: no}"), ('"0.768"', "0.768"), ("jobs: 50", "jobs: -1"))
    assert [name for name, _ in found] == ["limits.retries.max", "pools.cpu.hourly_usd", "tenants.speech.quota.jobs"]


def test_two_pools_of_one_gpu_type_are_refused_by_name() -> None:
    ((field, message),) = faults(("gpu_type: h100", "gpu_type: a10g"))
    assert field == "pools"
    assert "gpu_type" in message
    assert "a10g" in message


def test_two_tenants_in_one_namespace_are_refused_by_name() -> None:
    ((field, message),) = faults(("runway-speech", "runway-vision"))
    assert field == "tenants"
    assert "runway-vision" in message


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (("max: 86400", "max: 0100000"), "limits.timeout_seconds.max"),
        (("max: 86400", "max: 24:00:00"), "limits.timeout_seconds.max"),
        (("jobs: 50", "jobs: 0100"), "tenants.speech.quota.jobs"),
    ],
    ids=["octal", "base 60", "octal quota"],
)
def test_an_integer_that_yaml_reads_as_another_is_refused(edit: tuple[str, str], field: str) -> None:
    found = faults(edit)
    assert any(name in (field, "file") for name, _ in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (policy_text(("  gpu: {max: 4}\n", "  gpu: {max: 4}\n  gpu: {max: 8}\n")), "'gpu' is given twice"),
        (policy_text(("version: 1\n", "version: 1\nversion: 1\n")), "'version' is given twice"),
        (policy_text(("  speech:", "  vision:")), "'vision' is given twice"),
        (policy_text(("  speech:", "  no:")), "False must be a string"),
        (policy_text(("  speech:", "  1:")), "1 must be a string"),
        (policy_text(("gpu: {max: 4}", "gpu: &four {max: 4}"), ("retries: {max: 3}", "retries: *four")), "aliases"),
        (policy_text(("gpu: {max: 4}", "gpu: {<<: {max: 4}}")), "merge"),
        (policy_text(("max: 86400", "max: 2001-99-99")), "month must be in 1..12 in"),
        (policy_text() + "---\nversion: 1\n", "single document"),
        ("!!python/object/apply:os.getcwd []", "tags are not used"),
        ("version: [1", "expected"),
        ("\tversion: 1", "cannot start any token"),
        ("[" * 5000, "nested deeper than 50 levels"),
        ("", "must be a mapping"),
        ("- version: 1", "must be a mapping"),
        ("just words", "must be a mapping"),
    ],
)  # fmt: skip
def test_what_is_not_plain_yaml_is_refused_where_it_stands(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused() -> None:
    with pytest.raises(PolicyError, match="unacceptable character"):
        parse_policy(b"version: \xff")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy\.yaml: cannot be read: No such file"):
        load_policy(tmp_path / "policy.yaml")


def test_a_directory_is_not_a_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is not a regular file"):
        load_policy(tmp_path)


def test_a_huge_file_is_refused_without_being_parsed(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(policy_text().encode().ljust(MAX_FILE_BYTES, b"#"))
    load_policy(path)
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PolicyError, match="is larger than"):
        load_policy(path)


ONLY_CPU = policy_text().split("  a10g:", maxsplit=1)[0] + "tenants:" + policy_text().split("tenants:")[1]


@pytest.mark.parametrize(
    ("loaded", "gpu", "gpu_type", "pool"),
    [
        (policy(), 0, None, "cpu"),
        (policy(), 1, "a10g", "a10g"),
        (policy(), 8, "h100", "h100"),
        (policy(), 1, "v100", None),
        (policy(), 1, None, None),  # two GPU pools: which one is meant cannot be told
        (load_policy(SHIPPED), 1, None, "a10g"),
        (parse_policy(ONLY_CPU), 0, None, "cpu"),
        (parse_policy(ONLY_CPU), 1, None, None),
    ],
)
def test_a_job_goes_to_the_pool_of_its_gpu_type(
    loaded: Policy, gpu: int, gpu_type: str | None, pool: str | None
) -> None:
    assert loaded.pool_for(gpu, gpu_type) == pool


def test_a_job_without_gpus_goes_to_the_first_pool_without_gpus() -> None:
    second = '  tiny: {instance_type: m6i.large, hourly_usd: "0.096", cpu: "2", memory: 8Gi}\n'
    assert policy(("  a10g:", f"{second}  a10g:")).pool_for(0, None) == "cpu"
    assert policy(("pools:\n", f"pools:\n{second}")).pool_for(0, None) == "tiny"


def test_the_gpu_types_on_offer_keep_the_order_of_the_file() -> None:
    assert policy().gpu_types == ("a10g", "h100")
