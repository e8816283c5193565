"""Policy file: documented values in the shipped one, and faults by field."""

from __future__ import annotations

import copy
import functools
import json
import re
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runway.errors import PolicyError, PolicyFault
from runway.policy import load_policy, parse_policy, policy_hash
from runway.quantity import parse_bytes
from runway.yaml_loader import MAX_FILE_BYTES
from tests.support.builders import policy, policy_text

SHIPPED = Path(__file__).parents[2] / "config" / "policy.local.yaml"
GIB = 1 << 30
RETRIES = "retries: {max: 3}"
CPU = 'cpu: {min: 100m, max: "16"}'


def faults(*edits: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the faults of the edited policy: field and text."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(policy_text(*edits))
    return [(fault.field, str(fault)) for fault in caught.value.faults]


RATE = "    rate: {per_minute: 6, burst: 5}\n"


def own(text: str) -> tuple[str, str]:
    """Return the edit that gives fields to tenant speech."""
    return RATE, RATE + "".join(f"    {line}\n" for line in text.splitlines())


def test_shipped_policy_has_documented_tenants_quotas_and_rates() -> None:
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


def test_shipped_policy_has_documented_limits_images_and_prices() -> None:
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
        "cpu": ("m6i.large", Decimal("0.096"), 2_000, 4 * GIB, 0),
        "large": ("m6i.4xlarge", Decimal("0.768"), 16_000, 64 * GIB, 0),
        "a10g": ("g5.12xlarge", Decimal("5.672"), 2_000, 4 * GIB, 4),
    }


def test_storage_and_retention_have_defaults() -> None:
    limits = policy().limits
    assert (limits.disk.min, limits.disk.max, limits.disk.default) == (GIB, 10 * GIB, 10 * GIB)
    assert limits.retention_seconds == 86_400


def test_user_range_has_defaults() -> None:
    user = policy().limits.user
    assert (user.min, user.max, user.default) == (1, 65_535, 1000)
    assert policy((RETRIES, f"{RETRIES}\n  user: {{max: 2000}}")).limits.user.max == 2000


def test_start_timeouts_have_no_limit_by_default() -> None:
    """As in version 0.7. A limit may also be null."""
    assert set(policy().limits.start_timeout_seconds.model_dump().values()) == {None}
    some = policy((RETRIES, f"{RETRIES}\n  start_timeout_seconds: {{image: 300, unschedulable: null}}"))
    assert some.limits.start_timeout_seconds.model_dump() == {
        "image": 300, "registry": None, "config": None, "unschedulable": None
    }  # fmt: skip


@pytest.mark.parametrize(
    "limit",
    ["image: 0", "image: -5", "image: 31536001", 'registry: "300"', "config: 1.5", "unschedulable: true", "gpu: 5"],
)
def test_impossible_start_timeout_is_a_fault_that_names_its_field(limit: str) -> None:
    ((field, _),) = faults((RETRIES, f"{RETRIES}\n  start_timeout_seconds: {{{limit}}}"))
    assert field == f"limits.start_timeout_seconds.{limit.partition(':')[0]}"


@pytest.mark.parametrize(("size", "least"), [("10Gi", GIB), ("512Mi", 512 << 20)])
def test_disk_limit_of_version_0_7_is_the_one_size_of_every_job(size: str, least: int) -> None:
    disk = policy((RETRIES, f"{RETRIES}\n  ephemeral_storage: {{per_job: {size}}}")).limits.disk
    assert (disk.min, disk.max, disk.default) == (least, parse_bytes(size), parse_bytes(size))


@pytest.mark.parametrize(
    "edit",
    [
        (RETRIES, RETRIES + "\n  disk: {min: 1Gi, max: 1Gi, default: 1Gi}"),
        (RETRIES, RETRIES + "\n  user: {min: 1000, max: 1000}"),
        (CPU, 'cpu: {min: 1m, max: "16"}'),
        (CPU, 'cpu: {min: "16", max: "16"}'),
        ("min: 10, max: 86400, default: 3600", "min: 1, max: 1, default: 1"),
        ("max: 120, default: 30", "max: 30, default: 30"),
        ("retries: {max: 3}", "retries: {max: 0}"),
        ("gpu: {max: 4}", "gpu: {max: 0}"),
        ("quota: {gpu: 4,", "quota: {gpu: 0,"),
    ],
)
def test_range_of_one_value_is_valid(edit: tuple[str, str]) -> None:
    policy(edit)


