"""Validate a specification against the policy: bounds, image, volumes, secrets, pool, fit and cost.

Pure. Every violation is reported at once. Quota and rate depend on other jobs and on time, so they are checked later.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Final

import msgspec

from runway.errors import InvalidSpec, Violation
from runway.jobs.cost import estimate_cost
from runway.jobs.models import CostView
from runway.jobs.spec import MAX_SPEC_BYTES, AdmittedSpec, Draft, Resources, SpecForm, split_image
from runway.policy import SPOT_NOTICE_SECONDS, Policy, Pool, Tenant
from runway.quantity import format_bytes, format_cpu
from runway.text import shorten

MIB: Final = 1024**2
MIN_SHARED_MEMORY: Final = MIB  # Bytes. Kubernetes reads a size of 0 as no limit.
MAX_LISTED: Final = 10  # Names of volumes or Secrets in a hint.
CREDENTIAL: Final = re.compile(
    r"(?:.+_)?(?:PASSWORD|PASSWD|API_KEY|API_TOKEN|ACCESS_TOKEN|AUTH_TOKEN|SECRET_KEY|SECRET_ACCESS_KEY|PRIVATE_KEY"
    r"|CLIENT_SECRET)|(?:DB|DATABASE|MYSQL|POSTGRES|REDIS|SMTP)_PASS"
    r"|AWS_(?:ACCESS_KEY_ID|SESSION_TOKEN)|KAGGLE_KEY|PGPASSWORD"
    r"|(?:GH|GITHUB|GITLAB|HF|HUGGINGFACE|HUGGING_FACE_HUB|MLFLOW_TRACKING|NPM|PYPI|SLACK|VAULT)_TOKEN",
    re.IGNORECASE,
)
"""Names of variables that hold credentials. Other names with TOKEN or KEY are common: EOS_TOKEN, SORT_KEY."""


@dataclass(frozen=True, slots=True)
class ValidatedSpec:
    """A valid specification with its defaults filled in, its pool and its price."""

    spec: AdmittedSpec
    pool: str
    price: CostView


def validate(draft: Draft, policy: Policy, tenant: str) -> ValidatedSpec:
    """Validate a tenant's draft. Raises InvalidSpec with all violations, including those of form."""
    limits, form, wanted = policy.limits, draft.form, draft.resources
    timeout = limits.timeout_seconds.default if form.timeout_seconds is None else form.timeout_seconds
    grace = limits.grace_period_seconds.default if form.grace_period_seconds is None else form.grace_period_seconds
    retries, gpu = form.retries or 0, wanted.gpu or 0
    user = limits.user.default if form.user is None else form.user
    disk = limits.disk.default if wanted.disk is None else wanted.disk
    violations = [*draft.violations]
    if wanted.cpu is not None:
        violations += _check_range("resources.cpu", wanted.cpu, limits.cpu.min, limits.cpu.max, format_cpu)
    if wanted.memory is not None:
        memory = limits.memory
        violations += _check_range("resources.memory", wanted.memory, memory.min, memory.max, format_bytes)
    violations += _check_range("resources.disk", disk, limits.disk.min, limits.disk.max, format_bytes)
    violations += _check_shared_memory(wanted.shared_memory, wanted.memory)
    for field, value, low, high in (
        ("resources.gpu", gpu, 0, limits.gpu.max),
        ("timeout_seconds", timeout, limits.timeout_seconds.min, limits.timeout_seconds.max),
        ("retries", retries, 0, limits.retries.max),
        ("grace_period_seconds", grace, 1, limits.grace_period_seconds.max),
        ("user", user, limits.user.min, limits.user.max),
    ):
        violations += _check_range(field, value, low, high, str)
    violations += _check_start_timeout(draft, timeout)
    if form.image is not None:
        violations += _check_image(form.image, policy.images_of(tenant).allow)
    violations += _check_references(form, policy.tenants[tenant])
    if limits.secrets_in_env == "refuse":
        violations += _check_credentials(form.env or {})
    violations += _check_spec_size(form)

    pool_name, faults = _select_pool(draft, gpu, policy)
    violations += faults
    grace, faults = _bound_spot_grace(grace, form.grace_period_seconds is not None, pool_name, policy)
    violations += faults
    found = None
    if pool_name is not None and wanted.cpu is not None and wanted.memory is not None:
        pool = policy.pools[pool_name]
        shared = default_shared_memory(wanted.memory) if wanted.shared_memory is None else wanted.shared_memory
        gpu_type = pool.gpu_type if gpu else None
        resources = Resources(wanted.cpu, wanted.memory, max(gpu, 0), gpu_type, disk, shared)
        violations += _check_fits_node(resources, pool_name, pool)
        violations += _check_per_gpu(resources, pool_name, pool)
        found = estimate_cost(pool_name, pool, resources, max(timeout, 0) + max(grace, 0))
        if form.max_cost_usd is not None and draft.is_valid("timeout_seconds"):
            violations += _check_cost(form.max_cost_usd, found, timeout, grace, limits.timeout_seconds.min)
    if violations or form.image is None or pool_name is None or found is None:
        raise InvalidSpec(tuple(violations))

    spec = AdmittedSpec(
        name=form.name,
        image=form.image,
        command=tuple(form.command or ()),
        args=tuple(form.args or ()),
        env=tuple((form.env or {}).items()),
        secrets=tuple((form.secrets or {}).items()),
        volumes=tuple(form.volumes or ()),
        resources=resources,
        pool=pool_name,
        timeout_seconds=timeout,
        start_timeout_seconds=form.start_timeout_seconds,
        retries=retries,
        grace_period_seconds=grace,
        working_dir=form.working_dir,
        user=user,
        max_cost_usd=form.max_cost_usd,
    )
    return ValidatedSpec(spec, pool_name, found)


