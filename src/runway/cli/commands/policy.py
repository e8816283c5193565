"""`runway policy check`, `runway tenants render` and `runway tenants apply`: read the policy file.

These commands import the policy's modules when they run, so that the other commands start faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runway.cli.context import Exit, configuration_errors, load_server_module
from runway.cli.options import As
from runway.cli.output import Output, Screen, emit, emit_data, to_yaml
from runway.cli.views.tables import columns
from runway.errors import PolicyError
from runway.quantity import format_bytes, format_cpu, format_usd
from runway.text import show_duration

if TYPE_CHECKING:
    from runway.policy import PerGpu, Policy

PolicyFile = Annotated[Path, typer.Option("--policy", envvar="RUNWAY_POLICY", metavar="FILE", help="The policy file.")]
OneTenant = Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant.")]
AdmissionPolicy = Annotated[
    bool,
    typer.Option(
        "--admission-policy",
        help="Also a ValidatingAdmissionPolicy: only Runway and the Job controller create Jobs and pods there.",
    ),
]
RunwayUsers = Annotated[
    list[str] | None,
    typer.Option(
        "--runway-user",
        metavar="USER",
        help="Kubernetes user that Runway runs as, for --admission-policy; repeatable. Default: its service account.",
    ),
]


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")],
    output: Annotated[Output, typer.Option("-o", "--output", help="Format of the result on stdout.")] = Output.TABLE,
) -> None:
    """Validate a policy file: show each fault on a line, or the limits, pools and tenants of a valid file."""
    from runway.pool_capacity import capacities

    screen = Screen()
    policy = load_policy_file(file, screen, output)
    document = policy.model_dump(mode="json")
    capacity = [found.to_json() for found in capacities(policy)]
    emit(
        {"valid": True, "policy": document, "capacity": capacity},
        output,
        names=[str(file)],
        table=lambda: _show(screen, policy),
    )


def render(
    policy: PolicyFile,
    tenant: OneTenant = None,
    admission_policy: AdmissionPolicy = False,
    runway_user: RunwayUsers = None,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("-o", "--output", help="A YAML stream, or one JSON List.")
    ] = "yaml",
) -> None:
    """Print the Kubernetes objects of the tenants.

    Each tenant has a namespace, quota, limits, network policies, a service account for its jobs, and a role for Runway.

    `runway tenants apply` creates or updates them.
    """
    loaded = load_policy_file(policy, Screen(), Output.JSON if output == "json" else Output.TABLE)
    manifests = _manifests(loaded, tenant, admission_policy, runway_user)
    if output == "yaml":
        typer.echo(to_yaml(manifests), nl=False)
    else:
        emit_data({"apiVersion": "v1", "kind": "List", "items": manifests}, Output.JSON)


def apply(
    policy: PolicyFile,
    tenant: OneTenant = None,
    admission_policy: AdmissionPolicy = False,
    runway_user: RunwayUsers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check each object, and change nothing.")
    ] = False,
    output: As = Output.TABLE,
) -> None:
    """Create or update the Kubernetes objects of the tenants, with your own kubeconfig. Deletes nothing.

    KUBECONFIG or ~/.kube/config names the cluster. It needs permission to create namespaces and Roles.
    """
    screen = Screen()
    loaded = load_policy_file(policy, screen, output)
    manifests = _manifests(loaded, tenant, admission_policy, runway_user)
    with configuration_errors(screen):
        results = load_server_module("runway.doctor.run", "tenants apply").apply(manifests, dry_run=dry_run)
    objects = [{"object": name, "accepted": reason is None, "reason": reason} for name, reason in results]

    def show() -> None:
        for name, reason in results:
            if reason is None:
                screen.out(name, "accepted (dry run)" if dry_run else "applied")
            else:
                screen.err(f"{name}: {reason}", style="red")

    is_complete = all(reason is None for _, reason in results)
    emit(
        {"complete": is_complete, "dry_run": dry_run, "objects": objects},
        output,
        names=[name for name, _ in results],
        table=show,
    )
    if not is_complete:
        raise typer.Exit(Exit.REJECTED)


def _manifests(
    policy: Policy, tenant: str | None, admission_policy: bool, runway_users: list[str] | None
) -> list[dict[str, object]]:
    from runway.tenant_manifests import RUNWAY_USER, render_admission_policy
    from runway.tenant_manifests import render as render_tenants

    if tenant is not None:
        if tenant not in policy.tenants:
            raise typer.BadParameter(
                f"{tenant!r} is not in the policy; it has {', '.join(policy.tenants)}", param_hint="--tenant"
            )
        policy = policy.model_copy(update={"tenants": {tenant: policy.tenants[tenant]}})
    manifests = render_tenants(policy)
    if runway_users and not admission_policy:
        raise typer.BadParameter("it needs --admission-policy", param_hint="--runway-user")
    return manifests + (render_admission_policy(runway_users or [RUNWAY_USER]) if admission_policy else [])


def load_policy_file(file: Path, screen: Screen, output: Output) -> Policy:
    from runway.policy import load_policy

    try:
        return load_policy(file)
    except PolicyError as error:
        if output in (Output.JSON, Output.YAML):
            faults = [{"field": field, "message": message} for field, message in error.faults]
            emit_data({"valid": False, "faults": faults}, output)
        for field, message in error.faults:
            screen.err(f"{field}: {message}", style="red")
        raise typer.Exit(Exit.REJECTED) from error


def _show(screen: Screen, policy: Policy) -> None:
    limits = policy.limits
    timeout, grace, disk, user = limits.timeout_seconds, limits.grace_period_seconds, limits.disk, limits.user
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
    )
    screen.table(columns("FIELD", "MIN", "MAX", "DEFAULT"), bounds, indent=2)
    screen.out("Allowed images", style="bold")
    for pattern in policy.images.allow:
        screen.out(f"  {pattern}")
    if policy.logs:
        screen.out("Links to stored logs", style="bold")
        screen.out(f"  {policy.logs.url_template}")
    screen.out("Pools", style="bold")
    pools = (
        (name, p.instance_type, p.hourly_usd, format_cpu(p.cpu), format_bytes(p.memory), p.gpu, p.gpu_type,
         p.max_nodes, "yes" if p.spot else "no", _show_share(p.per_gpu))
        for name, p in policy.pools.items()
    )  # fmt: skip
    heads = columns(
        "POOL", "INSTANCE", "USD AN HOUR", "CPU", "MEMORY", "GPU", "GPU TYPE", "MAX NODES", "SPOT", "FOR EACH GPU"
    )
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


def _show_share(share: PerGpu | None) -> str | None:
    return None if share is None else f"{format_cpu(share.cpu)} CPU, {format_bytes(share.memory)}"


def _show_capacity(screen: Screen, policy: Policy) -> None:
    from runway.pool_capacity import capacities

    screen.out("Quotas against pools", style="bold")
    found = capacities(policy)
    rows = (
        (each.name, each.show(each.quotas), "unknown" if each.pools is None else each.show(each.pools))
        for each in found
    )
    screen.table(columns("RESOURCE", "QUOTAS", "POOLS"), rows, indent=2)
    for each in found:
        if each.is_sufficient is False and each.pools is not None:
            promised, held = each.show(each.quotas), each.show(each.pools)
            screen.err(f"warning: the quotas promise {promised} {each.name}, and the pools hold {held}", style="yellow")


def _optional_limits(policy: Policy) -> dict[str, list[str]]:
    """Return the columns of optional limits, a cell for each tenant; empty without the limit."""
    tenants = policy.tenants.values()
    quotas = [tenant.quota for tenant in tenants]
    return {
        "GPU TYPES": [", ".join(f"{limit} {name}" for name, limit in quota.gpu_types.items()) for quota in quotas],
        "DISK": ["" if quota.disk is None else format_bytes(quota.disk) for quota in quotas],
        "USD AN HOUR": ["" if quota.usd_per_hour is None else format_usd(quota.usd_per_hour) for quota in quotas],
        "BUDGET": [f"{format_usd(t.budget.usd)} USD in {t.budget.hours} h" if t.budget else "" for t in tenants],
    }