def test_optional_limits_of_tenants() -> None:
    quota = 'quota: {gpu: 2, gpu_types: {a10g: 2, h100: 0}, disk: 2Ti, usd_per_hour: "20.5",'
    text = policy_text(("quota: {gpu: 2,", quota), ("jobs: 50}", 'jobs: 50}\n    budget: {usd: "300", hours: 24}'))
    vision, speech = parse_policy(text).tenants.values()
    assert (vision.quota.disk, vision.quota.gpu_types, vision.quota.usd_per_hour, vision.budget) == (
        None,
        {},
        None,
        None,
    )
    assert (speech.quota.disk, speech.quota.gpu_types) == (2 << 40, {"a10g": 2, "h100": 0})
    assert speech.budget is not None
    assert (speech.quota.usd_per_hour, speech.budget.usd, speech.budget.hours) == (20_500_000, 300_000_000, 24)
    assert speech.model_dump(mode="json")["budget"] == {"usd": "300", "hours": 24}


def test_budgets_may_last_as_long_as_finished_jobs_exist() -> None:
    parse_policy(policy_text(("jobs: 50}", 'jobs: 50}\n    budget: {usd: "300", hours: 24}')))


def test_references_of_a_tenant_have_empty_defaults_and_credentials_are_refused() -> None:
    tenant = policy().tenants["vision"]
    assert (tenant.volumes, tenant.secrets, tenant.image_pull_secrets, tenant.images) == ({}, (), (), None)
    assert (tenant.service_account.annotations, tenant.service_account.pod_identity) == ({}, False)
    assert policy().limits.secrets_in_env == "refuse"


def test_references_of_a_tenant_are_read() -> None:
    text = """volumes:
  datasets: {claim: datasets.v2, path: /mnt/data, read_only: true}
  models: {claim: models, path: /mnt/data-models}
secrets: [huggingface, wandb]
service_account:
  annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::123456789012:role/speech"}
  pod_identity: true
image_pull_secrets: [registry-credentials]
images: {allow: ["registry.example.com/speech/*"]}"""
    speech = policy(own(text)).tenants["speech"]
    assert [(name, v.claim, v.path, v.read_only) for name, v in speech.volumes.items()] == [
        ("datasets", "datasets.v2", "/mnt/data", True),
        ("models", "models", "/mnt/data-models", False),
    ]
    assert (speech.secrets, speech.image_pull_secrets) == (("huggingface", "wandb"), ("registry-credentials",))
    assert speech.service_account.pod_identity
    assert policy(own(text)).images_of("speech").allow == ("registry.example.com/speech/*",)
    assert policy(own(text)).images_of("vision") == policy().images


_COMPONENT = st.from_regex(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,3}", fullmatch=True)
_PATHS = st.lists(_COMPONENT, min_size=1, max_size=3).map(lambda parts: "/".join(["/mnt", *parts]))


@given(st.lists(_PATHS, min_size=2, max_size=6))
def test_no_volume_is_at_or_below_another(paths: list[str]) -> None:
    nested = any(
        at != other and PurePosixPath(path).is_relative_to(below)
        for at, path in enumerate(paths)
        for other, below in enumerate(paths)
    )
    text = ", ".join(f'v{at}: {{claim: a, path: "{path}"}}' for at, path in enumerate(paths))
    with pytest.raises(PolicyError) if nested else nullcontext():
        policy(own(f"volumes: {{{text}}}"))


@pytest.mark.parametrize(
    ("edit", "is_same"),
    [
        (("version: 1\n", "version: 1  # a comment\n"), True),
        (("  retries: {max: 3}\n", "  retries:\n    max: 3\n  retention_seconds: 86400\n"), True),
        (("  cpu: {min: 100m,", '  cpu: {min: "0.1",'), True),
        (('"0.768"', '"0.7680"'), True),
        (("retries: {max: 3}", "retries: {max: 2}"), False),
        (("  cpu: {instance_type", "  small: {instance_type"), False),
        (own("secrets: [huggingface]"), False),
    ],
)
def test_hash_is_that_of_the_meaning(edit: tuple[str, str], is_same: bool) -> None:
    assert (policy_hash(policy(edit)) == policy_hash(policy())) is is_same


def test_hash_does_not_depend_on_the_order_of_a_list() -> None:
    one, other = (own(f"images: {{allow: {names}}}") for names in ("[g.io/a, g.io/b]", "[g.io/b, g.io/a]"))
    assert policy_hash(policy(one)) == policy_hash(policy(other))


def test_hash_depends_on_the_order_of_pools_and_not_of_tenants() -> None:
    document = yaml.safe_load(policy_text())
    pools, tenants = (dict(reversed(document[name].items())) for name in ("pools", "tenants"))
    first, other, same = (
        policy_hash(parse_policy(yaml.safe_dump(document | change, sort_keys=False)))
        for change in ({}, {"pools": pools}, {"tenants": tenants})
    )
    assert first == same
    assert first != other


def test_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().tenants["vision"].quota.gpu = 99  # type: ignore[misc]


