"""`runway limits`: what a tenant may use, what it costs, and what is free now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer
from rich.text import Text

from runway.cli.context import open_session
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, Screen, emit
from runway.cli.views.tables import Column, columns, show_quantity
from runway.cli.wait import briefly
from runway.text import escape, show_duration, show_usd

_LIMITS: Final = columns("FIELD", "MIN", "MAX", "DEFAULT")
_POOLS: Final = columns("POOL", "GPU TYPE", "A NODE", "FREE NOW")
_PRICES: Final = [
    Column(title="POOL"),
    *(Column(title=title, right=True) for title in ("A NODE", "A CPU", "A GiB", "A GPU")),
]
_NO_FIELDS: Final = ("ephemeral_storage",)
"""Names of version 0.7 for a limit that is shown under its new name."""
_LABELS: Final = {"idle_gpu": "idle GPU", "secrets_in_env": "credentials in env"}


def limits(context: typer.Context, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None) -> None:
    """Show what you may use, what it costs, and what is free now.

    Bounds, images, GPU types, prices, volumes and Secrets. FREE NOW has the ready nodes of a pool, and the most GPUs,
    CPU and memory that one of them has free. Volumes and Secrets are those of the tenant. `runway quota` shows how much
    of the quota is used.
    """
    with open_session(context, url, tenant, output) as session:
        policy = briefly(session, session.client.policy)
        emit(policy, output, names=list(policy["pools"]), table=lambda: _show(session.screen, policy, tenant))


def _show(screen: Screen, policy: Mapping[str, Any], tenant: str | None) -> None:
    screen.out("Limits of a job", style="bold")
    screen.table(_LIMITS, _limits(policy["limits"]), indent=2)
    about = _mapping(policy["tenants"].get(tenant or ""))
    own = _mapping(about.get("own"))
    screen.out("Images", style="bold")
    images = (_mapping(own.get("images")) or policy["images"]).get("allow")
    for image in images if isinstance(images, list) else ():
        screen.out(f"  {image}")
    pools = {name: _mapping(pool) for name, pool in policy["pools"].items()}
    screen.out("Pools", style="bold")
    screen.table(_POOLS, [_pool(name, pool) for name, pool in pools.items()], indent=2)
    screen.out("Prices in USD an hour", style="bold")
    screen.table(_PRICES, [_prices(name, pool) for name, pool in pools.items()], indent=2)
    if quota := _mapping(about.get("quota")):
        rate = _mapping(about.get("rate"))
        screen.out(f"Quota of {tenant}", style="bold")
        amounts = ", ".join(f"{name} {show_quantity(name, amount)}" for name, amount in quota.items() if amount)
        screen.out(f"  {amounts}; {rate.get('per_minute')} submissions a minute, {rate.get('burst')} at once", hang=2)
    for title in ("volumes", "secrets"):
        if items := own.get(title):
            screen.out(title.capitalize(), style="bold")
            for item in items:
                screen.out(f"  {item}", _volume(items[item]) if isinstance(items, Mapping) else "")


def _limits(document: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each bound, and for each number and text. Fields of a newer server are shown, too."""
    for name, bound in document.items():
        if name in _NO_FIELDS:
            continue
        label = _label(name)
        if not isinstance(bound, Mapping):
            yield label, "", "", _amount(name, bound) or "none"
        elif bound.keys() & {"min", "max", "default"}:
            yield label, *(_amount(name, bound.get(key)) for key in ("min", "max", "default"))
        elif bound.keys() >= {"below_percent", "for_seconds", "action"}:
            percent, time = bound["below_percent"], _amount("for_seconds", bound["for_seconds"])
            yield label, "", "", f"{bound['action']} below {percent}% for {time}"
        else:
            for cause, value in bound.items():
                yield f"{label}: {_label(cause)}", "", _amount(name, value) or "none", ""


def _label(name: str) -> str:
    return _LABELS.get(name) or name.removesuffix("_seconds").replace("_", " ")


def _amount(name: str, value: object) -> str:
    if value is None:
        return ""
    return show_duration(value) if name.endswith("_seconds") and isinstance(value, int) else str(value)


def _pool(name: str, pool: Mapping[str, Any]) -> tuple[object, ...]:
    node = _mapping(pool.get("node"))
    return name, pool.get("gpu_type"), f"{_gpus(node)}{_cpu_and_memory(node)}", _free(pool.get("free"), node)


def _prices(name: str, pool: Mapping[str, Any]) -> tuple[object, ...]:
    price = _mapping(pool.get("hourly_usd_per"))
    parts = (show_usd(price[part]) if part in price else "" for part in ("cpu", "memory_gib", "gpu"))
    return name, show_usd(pool.get("hourly_usd")), *parts


def _free(free: object, node: Mapping[str, Any]) -> Text:
    known = _mapping(free)
    if not known:
        return Text("unknown", "dim")
    if not known.get("nodes"):
        return Text("no ready node", "yellow")
    nodes = "1 node" if known["nodes"] == 1 else f"{known['nodes']} nodes"
    gpus = f"{known.get('gpu')} GPU (of {known.get('gpu_total')}), " if node.get("gpu") else ""
    return Text(escape(f"{nodes}: {gpus}{_cpu_and_memory(known)}"))


def _gpus(node: Mapping[str, Any]) -> str:
    return f"{node['gpu']} GPU, " if node.get("gpu") else ""


def _cpu_and_memory(amounts: Mapping[str, Any]) -> str:
    return f"{show_quantity('cpu', amounts.get('cpu'))} CPU, {show_quantity('memory', amounts.get('memory'))}"


def _volume(volume: object) -> str:
    known = _mapping(volume)
    return f"at {known.get('path')}{', read-only' if known.get('read_only') else ''}" if known else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
