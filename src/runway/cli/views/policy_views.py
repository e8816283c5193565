"""A policy file for people: what it allows, its faults, and what it changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.text import Text

from runway.cli.output import Screen
from runway.cli.policy_diff import NOT_SHOWN, Difference
from runway.cli.views.problems import show_violations
from runway.cli.views.tables import Column, columns
from runway.errors import PolicyError, PolicyFault
from runway.quantity import format_bytes, format_cpu, format_usd
from runway.text import show_duration, show_usd

if TYPE_CHECKING:
    from runway.policy import IdleGpuLimit, PerGpu, Policy, PoolToleration

HASH_SHOWN: Final = 12  # Characters of a hash; `-o json` has all.
TENANTS_NAMED: Final = 10

_KINDS: Final = {"up": "green", "added": "green", "down": "yellow", "removed": "red"}
_CHANGES: Final = [
    Column(title="FIELD", shrink=True),
    Column(title="IN FORCE", shrink=True),
    Column(title="FILE", shrink=True),
    Column(title="CHANGE"),
]


def show_policy(screen: Screen, policy: Policy) -> None:
    """Show limits, images, pools and tenants."""
    limits = policy.limits
    timeout, grace, disk, user = limits.timeout_seconds, limits.grace_period_seconds, limits.disk, limits.user
    idle = limits.idle_gpu
    screen.out("Limits of a job", style="bold")
    bounds = (
        ("cpu", format_cpu(limits.cpu.min), format_cpu(limits.cpu.max), ""),
        ("memory", format_bytes(limits.memory.min), format_bytes(limits.memory.max), ""),
        ("gpu", 0, limits.gpu.max, 0),
        ("timeout", show_duration(timeout.min), show_duration(timeout.max), show_duration(timeout.default)),
        ("grace period", "", show_duration(grace.max), show_duration(grace.default)),
        ("retries", 0, limits.retries.max, 0),
        *(
            (f"start timeout: {cause}", "", show_duration(seconds), "")
            for cause, seconds in limits.start_timeout_seconds
            if seconds is not None
        ),
        ("disk", format_bytes(disk.min), format_bytes(disk.max), format_bytes(disk.default)),
        ("user", user.min, user.max, user.default),
        ("retention", "", "", show_duration(limits.retention_seconds)),
        ("credentials in env", "", "", limits.secrets_in_env),
        ("idle GPU", "", "", "none" if idle is None else _show_idle(idle)),
    )
    screen.table(columns("FIELD", "MIN", "MAX", "DEFAULT"), bounds, indent=2)
    screen.out("Allowed images", style="bold")
    for pattern in policy.images.allow:
        screen.out(f"  {pattern}")
    if policy.logs:
        screen.out("Links to stored logs", style="bold")
        screen.out(f"  {policy.logs.url_template}")
    screen.out("Pools", style="bold")
    selectors = {head: cells for head, cells in _node_terms(policy).items() if any(cells)}
    pools = (
        (name, p.instance_type, show_usd(p.hourly_usd), format_cpu(p.cpu), format_bytes(p.memory), p.gpu, p.gpu_type,
         p.max_nodes, "yes" if p.spot else "no", _show_share(p.per_gpu), *more)
        for (name, p), *more in zip(policy.pools.items(), *selectors.values(), strict=True)
    )  # fmt: skip
    heads = columns(
        "POOL", "INSTANCE", "USD AN HOUR", "CPU", "MEMORY", "GPU", "GPU TYPE", "MAX NODES", "SPOT", "FOR EACH GPU",
        *selectors,
    )  # fmt: skip
    screen.table(heads, pools, indent=2)
    screen.out("Tenants", style="bold")
    optional = {head: cells for head, cells in _optional_limits(policy).items() if any(cells)}
    tenants = (
        (name, t.namespace, t.quota.gpu, format_cpu(t.quota.cpu), format_bytes(t.quota.memory), t.quota.jobs,
         t.rate.per_minute, t.rate.burst, *more)
        for (name, t), *more in zip(policy.tenants.items(), *optional.values(), strict=True)
    )  # fmt: skip
    heads = columns("TENANT", "NAMESPACE", "GPU", "CPU", "MEMORY", "JOBS", "SUBMITS A MINUTE", "BURST", *optional)
    screen.table(heads, tenants, indent=2)
    volumes = [
        (name, volume, v.claim, v.path, "yes" if v.read_only else "no")
        for name, t in policy.tenants.items()
        for volume, v in t.volumes.items()
    ]
    if volumes:
        screen.out("Volumes", style="bold")
        screen.table(columns("TENANT", "VOLUME", "CLAIM", "PATH", "READ-ONLY"), volumes, indent=2)
    _show_capacity(screen, policy)


def _show_idle(limit: IdleGpuLimit) -> str:
    return f"{limit.action} below {limit.below_percent}% for {show_duration(limit.for_seconds)}"


def _show_share(share: PerGpu | None) -> str | None:
    return None if share is None else f"{format_cpu(share.cpu)} CPU, {format_bytes(share.memory)}"


def _show_capacity(screen: Screen, policy: Policy) -> None:
    from runway.pool_capacity import capacities

    screen.out("Quotas against pools", style="bold")
    rows = (
        (
            each.name,
            each.show(each.quotas),
            "unknown without max_nodes" if each.pools is None else each.show(each.pools),
        )
        for each in capacities(policy)
    )
    screen.table(columns("RESOURCE", "QUOTAS", "POOLS"), rows, indent=2)


def show_warnings(screen: Screen, policy: Policy) -> None:
    """Warn of quotas that the pools cannot hold together, even with their maximum number of nodes."""
    from runway.pool_capacity import capacities

    for each in capacities(policy):
        if each.is_sufficient is False and each.pools is not None:
            promised, held = each.show(each.quotas), each.show(each.pools)
            screen.err(f"warning: the quotas promise {promised} {each.name}, and the pools hold {held}", style="yellow")


def show_checked(screen: Screen, file: Path, policy: Policy, digest: str, difference: Difference | None) -> None:
    """Show a valid policy. The last lines say that it is valid, and what it changes."""
    show_policy(screen, policy)
    if difference is not None:
        show_difference(screen, difference)
    names, pools = list(policy.tenants), len(policy.pools)
    listed = ", ".join(names[:TENANTS_NAMED]) + (", ..." if len(names) > TENANTS_NAMED else "")
    tenants = f"{len(names)} tenant{'' if len(names) == 1 else 's'} ({listed})"
    about = f"{file}: {tenants}, {pools} pool{'' if pools == 1 else 's'}, hash {digest[:HASH_SHOWN]}"
    screen.out(Text("OK", "bold green"), about, hang=3)
    show_warnings(screen, policy)


def show_difference(screen: Screen, difference: Difference) -> None:
    """Show the changes of a policy file, and their effects on unfinished jobs."""
    screen.out("Changes of the policy in force", style="bold")
    if not difference.has_changes:
        screen.out("  none")
        return
    rows = [
        (change.field, change.running, change.file, Text(change.kind, _KINDS.get(change.kind, "")))
        for change in difference.changes
    ]
    if rows:
        screen.table(_CHANGES, rows, indent=2)
    elif difference.is_same is False:
        screen.out(f"  only in what Runway does not send: {NOT_SHOWN}", hang=2)
    if difference.is_same is None:
        screen.out(f"  not compared, since this Runway sends no hash: {NOT_SHOWN}", style="dim", hang=2)
    screen.out("Unfinished jobs", style="bold")
    for effect in difference.effects or ("none is affected: each keeps the limits and prices of its submission",):
        screen.out(f"  {effect}", hang=2)


def show_policy_error(screen: Screen, file: Path, error: PolicyError) -> None:
    """Show every fault in the style of a job's violations."""
    count = len(error.faults)
    screen.err(
        f"Error: {file} is not a valid policy: {count} error{'' if count == 1 else 's'}", style="bold red", hang=2
    )
    show_violations(screen.err, [_violation(fault) for fault in error.faults])