FAULTS = {
    "a missing section": (("images:\n  allow:", "x_images:\n  allow:"), "images", "required"),
    "an unknown section": (("version: 1\n", "version: 1\nquota: {}\n"), "quota", "is not a field of"),
    "an unknown field": (("retries: {max: 3}", "retries: {max: 3, min: 0}"), "limits.retries.min", "is not a field of"),
    "another version": (("version: 1", "version: 2"), "version", "must be 1"),
    "a version in quotes": (("version: 1", 'version: "1"'), "version", "whole number"),
    "a version of true": (("version: 1", "version: true"), "version", "whole number"),
    "an allowed image without a registry": (
        ('"docker.io/library/*"', '"python"'),
        "images.allow",
        "start with a registry",
    ),
    "a bare number for a quantity": (
        (CPU, "cpu: {min: 100m, max: 16}"),
        "limits.cpu.max",
        'write it as "16"',
    ),
    "a float for a quantity": ((CPU, 'cpu: {min: 0.5, max: "16"}'), "limits.cpu.min", "in quotes"),
    "a number YAML reads as octal": ((CPU, 'cpu: {min: 0100, max: "16"}'), "limits.cpu.min", "in quotes"),
    "not a quantity": ((CPU, 'cpu: {min: 100m, max: "1_000"}'), "limits.cpu.max", "not a Kubernetes quantity"),
    "memory in thousandths": (("min: 32Mi", "min: 32m"), "limits.memory.min", "Mi means mebibytes"),
    "CPU below 1m": ((CPU, 'cpu: {min: 1u, max: "16"}'), "limits.cpu.min", "finer than 1m"),
    "CPU min above max": ((CPU, 'cpu: {min: "17", max: "16"}'), "limits.cpu", "at most max"),
    "CPU min of 0": ((CPU, 'cpu: {min: "0", max: "16"}'), "limits.cpu", "above 0"),
    "memory min above max": (("min: 32Mi", "min: 129Gi"), "limits.memory", "at most max"),
    "a default timeout below min": (
        ("default: 3600", "default: 9"),
        "limits.timeout_seconds",
        "must be from min 10 to max 86400",
    ),
    "a default timeout above max": (
        ("default: 3600", "default: 86401"),
        "limits.timeout_seconds",
        "must be from min 10 to max 86400",
    ),
    "a default grace above max": (("max: 120", "max: 29"), "limits.grace_period_seconds", "default 30 is above max 29"),
    "a YAML no": (("retries: {max: 3}", "retries: {max: no}"), "limits.retries.max", "whole number"),
    "a YAML yes": (("gpu: {max: 4}", "gpu: {max: yes}"), "limits.gpu.max", "whole number"),
    "a float for an integer": (("max: 86400", "max: 1e5"), "limits.timeout_seconds.max", "whole number"),
    "a number of 5000 digits": (("max: 86400", f"max: {'9' * 5000}"), "limits.timeout_seconds.max", "whole number"),
    "an empty section": (("gpu: {max: 4}", "gpu:"), "limits.gpu", "must be a mapping"),
    "a negative quota": (("jobs: 50", "jobs: -1"), "tenants.speech.quota.jobs", "at least 0"),
    "a rate of 0": (
        ("per_minute: 6,", "per_minute: 0,"),
        "tenants.speech.rate.per_minute",
        "at least 1",
    ),
    "a tenant that is no label": (
        ("  speech:", "  Speech_2:"),
        "tenants.Speech_2",
        "with a letter or digit at both ends",
    ),
    "a namespace that is no label": (
        ("runway-speech", '"a b"'),
        "tenants.speech.namespace",
        "with a letter or digit at both ends",
    ),
    "Runway's own namespace": (("runway-speech", "runway"), "tenants.speech.namespace", "not for tenants"),
    "a namespace of Kubernetes": (("runway-speech", "kube-system"), "tenants.speech.namespace", "not for tenants"),
    "a newline after a namespace": (
        ("runway-speech", '"runway-speech\\n"'),
        "tenants.speech.namespace",
        "with a letter or digit at both ends",
    ),
    "no images": (
        ('["runway.local/*", "docker.io/library/*", "ghcr.io/acme/train"]', "[]"),
        "images.allow",
        "at least 1",
    ),
    "a star inside an image": (('"runway.local/*"', '"runway.*/x"'), "images.allow.0", "must be a repository such as"),
    "every image": (('"runway.local/*"', '"*"'), "images.allow.0", "must be a repository such as"),
    "GPUs without a type": ((", gpu_type: a10g", ""), "pools.a10g", "gpu and gpu_type belong together"),
    "a type without GPUs": (
        (", gpu: 4, gpu_type: a10g", ", gpu_type: a10g"),
        "pools.a10g",
        "gpu and gpu_type belong together",
    ),
    "a negative price": (('"0.768"', '"-0.768"'), "pools.cpu.hourly_usd", "above 0"),
    "a price of 0": (('"0.768"', '"0"'), "pools.cpu.hourly_usd", "above 0"),
    **{
        f"a budget of {what}": (
            ("jobs: 50}", f"jobs: 50}}\n    budget: {{usd: {usd}, hours: 24}}"),
            "tenants.speech.budget.usd",
            words,
        )
        for what, usd, words in (
            ("0", '"0"', "above 0"),
            ("less than 0", '"-300"', "above 0"),
            ("NaN", '"NaN"', "above 0"),
            ("infinity", '"inf"', "above 0"),
            ("40 digits", f'"{"9" * 40}"', "above 0"),
            ("a bare number", "300", "in quotes"),
        )
    },
    "a budget of less than an hour": (
        ("jobs: 50}", 'jobs: 50}\n    budget: {usd: "300", hours: 0}'),
        "tenants.speech.budget.hours",
        "at least 1",
    ),
    "a budget for longer than finished jobs exist": (
        ("jobs: 50}", 'jobs: 50}\n    budget: {usd: "300", hours: 25}'),
        "tenants.speech.budget.hours",
        "25 h is longer than limits.retention_seconds, 86400 s",
    ),
    "a quota of a GPU type that no pool has": (
        ("quota: {gpu: 2,", "quota: {gpu: 2, gpu_types: {a10g: 1, tpu: 1},"),
        "tenants.speech.quota.gpu_types.tpu",
        "no pool has this GPU type (observed 1); offered: a10g, h100",
    ),
    "a negative quota of a GPU type": (
        ("quota: {gpu: 2,", "quota: {gpu: 2, gpu_types: {a10g: -1},"),
        "tenants.speech.quota.gpu_types.a10g",
        "at least 0",
    ),
    "an hourly price of 0": (
        ("quota: {gpu: 2,", 'quota: {gpu: 2, usd_per_hour: "0",'),
        "tenants.speech.quota.usd_per_hour",
        "above 0",
    ),
    "a price of NaN": (('"0.768"', '"NaN"'), "pools.cpu.hourly_usd", "above 0"),
    "a price in words": (('"0.768"', '"cheap"'), "pools.cpu.hourly_usd", "amount in USD"),
    "a price with a currency": (('"0.768"', '"$0.768"'), "pools.cpu.hourly_usd", "amount in USD"),
    "a bare price": (('"0.768"', "0.768"), "pools.cpu.hourly_usd", "in quotes"),
    "a price too fine": (('"0.768"', '"0.7680001"'), "pools.cpu.hourly_usd", "at most 6 decimals"),
    "a node without CPU": (('cpu: "48"', 'cpu: "0"'), "pools.a10g.cpu", "above 0"),
    "a GPU share without GPUs": (
        ("memory: 64Gi}", 'memory: 64Gi, per_gpu: {cpu: "1", memory: 1Gi}}'),
        "pools.cpu",
        "the pool has no GPUs",
    ),
    "GPU shares with more CPU than the node": (
        ("gpu_type: a10g}", 'gpu_type: a10g, per_gpu: {cpu: "12001m", memory: 48Gi}}'),
        "pools.a10g",
        "per_gpu.cpu is above cpu / gpu, so set at most 12000m",
    ),
    "GPU shares with more memory than the node": (
        ("gpu_type: a10g}", 'gpu_type: a10g, per_gpu: {cpu: "12", memory: 49Gi}}'),
        "pools.a10g",
        "per_gpu.memory is above memory / gpu, so set at most 48Gi",
    ),
    "a GPU share of no CPU": (
        ("gpu_type: a10g}", 'gpu_type: a10g, per_gpu: {cpu: "0", memory: 48Gi}}'),
        "pools.a10g.per_gpu.cpu",
        "above 0",
    ),
    "disk twice": (
        (RETRIES, RETRIES + "\n  disk: {min: 1Gi, max: 2Gi, default: 1Gi}\n  ephemeral_storage: {per_job: 1Gi}"),
        "limits",
        "disk replaces ephemeral_storage",
    ),
    "disk without a default": (
        (RETRIES, RETRIES + "\n  disk: {min: 1Gi, max: 2Gi}"),
        "limits.disk.default",
        "required",
    ),
    "a default disk above max": (
        (RETRIES, RETRIES + "\n  disk: {min: 1Gi, max: 2Gi, default: 3Gi}"),
        "limits.disk",
        "default 3Gi must be from min 1Gi to max 2Gi",
    ),
    "disk min of 0": (
        (RETRIES, RETRIES + '\n  disk: {min: "0", max: 2Gi, default: 1Gi}'),
        "limits.disk.min",
        "above 0",
    ),
    "a bare number for the disk limit of version 0.7": (
        (RETRIES, RETRIES + "\n  ephemeral_storage: {per_job: 10}"),
        "limits.ephemeral_storage.per_job",
        "must have a unit",
    ),
    "root as a user": ((RETRIES, RETRIES + "\n  user: {min: 0}"), "limits.user.min", "at least 1"),
    "a user above the limit of Kubernetes": (
        (RETRIES, RETRIES + "\n  user: {max: 2147483648}"),
        "limits.user.max",
        "at most 2147483647",
    ),
    "a default user above max": ((RETRIES, RETRIES + "\n  user: {max: 999}"), "limits.user", "default 1000 must be"),
    "an endless retention": (
        ("  gpu: {max: 4}", "  gpu: {max: 4}\n  retention_seconds: 9999999"),
        "limits.retention_seconds",
        "at most",
    ),
}


