"""Validate a specification against the policy: bounds, image, pool, fit and cost.

Pure. Every violation is reported at once. Quota and rate depend on other jobs and on time, so they are checked later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runway.errors import InvalidSpec, Violation
from runway.jobs.cost import CostEstimate, estimate_cost
from runway.jobs.spec import AdmittedSpec, Draft, Resources, split_image
from runway.policy import Limits, Policy, Pool
from runway.quantity import format_bytes, format_cpu


@dataclass(frozen=True, slots=True)
class ValidatedSpec:
    """A valid specification with its defaults filled in, its pool and its price."""

    spec: AdmittedSpec
    pool: str
    price: CostEstimate


def validate(draft: Draft, policy: Policy) -> ValidatedSpec:
    """Validate a draft against the policy. Raises InvalidSpec with all violations, including those of form."""
    limits = policy.limits
    timeout = limits.timeout_seconds.default if draft.timeout_seconds is None else draft.timeout_seconds
    grace = limits.grace_period_seconds.default if draft.grace_period_seconds is None else draft.grace_period_seconds
    retries = draft.retries or 0
    violations = [
        *draft.violations,
        *_check_bounds(draft, limits, timeout, grace, retries),
        *_check_image(draft, policy),
    ]

    pool_name = None
    if draft.is_valid("resources.gpu", "resources.gpu_type", "resources"):
        pool_name, faults = _select_pool(draft, policy)
        violations += faults
    found = None
    if pool_name is not None and draft.cpu is not None and draft.memory is not None:
        pool = policy.pools[pool_name]
        resources = Resources(draft.cpu, draft.memory, max(draft.gpu or 0, 0), pool.gpu_type if draft.gpu else None)
        violations += _check_fits_node(resources, pool_name, pool)
        found = estimate_cost(pool_name, pool, resources, max(timeout, 0))
        if draft.is_valid("timeout_seconds", "max_cost_usd"):
            violations += _check_cost(draft, found, timeout, limits.timeout_seconds.min)
    if violations or draft.image is None or pool_name is None or found is None:
        raise InvalidSpec(tuple(violations))

    spec = AdmittedSpec(
        name=draft.name,
        image=draft.image,
        command=draft.command,
        args=draft.args,
        env=draft.env,
        resources=resources,
        timeout_seconds=timeout,
        retries=retries,
        grace_period_seconds=grace,
        max_cost_usd=draft.max_cost_usd,
    )
    return ValidatedSpec(spec, pool_name, found)


def _check_bounds(draft: Draft, limits: Limits, timeout: int, grace: int, retries: int) -> list[Violation]:
    faults = []
    if draft.cpu is not None:
        faults += _check_range("resources.cpu", draft.cpu, limits.cpu.min, limits.cpu.max, format_cpu)
    if draft.memory is not None:
        faults += _check_range("resources.memory", draft.memory, limits.memory.min, limits.memory.max, format_bytes)
    faults += _check_range("resources.gpu", draft.gpu or 0, 0, limits.gpu.max, str)
    faults += _check_range("timeout_seconds", timeout, limits.timeout_seconds.min, limits.timeout_seconds.max, str)
    faults += _check_range("retries", retries, 0, limits.retries.max, str)
    faults += _check_range("grace_period_seconds", grace, 1, limits.grace_period_seconds.max, str)
    return faults


def _check_range(field: str, value: int, low: int, high: int, show: Callable[[int], str]) -> list[Violation]:
    if value < low:
        return [
            Violation(
                field, "too_small", "is below the minimum", show(value), show(low), f"ask for at least {show(low)}"
            )
        ]
    if value > high:
        return [
            Violation(
                field, "too_large", "is above the maximum", show(value), show(high), f"ask for at most {show(high)}"
            )
        ]
    return []


def _check_image(draft: Draft, policy: Policy) -> list[Violation]:
    if draft.image is None:
        return []
    repository = canonical_repository(draft.image)
    for pattern in policy.images.allow:
        if repository == pattern or (pattern.endswith("/*") and repository.startswith(pattern[:-1])):
            return []
    allowed = ", ".join(policy.images.allow)
    hint = "push the image to an allowed repository"
    return [Violation("image", "image_not_allowed", "is not from an allowed repository", draft.image, allowed, hint)]


def canonical_repository(image: str) -> str:
    """Return the repository that a node would pull: `python:3.12` is `docker.io/library/python`.

    As in the container runtimes, the first component is a registry only if it has a dot or a port.
    https://kubernetes.io/docs/concepts/containers/images/#image-names
    """
    repository, _ = split_image(image)
    first, slash, _ = repository.partition("/")
    if not slash:
        return f"docker.io/library/{repository}"
    if "." in first or ":" in first or first == "localhost":
        return repository
    return f"docker.io/{repository}"


def _select_pool(draft: Draft, policy: Policy) -> tuple[str | None, list[Violation]]:
    """Select the pool of the job's GPU type, the only GPU pool if it has no type, or the first pool without GPUs."""
    gpu, gpu_type = max(draft.gpu or 0, 0), draft.gpu_type
    types = [pool.gpu_type for pool in policy.pools.values() if pool.gpu_type is not None]
    offered = ", ".join(types) or "none"
    if gpu_type is not None and gpu_type not in types:
        hint = f"choose one of: {offered}"
        return None, [Violation("resources.gpu_type", "unknown_gpu_type", "is not offered", gpu_type, offered, hint)]
    if gpu_type is not None and gpu == 0:
        hint = "ask for resources.gpu of at least 1, or leave gpu_type out"
        return None, [Violation("resources.gpu_type", "gpu_type_without_gpu", "is given without a GPU", hint=hint)]
    if gpu == 0:
        name = next((name for name, pool in policy.pools.items() if pool.gpu == 0), None)
        if name is not None:
            return name, []
        observed, hint = str(draft.gpu or 0), f"GPU types: {offered}"
        return None, [Violation("resources.gpu", "never_fits", "no pool runs jobs without a GPU", observed, hint=hint)]
    pools = [name for name, pool in policy.pools.items() if pool.gpu > 0 and gpu_type in (None, pool.gpu_type)]
    if len(pools) == 1:
        return pools[0], []
    if pools:
        hint = f"choose one of: {offered}"
        return None, [Violation("resources.gpu_type", "required", "is required: there are several types", hint=hint)]
    return None, [Violation("resources.gpu", "never_fits", "no pool has GPUs", str(gpu), "0", "run without a GPU")]