def _violation(fault: PolicyFault) -> dict[str, object]:
    place = fault.field if fault.line is None else f"line {fault.line}: {fault.field}"
    return asdict(fault) | {"field": place}


def _optional_limits(policy: Policy) -> dict[str, list[str]]:
    """Return the columns of optional limits, a cell for each tenant; empty without the limit."""
    tenants = policy.tenants.values()
    quotas = [tenant.quota for tenant in tenants]
    return {
        "GPU TYPES": [", ".join(f"{limit} {name}" for name, limit in quota.gpu_types.items()) for quota in quotas],
        "DISK": ["" if quota.disk is None else format_bytes(quota.disk) for quota in quotas],
        "USD AN HOUR": ["" if quota.usd_per_hour is None else _usd(quota.usd_per_hour) for quota in quotas],
        "BUDGET": [f"{_usd(t.budget.usd)} USD in {t.budget.hours} h" if t.budget else "" for t in tenants],
        "READS A MINUTE": [str(t.rate.reads.per_minute) if "reads" in t.rate.model_fields_set else "" for t in tenants],
        "STREAMS": [str(t.rate.streams) if "streams" in t.rate.model_fields_set else "" for t in tenants],
    }


def _node_terms(policy: Policy) -> dict[str, list[str]]:
    """Return the columns of node selectors and tolerations, a cell for each pool."""
    pools = policy.pools.values()
    return {
        "NODE SELECTOR": [", ".join(f"{key}={value}" for key, value in pool.node_selector.items()) for pool in pools],
        "TOLERATIONS": [", ".join(map(_toleration, pool.tolerations)) for pool in pools],
    }


def _toleration(toleration: PoolToleration) -> str:
    """Return a toleration as kubectl writes a taint: `key=value:effect`."""
    value = f"={toleration.value}" if toleration.operator == "Equal" else ""
    return f"{toleration.key or '*'}{value}:{toleration.effect or '*'}"


def _usd(micro: int) -> str:
    return show_usd(format_usd(micro))