def volume(path: str, claim: str = "a") -> tuple[str, str]:
    return own(f"volumes: {{a: {{claim: {claim}, path: {path}}}}}")


FAULTS |= {
    "a volume at /": (volume("/"), "tenants.speech.volumes.a.path", "absolute path"),
    "a relative volume": (volume("data"), "tenants.speech.volumes.a.path", "absolute path"),
    "a volume above the tree": (volume("/data/../etc"), "tenants.speech.volumes.a.path", "absolute path"),
    "a volume path with a NUL": (volume('"/data\\0"'), "tenants.speech.volumes.a.path", "absolute path"),
    "a volume path that ends with a slash": (volume("/data/"), "tenants.speech.volumes.a.path", "absolute path"),
    "a volume path with a colon": (volume('"/data:ro"'), "tenants.speech.volumes.a.path", "absolute path"),
    "a volume path with a newline": (volume('"/data\\n"'), "tenants.speech.volumes.a.path", "absolute path"),
    "a long volume path": (volume(f"/{'a' * 255}"), "tenants.speech.volumes.a.path", "at most 255 characters"),
    "a volume over the devices": (volume("/dev"), "tenants.speech.volumes.a.path", "overlaps /dev"),
    "a volume over shared memory": (volume("/dev/shm"), "tenants.speech.volumes.a.path", "overlaps /dev"),  # noqa: S108
    "a volume in /proc": (volume("/proc/sys"), "tenants.speech.volumes.a.path", "overlaps /proc"),
    "a volume over /sys": (volume("/sys"), "tenants.speech.volumes.a.path", "overlaps /sys"),
    "a volume over /etc": (volume("/etc"), "tenants.speech.volumes.a.path", "overlaps /etc"),
    "a volume over scratch": (volume("/scratch"), "tenants.speech.volumes.a.path", "overlaps /scratch"),
    "a volume in scratch": (volume("/scratch/data"), "tenants.speech.volumes.a.path", "overlaps /scratch"),
    "a volume over token files": (volume("/var/run/secrets"), "tenants.speech.volumes.a.path", "overlaps /var/run"),
    "a volume above token files": (volume("/var"), "tenants.speech.volumes.a.path", "overlaps /var/run"),
    "a claim with a slash": (
        volume("/data", "a/b"),
        "tenants.speech.volumes.a.claim",
        "with a letter or digit at both ends",
    ),
    "a claim with capitals": (
        volume("/data", "Data"),
        "tenants.speech.volumes.a.claim",
        "with a letter or digit at both ends",
    ),
    "a long claim": (volume("/data", "a" * 254), "tenants.speech.volumes.a.claim", "at most 253 characters"),
    "a volume without a claim": (own("volumes: {a: {path: /data}}"), "tenants.speech.volumes.a.claim", "required"),
    "a volume of the host": (
        own("volumes: {a: {claim: a, path: /data, host_path: /}}"),
        "tenants.speech.volumes.a.host_path",
        "is not a field of",
    ),
    "a volume name with a dot": (
        own("volumes: {a.b: {claim: a, path: /data}}"),
        "tenants.speech.volumes.a.b",
        "1 to 50 lower-case letters",
    ),
    "a volume name too long for a pod": (
        own(f"volumes: {{{'a' * 51}: {{claim: a, path: /data}}}}"),
        "tenants.speech.volumes",
        "with a letter or digit at both ends",
    ),
    "two volumes at one path": (
        own("volumes: {a: {claim: a, path: /data}, b: {claim: b, path: /data}}"),
        "tenants.speech.volumes",
        "b at /data is at or below a at /data",
    ),
    "a volume below another": (
        own("volumes: {a: {claim: a, path: /data/raw}, b: {claim: b, path: /data}}"),
        "tenants.speech.volumes",
        "a at /data/raw is at or below b at /data",
    ),
    "51 volumes": (
        own("volumes: {" + ", ".join(f"v{at}: {{claim: a, path: /v{at}}}" for at in range(51)) + "}"),
        "tenants.speech.volumes",
        "at most 50",
    ),
    "a Secret with a slash": (
        own("secrets: [huggingface/token]"),
        "tenants.speech.secrets.0",
        "with a letter or digit at both ends",
    ),
    "a Secret given twice": (own("secrets: [a, b, a]"), "tenants.speech.secrets", "a is given twice"),
    "a bare string of Secrets": (own("secrets: huggingface"), "tenants.speech.secrets", "must be a list"),
    "a pull secret given twice": (
        own("image_pull_secrets: [a, a]"),
        "tenants.speech.image_pull_secrets",
        "a is given twice",
    ),
    "an annotation without a value": (
        own("service_account: {annotations: {eks.amazonaws.com/role-arn: }}"),
        "tenants.speech.service_account.annotations.eks",
        "must be text",
    ),
    "an annotation with a line break": (
        own('service_account: {annotations: {a: "b\\nc"}}'),
        "tenants.speech.service_account.annotations.a",
        "printable ASCII",
    ),
    "an invalid annotation": (
        own('service_account: {annotations: {"a b": c}}'),
        "tenants.speech.service_account.annotations.a b",
        "the key of a label",
    ),
    "a mounted token": (
        own("service_account: {automount: true}"),
        "tenants.speech.service_account.automount",
        "is not a field of",
    ),
    "a quoted switch": (
        own('service_account: {pod_identity: "true"}'),
        "tenants.speech.service_account.pod_identity",
        "must be true or false",
    ),
    "no images of a tenant": (own("images: {allow: []}"), "tenants.speech.images.allow", "at least 1"),
    "an image of a tenant without a registry": (
        own("images: {allow: [python]}"),
        "tenants.speech.images.allow",
        "start with a registry",
    ),
    "secrets in env that are neither refused nor allowed": (
        ("retries: {max: 3}", "retries: {max: 3}\n  secrets_in_env: warn"),
        "limits.secrets_in_env",
        "refuse or allow",
    ),
}