def _check_start_timeout(draft: Draft, timeout: int) -> list[Violation]:
    """Reject a start timeout that the timeout always precedes."""
    asked = draft.form.start_timeout_seconds
    if asked is None or not draft.is_valid("timeout_seconds"):
        return []
    if asked <= timeout:
        return _check_range("start_timeout_seconds", asked, 1, timeout, str)
    message, hint = (
        "is above timeout_seconds, so it has no effect",
        f"ask for at most {timeout}, or raise timeout_seconds",
    )
    return [Violation("start_timeout_seconds", "too_large", message, str(asked), str(timeout), hint)]


def default_shared_memory(memory: int) -> int:
    """Return half of the memory in whole MiB, but at least `MIN_SHARED_MEMORY`. Both amounts are in bytes."""
    return max(memory // 2 // MIB * MIB, MIN_SHARED_MEMORY)


def _check_shared_memory(asked: int | None, memory: int | None) -> list[Violation]:
    """Reject less than the minimum, and more than the job's memory: a file in /dev/shm counts as memory."""
    if asked is None:
        return []
    if memory is not None and asked > memory:
        limit, message = format_bytes(memory), "is above resources.memory, of which it is a part"
        hint = f"ask for at most {limit}, or raise resources.memory"
        return [Violation("resources.shared_memory", "too_large", message, format_bytes(asked), limit, hint)]
    return _check_range("resources.shared_memory", asked, MIN_SHARED_MEMORY, sys.maxsize, format_bytes)


def _check_range(field: str, value: int, low: int, high: int, show: Callable[[int], str]) -> list[Violation]:
    if low <= value <= high:
        return []
    limit = show(low if value < low else high)
    if value < low:
        return [Violation(field, "too_small", "is below the minimum", show(value), limit, f"ask for at least {limit}")]
    return [Violation(field, "too_large", "is above the maximum", show(value), limit, f"ask for at most {limit}")]


def _check_spec_size(form: SpecForm) -> list[Violation]:
    """Check the size in which Kubernetes stores the specification. Escapes can make a text six times as large."""
    size = len(msgspec.json.encode(form.model_dump()))
    if size <= MAX_SPEC_BYTES:
        return []
    message = "is too large as JSON, which escapes control characters in six bytes"
    hint = "put binary data into the image, or encode it in base64"
    return [Violation("body", "too_large", message, f"{size} bytes", f"{MAX_SPEC_BYTES} bytes", hint)]


def _check_image(image: str, allow: Sequence[str]) -> list[Violation]:
    repository = canonical_repository(image)
    if any(
        repository == _official(item) or (item.endswith("/*") and repository.startswith(item[:-1])) for item in allow
    ):
        return []
    hint = "push the image to an allowed repository"
    message = "is not from an allowed repository"
    return [Violation("image", "image_not_allowed", message, image, ", ".join(allow), hint)]


def _check_references(form: SpecForm, tenant: Tenant) -> list[Violation]:
    """Reject volumes and Secrets that the policy does not give to the tenant."""
    violations = []
    for at, name in enumerate(form.volumes or ()):
        if name not in tenant.volumes:
            hint = _choice("volumes", tenant.volumes)
            message = "is not a volume of the tenant"
            violations.append(Violation(f"volumes[{at}]", "unknown_volume", message, name, hint=hint))
    for variable, reference in (form.secrets or {}).items():
        secret = reference.partition("/")[0]
        if secret not in tenant.secrets:
            hint = _choice("Secrets", tenant.secrets)
            message = "is not in a Secret of the tenant"
            violations.append(Violation(f"secrets[{variable}]", "unknown_secret", message, shorten(secret), hint=hint))
    return violations


def _choice(kind: str, names: Collection[str]) -> str:
    if not names:
        return f"ask the platform operators to add {kind} of the tenant to the policy"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"choose one of: {', '.join(islice(names, MAX_LISTED))}{more}"


def _check_credentials(env: Iterable[str]) -> list[Violation]:
    """Reject variables that hold credentials: anyone who may read Jobs or call Runway could read them."""
    hint = "put the value in a Kubernetes Secret, and name it in secrets"
    return [
        Violation(f"env[{name}]", "secret_in_env", "looks like a credential, which env does not protect", hint=hint)
        for name in env
        if CREDENTIAL.fullmatch(name)
    ]


def canonical_repository(image: str) -> str:
    """Return the repository that a node would pull: `python:3.12` is `docker.io/library/python`.

    As in the container runtimes, the first component is a registry only if it has a dot, a port or an upper-case
    letter. The name of a registry has no case.
    https://kubernetes.io/docs/concepts/containers/images/#image-names
    """
    repository, _ = split_image(image)
    first, slash, rest = repository.partition("/")
    if not slash:
        return f"docker.io/library/{repository}"
    if "." in first or ":" in first or first.lower() != first or first == "localhost":
        return _official(f"{first.lower()}/{rest}")
    return f"docker.io/{repository}"


def _official(repository: str) -> str:
    """Return the full name of an official image: Docker Hub keeps `docker.io/python` in `library`.

    https://github.com/distribution/reference/blob/v0.6.0/normalize.go (splitDockerDomain)
    """
    registry, _, path = repository.partition("/")
    return f"docker.io/library/{path}" if registry == "docker.io" and "/" not in path else repository


def _select_pool(draft: Draft, gpu: int, policy: Policy) -> tuple[str | None, list[Violation]]:
    """Select the named pool, or the default pool of the job's GPU type, or without GPUs."""
    if not draft.is_valid("resources.gpu", "resources.gpu_type", "resources", "pool"):
        return None, []
    gpu_type, named = draft.resources.gpu_type, draft.form.pool
    types = list(dict.fromkeys(pool.gpu_type for pool in policy.pools.values() if pool.gpu_type is not None))
    faults = _check_gpu_type(gpu, gpu_type, types)
    fitting = [
        name
        for name, pool in policy.pools.items()
        if (pool.gpu > 0) == (gpu > 0) and (gpu <= 0 or gpu_type in (None, pool.gpu_type))
    ]
    if named is not None and named not in policy.pools:
        offered = ", ".join(fitting if fitting and not faults else policy.pools)
        hint = f"choose one of: {offered}"
        faults.append(Violation("pool", "unknown_pool", "is not a pool of the policy", named, offered, hint))
    elif named is not None and named not in fitting and not faults:
        faults.append(_pool_mismatch(named, policy.pools[named], gpu, gpu_type, fitting))
    if faults:
        return None, faults
    if named is not None:
        return named, []
    found = _default_pool(gpu, fitting, types, policy)
    return (found, []) if isinstance(found, str) else (None, [found])


def _check_gpu_type(gpu: int, gpu_type: str | None, types: Sequence[str]) -> list[Violation]:
    if gpu_type is None:
        return []
    if gpu_type not in types:
        offered = ", ".join(types) or "none"
        hint = f"choose one of: {offered}"
        return [Violation("resources.gpu_type", "unknown_gpu_type", "is not offered", gpu_type, offered, hint)]
    if gpu <= 0:
        hint = "ask for resources.gpu of at least 1, or leave gpu_type out"
        return [Violation("resources.gpu_type", "gpu_type_without_gpu", "is given without a GPU", hint=hint)]
    return []


def _pool_mismatch(named: str, pool: Pool, gpu: int, gpu_type: str | None, fitting: Sequence[str]) -> Violation:
    hint = f"choose one of: {', '.join(fitting)}" if fitting else "leave pool out"
    if pool.gpu == 0:
        message = "has no GPUs, and the job requests some"
    elif gpu <= 0:
        # The job would take CPUs that the GPUs of the node need.
        message, hint = "has GPUs, and the job requests none", f"{hint}, or ask for resources.gpu of at least 1"
    else:
        message = f"has GPUs of type {pool.gpu_type}, not {gpu_type}"
    return Violation("pool", "pool_mismatch", message, named, hint=hint)


def _default_pool(gpu: int, fitting: Sequence[str], types: Sequence[str], policy: Policy) -> str | Violation:
    """Return the first pool that is not spot. The GPU type is optional if the policy has only one."""
    if not fitting and gpu > 0:
        return Violation("resources.gpu", "never_fits", "no pool has GPUs", str(gpu), "0", "run without a GPU")
    if not fitting:
        hint = f"GPU types: {', '.join(types)}"
        return Violation("resources.gpu", "never_fits", "no pool runs jobs without a GPU", str(gpu), hint=hint)
    if len({policy.pools[name].gpu_type for name in fitting}) > 1:
        hint = f"choose one of: {', '.join(types)}"
        return Violation("resources.gpu_type", "required", "is required: there are several types", hint=hint)
    on_demand = next((name for name in fitting if not policy.pools[name].spot), None)
    hint = f"choose one of: {', '.join(fitting)}"
    return on_demand or Violation("pool", "required", "is required: only spot pools can run the job", hint=hint)


def _bound_spot_grace(grace: int, is_given: bool, pool_name: str | None, policy: Policy) -> tuple[int, list[Violation]]:
    """Bound the grace period in a spot pool: shorten the policy's default, and refuse a longer one of the caller."""
    if pool_name is None or not policy.pools[pool_name].spot or grace <= SPOT_NOTICE_SECONDS:
        return grace, []
    if not is_given:
        return SPOT_NOTICE_SECONDS, []
    message = f"is longer than the notice of a spot interruption in pool {pool_name}"
    limit = str(SPOT_NOTICE_SECONDS)
    hint = f"ask for at most {limit}, or for a pool that is not spot"
    return grace, [Violation("grace_period_seconds", "too_large", message, str(grace), limit, hint)]


def _check_fits_node(resources: Resources, pool_name: str, pool: Pool) -> list[Violation]:
    """Reject more than a whole node of the pool, because a pod runs on one node."""
    faults = []
    for name, asked, capacity, show in (
        ("cpu", resources.cpu, pool.cpu, format_cpu),
        ("memory", resources.memory, pool.memory, format_bytes),
        ("gpu", resources.gpu, pool.gpu, str),
    ):
        if asked > capacity:
            message = f"no node of pool {pool_name} ({pool.instance_type}) is that large"
            uses = "" if name == "gpu" else ", minus what the node itself uses"
            hint = f"ask for at most {show(capacity)}{uses}"
            faults.append(Violation(f"resources.{name}", "never_fits", message, show(asked), show(capacity), hint))
    return faults


def _check_per_gpu(resources: Resources, pool_name: str, pool: Pool) -> list[Violation]:
    """Reject more CPU or memory than the share of the job's GPUs: the rest of the node's GPUs would be stranded."""
    faults: list[Violation] = []
    if pool.per_gpu is None or not 0 < resources.gpu <= pool.gpu:
        return faults
    for name, asked, share, capacity, show in (
        ("cpu", resources.cpu, pool.per_gpu.cpu, pool.cpu, format_cpu),
        ("memory", resources.memory, pool.per_gpu.memory, pool.memory, format_bytes),
    ):
        most, needed = share * resources.gpu, -(-asked // share)
        if most < asked <= capacity:
            message = f"would strand GPUs: pool {pool_name} allows {show(share)} for each GPU"
            hint = f"ask for at most {show(most)}" + (f", or for {needed} GPUs" if needed <= pool.gpu else "")
            faults.append(Violation(f"resources.{name}", "over_gpu_share", message, show(asked), show(most), hint))
    return faults


def _check_cost(cap: Decimal, found: CostView, timeout: int, grace: int, shortest: int) -> list[Violation]:
    if Decimal(found.ceiling) <= cap:
        return []
    affordable = int(cap * 3600 / Decimal(found.hourly)) - grace
    shorter = f"lower timeout_seconds to at most {affordable}, " if affordable >= shortest else ""
    message = f"the job could cost more: {found.hourly} USD an hour for up to {timeout} s and {grace} s of grace"
    hint = f"{shorter}ask for less, or raise max_cost_usd"
    return [Violation("max_cost_usd", "over_max_cost", message, found.ceiling, f"{cap:f}", hint)]
