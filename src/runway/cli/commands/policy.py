"""`runway policy check` and `runway tenants render`: the policy file seen without a server.

The policy's own modules are imported by the commands that need them, so that the others start faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runway.cli.exits import Exit
from runway.cli.output import Output, Screen, emit, emit_data, to_yaml
from runway.cli.text import show_duration
from runway.cli.views.tables import columns
from runway.errors import PolicyError
from runway.quantity import format_bytes, format_cpu

if TYPE_CHECKING:
    from runway.policy import Policy


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")],
    output: Annotated[Output, typer.Option("-o", "--output", help="Form of the result on stdout.")] = Output.TABLE,
) -> None:
    """Say what is wrong with a policy file, a line per fault, or what it would allow."""
    screen = Screen()
    policy = _load(file, screen, output)
    document = describe(policy)
    emit({"valid": True, "policy": document}, output, names=[str(file)], table=lambda: _show(screen, policy))


def render(
    policy: Annotated[Path, typer.Option("--policy", envvar="RUNWAY_POLICY", metavar="FILE", help="The policy file.")],
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only this tenant.")] = None,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("-o", "--output", help="A YAML stream, or one JSON List.")
    ] = "yaml",
) -> None:
    """Print the Kubernetes objects of the tenants: namespace, quota, limits, network policy, Runway's role.

    `runway tenants render | kubectl apply -f -` puts them in place, and may be repeated.
    """
    from runway.tenant_manifests import render as render_tenants

    loaded = _load(policy, Screen(), Output.JSON if output == "json" else Output.TABLE)
    if tenant is not None:
        if tenant not in loaded.tenants:
            raise typer.BadParameter(
                f"{tenant!r} is not in the policy; it has {', '.join(loaded.tenants)}", param_hint="--tenant"
            )
        loaded = loaded.model_copy(update={"tenants": {tenant: loaded.tenants[tenant]}})
    manifests = render_tenants(loaded)
    if output == "yaml":
        typer.echo(to_yaml(manifests), nl=False)
    else:
        emit_data({"apiVersion": "v1", "kind": "List", "items": manifests}, Output.JSON)


def describe(policy: Policy) -> dict[str, object]:
    """The policy in the terms of its file, every default filled in."""
    limits = policy.limits
    return {
        "version": policy.version,
        "limits": {
            "cpu": {"min": format_cpu(limits.cpu.min), "max": format_cpu(limits.cpu.max)},
            "memory": {"min": format_bytes(limits.memory.min), "max": format_bytes(limits.memory.max)},
            "gpu": {"max": limits.gpu.max},
            "timeout_seconds": limits.timeout_seconds.model_dump(),
            "grace_period_seconds": limits.grace_period_seconds.model_dump(),
            "retries": {"max": limits.retries.max},
            "ephemeral_storage": {"per_job": format_bytes(limits.ephemeral_storage.per_job)},
            "retention_seconds": limits.retention_seconds,
        },
        "images": {"allow": list(policy.images.allow)},
        "pools": {
            name: pool.model_dump(mode="json") | {"cpu": format_cpu(pool.cpu), "memory": format_bytes(pool.memory)}
            for name, pool in policy.pools.items()
        },
        "tenants": {
            name: {
                "namespace": tenant.namespace,
                "quota": tenant.quota.model_dump()
                | {"cpu": format_cpu(tenant.quota.cpu), "memory": format_bytes(tenant.quota.memory)},
                "rate": tenant.rate.model_dump(),
            }
            for name, tenant in policy.tenants.items()
        },
    }


def _load(file: Path, screen: Screen, output: Output) -> Policy:
    """The policy at `file`; where it is faulty every fault is shown and the command ends."""
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
    timeout, grace = limits.timeout_seconds, limits.grace_period_seconds
    screen.out("Bounds of a job", style="bold")
    bounds = (
        ("cpu", format_cpu(limits.cpu.min), format_cpu(limits.cpu.max), ""),
        ("memory", format_bytes(limits.memory.min), format_bytes(limits.memory.max), ""),
        ("gpu", 0, limits.gpu.max, 0),
        ("timeout", show_duration(timeout.min), show_duration(timeout.max), show_duration(timeout.default)),
        ("grace period", "", show_duration(grace.max), show_duration(grace.default)),
        ("retries", 0, limits.retries.max, 0),
        ("ephemeral storage", "", format_bytes(limits.ephemeral_storage.per_job), ""),
        ("kept after the end", "", "", show_duration(limits.retention_seconds)),
    )
    screen.table(columns("FIELD", "MIN", "MAX", "DEFAULT"), bounds, indent=2)
    screen.out("Images that may run", style="bold")
    for pattern in policy.images.allow:
        screen.out(f"  {pattern}")
    screen.out("Pools", style="bold")
    pools = (
        (
            name,
            pool.instance_type,
            pool.hourly_usd,
            format_cpu(pool.cpu),
            format_bytes(pool.memory),
            pool.gpu,
            pool.gpu_type,
        )
        for name, pool in policy.pools.items()
    )
    screen.table(columns("POOL", "INSTANCE", "USD AN HOUR", "CPU", "MEMORY", "GPU", "GPU TYPE"), pools, indent=2)
    screen.out("Tenants", style="bold")
    tenants = (
        (name, t.namespace, t.quota.gpu, format_cpu(t.quota.cpu), format_bytes(t.quota.memory), t.quota.jobs,
         t.rate.per_minute, t.rate.burst)
        for name, t in policy.tenants.items()
    )  # fmt: skip
    heads = columns("TENANT", "NAMESPACE", "GPU", "CPU", "MEMORY", "JOBS", "SUBMITS A MINUTE", "BURST")
    screen.table(heads, tenants, indent=2)