LINK = "https://logs.example.com:8443/app?namespace={namespace}&job={job}&from={from}&to={to}#/{pod}"


def test_link_to_logs_is_optional() -> None:
    assert policy().logs is None
    logs = policy(("images:\n", f'logs: {{url_template: "{LINK}"}}\nimages:\n')).logs
    assert logs is not None
    assert logs.url_template == LINK


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("https://logs.example.com/{namepsace}", r"\{namepsace\} is no placeholder; use \{namespace\}, "),
        ("https://logs.example.com/{job.__class__}", "is no placeholder"),
        ("https://logs.example.com/{job!r}", "is no placeholder"),
        ("https://logs.example.com/{{job}}", "is no placeholder"),
        ("https://logs.example.com/{", "or %7B and %7D for braces"),
        ("https://logs.example.com/}", "is no placeholder"),
        ("javascript:alert('{job}')", "must start with https:// or http://"),
        ("//logs.example.com/{job}", "must start with https:// or http://"),
        ("ftp://logs.example.com/{job}", "must start with https:// or http://"),
        ("", "must start with https:// or http://"),
        ("https:///{job}", "must have a valid host and port"),
        ("https://:8443/{job}", "must have a valid host and port"),
        ("https://logs.example.com:99999/{job}", "must have a valid host and port"),
        ("https://[::1/{job}", "must have a valid host and port"),
        ("https://user:pass@logs.example.com/{job}", "no password"),  # pragma: allowlist secret
        ("https://{tenant}.example.com/{job}", "no placeholder and no password before the path"),
        ("https://logs.example.com/?q={job} x", "percent-encode"),
        ('https://logs.example.com/"onclick={job}', "percent-encode"),
        ("https://logs.example.com/<b>{job}", "percent-encode"),
        ("https://logs.example.com/\n{job}", "percent-encode"),
        ("https://logs.exämple.com/{job}", "percent-encode"),
        ("https://logs.example.com/" + "x" * 2000, "at most 2000 characters"),
    ],
)
def test_invalid_link_to_logs_is_rejected(template: str, message: str) -> None:
    quoted = json.dumps(template, ensure_ascii=False)
    ((field, found),) = faults(("images:\n", f"logs: {{url_template: {quoted}}}\nimages:\n"))
    assert field == "logs.url_template"
    assert re.search(message, found)