def _check_fits_node(resources: Resources, pool_name: str, pool: Pool) -> list[Violation]:
    """Reject more than a whole node of the pool, because a pod runs on one node."""
    wanted = (
        ("cpu", resources.cpu, pool.cpu, format_cpu),
        ("memory", resources.memory, pool.memory, format_bytes),
        ("gpu", resources.gpu, pool.gpu, str),
    )
    return [
        Violation(
            f"resources.{name}",
            "never_fits",
            f"no node of pool {pool_name} ({pool.instance_type}) is that large",
            show(asked),
            show(capacity),
            f"ask for at most {show(capacity)}, minus what the node itself uses",
        )
        for name, asked, capacity, show in wanted
        if asked > capacity
    ]


def _check_cost(draft: Draft, found: CostEstimate, timeout: int, shortest: int) -> list[Violation]:
    cap = draft.max_cost_usd
    if cap is None or found.ceiling <= cap:
        return []
    affordable = int(cap * 3600 / found.hourly)
    shorter = f"lower timeout_seconds to at most {affordable}, " if affordable >= shortest else ""
    message = f"the job could cost more: {found.hourly:f} USD an hour for up to {timeout} s"
    hint = f"{shorter}ask for less, or raise max_cost_usd"
    return [Violation("max_cost_usd", "over_max_cost", message, f"{found.ceiling:f}", f"{cap:f}", hint)]