@pytest.mark.parametrize("case", FAULTS)
def test_fault_names_its_field(case: str) -> None:
    edit, field, message = FAULTS[case]
    found = faults(edit)
    assert any(name.startswith(field) and message in text for name, text in found), found


def test_all_faults_are_reported_together() -> None:
    found = faults(("retries: {max: 3}", "retries: {max: no}"), ('"0.768"', "0.768"), ("jobs: 50", "jobs: -1"))
    assert [name for name, _ in found] == ["limits.retries.max", "pools.cpu.hourly_usd", "tenants.speech.quota.jobs"]


def test_faults_are_sorted_by_line_and_a_duplicate_key_hides_none() -> None:
    text = policy_text(
        ("  gpu: {max: 4}\n", "  gpu: {max: 4}\n  gpu: {max: 8}\n"),
        ("runway-speech", "runway-vision"),
        ("quota: {gpu: 4,", "quota: {gpus: 4, gpu_types: {tpu: 1},"),
        ("    rate: {per_minute: 6,", '    budget: {usd: "1", hours: 99}\n    rate: {per_minute: 6,'),
    )
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert [(fault.line, fault.field) for fault in caught.value.faults] == [
        (6, "limits.gpu"),
        (19, "tenants.vision.quota.gpu"),
        (19, "tenants.vision.quota.gpus"),
        (22, "tenants.speech.namespace"),
        (24, "tenants.speech.budget.hours"),
    ]


@pytest.mark.parametrize(
    ("edit", "hint"),
    [
        (("quota: {gpu: 4,", "quota: {gpus: 4,"), "did you mean gpu? fields here: gpu, gpu_types, cpu, memory, disk, "),
        (("images:\n  allow:", "images:\n  allowed:"), "did you mean allow? fields here: allow"),
        (("retries: {max: 3}", "retries: {max: no}"), "YAML reads this word as a boolean: write digits"),
        (("retries: {max: 3}", "retries: {max: 010}"), "write it in decimal digits, without quotes"),
        (('"0.768"', "0.768"), 'write it as "0.768"'),
        ((CPU, "cpu: {min: 100m, max: 16}"), 'write it as "16"'),
        (("memory: 64Gi, jobs", "memory: 64, jobs"), "write it with its unit, such as 64Gi"),
    ],
)
def test_hint_says_what_to_write(edit: tuple[str, str], hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(policy_text(edit))
    assert any((fault.hint or "").startswith(hint) for fault in caught.value.faults), caught.value.faults


FULL = yaml.safe_load(
    policy_text(
        own("volumes: {a: {claim: a, path: /data}}\nsecrets: [b]\nservice_account: {annotations: {c: d}}"),
        ("jobs: 50}", 'jobs: 50, gpu_types: {a10g: 1}}\n    budget: {usd: "300", hours: 24}'),
        ("gpu_type: a10g", 'gpu_type: a10g, per_gpu: {cpu: "1", memory: 1Gi}, tolerations: [{key: a}]'),
        (
            RETRIES,
            f"{RETRIES}\n  idle_gpu: {{below_percent: 5, for_seconds: 60}}\n  start_timeout_seconds: {{image: 9}}",
        ),
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abgpu", min_size=1, max_size=4), inner),
    max_leaves=4,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a document."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, member in members for found in paths(member, (*path, name)))]


@given(st.sampled_from(paths(FULL)[1:]), VALUES, st.booleans())
def test_any_value_anywhere_is_accepted_or_named_with_its_line(
    path: tuple[Any, ...], value: object, added: bool
) -> None:
    document = copy.deepcopy(FULL)
    *above, last = path
    owner = functools.reduce(lambda found, name: found[name], above, document)
    if added and isinstance(owner, dict):
        owner["gpus"] = value
    else:
        owner[last] = value
    text = yaml.safe_dump(document)
    for fault in faults_in(text):
        assert fault.field == "file" or 1 <= (fault.line or 0) <= text.count("\n")
        assert str(fault).isprintable()
        assert len(str(fault)) < 1000


def faults_in(text: str) -> list[PolicyFault]:
    """Return the faults of a policy, none for a valid one."""
    try:
        parse_policy(text)
    except PolicyError as error:
        return error.faults or [PolicyFault("policy", "refused without a fault")]
    return []


@pytest.mark.parametrize("keys", [2, 50])
def test_faults_above_the_maximum_are_counted(keys: int) -> None:
    text = policy_text() + "".join(f"k{at}: 1\n" for at in range(keys))
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    last = str(caught.value).splitlines()[-1]
    assert last.startswith("file: 30 more faults are not shown" if keys == 50 else "line 25: k1: is not a field")


def test_pools_of_one_gpu_type_need_different_nodes() -> None:
    ((field, message),) = faults(("gpu_type: h100", "gpu_type: a10g"))
    assert field == "pools"
    assert message.endswith("a10g and h100 have gpu_type a10g and the same node_selector")
    two = policy(("gpu_type: h100", "gpu_type: a10g, spot: true, node_selector: {capacity: spot}"))
    assert [name for name, pool in two.pools.items() if pool.spot] == ["h100"]


def test_spot_pool_without_gpus_needs_different_nodes() -> None:
    """Otherwise its jobs would run on other nodes for the price of spot."""
    spot = 'cpu-spot:\n    {spot: true, instance_type: m6i.4xlarge, hourly_usd: "0.3", cpu: "16", memory: 64Gi'
    ((field, message),) = faults(("pools:\n", f"pools:\n  {spot}}}\n"))
    assert field == "pools"
    assert message.endswith("one of cpu-spot and cpu is spot, and both have the same node_selector")
    policy(("pools:\n", f"pools:\n  {spot}, node_selector: {{capacity: spot}}}}\n"))


def test_duplicate_namespace_names_both_tenants_beside_other_faults() -> None:
    found = dict(faults(("runway-speech", "runway-vision"), ("jobs: 50", "jobs: -1"), ("gpu: {max: 4}", "gpu: {}")))
    assert found.keys() == {"limits.gpu.max", "tenants.speech.namespace", "tenants.speech.quota.jobs"}
    assert "duplicate namespace runway-vision (tenants vision and speech)" in found["tenants.speech.namespace"]


def test_long_value_is_cut_in_ascii() -> None:
    (fault,) = faults_in(policy_text(("max: 86400", f"max: {'x' * 300}")))
    assert fault.observed == "x" * 80 + "..."


def test_only_entry_that_is_invalid_is_one_fault() -> None:
    text = re.sub(r"allow: \[.*\]", 'allow: ["https://x/y"]', policy_text())
    assert [fault.field for fault in faults_in(text)] == ["images.allow.0"]
    assert faults_in(re.sub(r"allow: \[.*\]", "allow: []", policy_text()))[0].message == "must have at least 1 entries"


def test_suggested_repository_is_valid() -> None:
    (fault,) = faults_in(re.sub(r"allow: \[.*\]", 'allow: ["python:3.12"]', policy_text()))
    suggested = fault.message.rpartition(" ")[2]
    assert faults_in(re.sub(r"allow: \[.*\]", f'allow: ["{suggested}"]', policy_text())) == []


def test_many_tenants_of_one_namespace_are_counted() -> None:
    document = yaml.safe_load(policy_text())
    speech = document["tenants"]["speech"]
    document["tenants"] |= {f"team-{number}": copy.deepcopy(speech) for number in range(30)}
    *named, last = faults_in(yaml.safe_dump(document))
    assert len(named) == 20
    assert last.message == "10 more faults are not shown"


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (("max: 86400", "max: 0100000"), "limits.timeout_seconds.max"),
        (("max: 86400", "max: 24:00:00"), "limits.timeout_seconds.max"),
        (("jobs: 50", "jobs: 0100"), "tenants.speech.quota.jobs"),
    ],
    ids=["octal", "base 60", "octal quota"],
)
def test_octal_and_sexagesimal_integers_are_rejected(edit: tuple[str, str], field: str) -> None:
    found = faults(edit)
    assert any(name in (field, "file") for name, _ in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (policy_text(("  gpu: {max: 4}\n", "  gpu: {max: 4}\n  gpu: {max: 8}\n")), "line 6: limits.gpu: is given"),
        (policy_text(("version: 1\n", "version: 1\nversion: 1\n")), "line 2: version: is given twice, first in line 1"),
        (policy_text(("  speech:", "  vision:")), "line 20: tenants.vision: is given twice, first in line 16"),
        (policy_text(("  speech:", "  no:")), "False must be a string"),
        (policy_text(("  speech:", "  1:")), "1 must be a string"),
        (policy_text(("gpu: {max: 4}", "gpu: &four {max: 4}"), ("retries: {max: 3}", "retries: *four")), "aliases"),
        (policy_text(("gpu: {max: 4}", "gpu: {<<: {max: 4}}")), "line 5: key << is not allowed"),
        (policy_text(("max: 86400", "max: 2001-99-99")), "line 6: .*must be a whole number .*2001-99-99"),
        (policy_text(("gpu: 2, ", "gpu: 2, gpu: 2, ")), "speech.quota.gpu: is given twice"),
        (policy_text() + "---\nversion: 1\n", "a second document begins here"),
        ("!!python/object/apply:os.getcwd []", "tags are not allowed"),
        ("version: [1", "expected"),
        ("\tversion: 1", "cannot start any token"),
        ("[" * 5000, "nested deeper than 50 levels"),
        ("", "must be a mapping"),
        ("- version: 1", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("kind: ConfigMap\napiVersion: v1\ndata: {}", "^file: this is a Kubernetes ConfigMap; .* value policy.yaml"),
    ],
)  # fmt: skip
def test_invalid_yaml_is_rejected_on_one_line(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message) as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


def test_binary_file_is_rejected() -> None:
    with pytest.raises(PolicyError, match="line 1: unacceptable character"):
        parse_policy(b"version: \xff")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy\.yaml: cannot be read: No such file"):
        load_policy(tmp_path / "policy.yaml")


def test_directory_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is not a regular file"):
        load_policy(tmp_path)


def test_policy_that_every_user_can_write_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_text())
    path.chmod(0o664)
    load_policy(path)
    path.chmod(0o646)
    with pytest.raises(PolicyError, match=r"can be written by every user: run chmod o-w on it"):
        load_policy(path)


def test_file_that_changes_while_it_is_read_is_rejected() -> None:
    """The kernel gives files of /proc the size 0, so such a file grows while it is read."""
    with pytest.raises(PolicyError, match="changed while it was read"):
        load_policy("/proc/self/status")


def test_oversized_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(policy_text().encode().ljust(MAX_FILE_BYTES, b"#"))
    load_policy(path)
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PolicyError, match="is larger than"):
        load_policy(path)
