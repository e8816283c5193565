"""Compare a policy file with the policy in force, as `GET /v1/policy` sends it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from runway.api.models import AmountsView, TenantQuotaView
from runway.cli.views.tables import amount_of, limited_resources, to_milli
from runway.quantity import ceil_units, format_usd
from runway.text import show_usd

if TYPE_CHECKING:
    from runway.policy import Policy, Pool, Tenant

NOT_SHOWN: Final = (
    "node selectors, tolerations, logs.url_template, and each tenant's volumes, Secrets, images and service account"
)
"""What `GET /v1/policy` does not send, or only to the tenant itself."""
_OLD_NAMES: Final = ("limits.ephemeral_storage",)
_ENDING: Final = ("limits.start_timeout_seconds", "limits.idle_gpu")
_GROUPS: Final = ("pools.", "tenants.")


@dataclass(frozen=True, slots=True)
class Change:
    """One field with its value in force and in the file, None where it has none.

    `kind` is `up` or `down` for an amount, else `changed`, `added` or `removed`.
    """

    field: str
    running: str | None
    file: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes of a file, and what they do to unfinished jobs. `is_same` is None if the server sends no hash."""

    changes: tuple[Change, ...]
    effects: tuple[str, ...]
    is_same: bool | None

    @property
    def has_changes(self) -> bool:
        return self.is_same is False or bool(self.changes)


def compare(
    running: Mapping[str, Any], policy: Policy, file_hash: str, quotas: Sequence[TenantQuotaView]
) -> Difference:
    """Compare the document of the server with a policy. `quotas` has the usage of every tenant."""
    known = running.get("hash")
    is_same = None if known is None else known == file_hash
    old, new = _sent(running), _form_of(policy)
    found = (*_changes(dict(_leaves("", old)), dict(_leaves("", new))), *_order(old["pools"], new["pools"]))
    changes = () if is_same else found
    effects = (*_effects(policy, quotas), *_limits_in_force(changes, sum(quota.used.jobs for quota in quotas)))
    return Difference(changes, effects, is_same)


def _order(running: Mapping[str, Any], file: Mapping[str, Any]) -> Iterator[Change]:
    """Yield a change if the pools that stay have another order: a job without a pool runs in the first that fits."""
    before, after = ([name for name in one if name in other] for one, other in ((running, file), (file, running)))
    if before != after:
        yield Change("order of pools", ", ".join(before), ", ".join(after), "changed")


def _changes(running: Mapping[str, str], file: Mapping[str, str]) -> Iterator[Change]:
    """Yield a change for each pool or tenant that comes or goes, then one for each other field."""
    old_groups, new_groups = ({_group(field) for field in each} for each in (running, file))
    for group in (*sorted(new_groups - old_groups), *sorted(old_groups - new_groups)):
        if group.startswith(_GROUPS):
            is_new = group in new_groups
            before, after = (None, "present") if is_new else ("present", None)
            yield Change(group, before, after, "added" if is_new else "removed")
    for field in dict.fromkeys((*file, *running)):
        before, after = running.get(field), file.get(field)
        kind = _kind(before, after)
        if kind is not None and (_group(field) == field or _group(field) in old_groups & new_groups):
            yield Change(field, before, after, kind)


def _kind(old: str | None, new: str | None) -> str | None:
    """Return the kind of a change; None for the same value, as `0.768` and `0.7680` are."""
    if old is None or new is None or old == new:
        return None if old == new else "added" if old is None else "removed"
    try:
        before, after = ceil_units(old, 10**6), ceil_units(new, 10**6)
    except ValueError:
        return "changed"
    return None if after == before else "up" if after > before else "down"


def _group(field: str) -> str:
    """Return `tenants.vision` for a field of it, and the field itself outside pools and tenants."""
    return ".".join(field.split(".")[:2]) if field.startswith(_GROUPS) else field


def _limits_in_force(changes: Sequence[Change], count: int) -> Iterator[str]:
    """Yield the changed limits that end running jobs: Runway applies those in force, not those of the submission."""
    changed = [limit for limit in _ENDING if any(change.field.startswith(limit) for change in changes)]
    if changed and count:
        names, jobs = " and ".join(changed), "the unfinished job" if count == 1 else f"all {count} unfinished jobs"
        yield f"{names}: the new values also apply to {jobs}, which Runway can end by them"


def _effects(policy: Policy, quotas: Sequence[TenantQuotaView]) -> Iterator[str]:
    """Yield what the file does to the unfinished jobs of each tenant."""
    for quota in quotas:
        tenant, count = policy.tenants.get(quota.tenant), quota.used.jobs
        jobs, they, them = f"{count} unfinished jobs", "they continue", "them"
        if count == 1:
            jobs, they, them = "1 unfinished job", "it continues", "it"
        if tenant is not None and tenant.namespace == quota.namespace:
            for name, used, limit in _exceeded(quota, tenant):
                yield (
                    f"{quota.tenant} has {jobs} and uses {used}, above the new {name} {limit}: {they}, and "
                    "Runway admits none that needs more until enough is free"
                )
        elif count:
            yield f"{quota.tenant} has {jobs} in {quota.namespace}: Runway would no longer show, count or cancel {them}"


def _exceeded(quota: TenantQuotaView, tenant: Tenant) -> Iterator[tuple[str, object, object]]:
    """Yield the quotas, and the budget, that are below the usage."""
    limits = AmountsView(**tenant.quota.model_dump(mode="json"))
    for resource in limited_resources(limits):
        used, limit = amount_of(quota.used, resource), amount_of(limits, resource)
        if used is not None and to_milli(str(used)) > to_milli(str(limit)):
            yield f"quota.{resource}", used, limit
    if quota.budget is not None and tenant.budget is not None:
        committed = Decimal(quota.budget.spent) + Decimal(quota.budget.committed)
        if committed > (limit := Decimal(format_usd(tenant.budget.usd))):
            yield "budget.usd", show_usd(committed), show_usd(limit)


def _sent(running: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what both documents have."""
    pools = {
        name: {key: value for key, value in pool.items() if key not in ("hourly_usd_per", "free")}
        for name, pool in running["pools"].items()
    }
    tenants = {
        name: {key: value for key, value in tenant.items() if key != "own"}
        for name, tenant in running["tenants"].items()
    }
    return {"limits": running["limits"], "images": running["images"], "pools": pools, "tenants": tenants}


def _form_of(policy: Policy) -> Mapping[str, Any]:
    shown = {"namespace", "quota", "budget", "rate"}
    document = policy.model_dump(mode="json", include={"limits": True, "images": True, "tenants": {"__all__": shown}})
    return document | {"pools": {name: _pool(pool) for name, pool in policy.pools.items()}}


def _pool(pool: Pool) -> Mapping[str, Any]:
    document = pool.model_dump(mode="json", exclude={"node_selector", "tolerations"})
    node = {name: document.pop(name) for name in ("cpu", "memory", "gpu")}
    return document | {"node": node, "hourly_usd": f"{pool.hourly_usd:f}"}


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield path and text of each value; an entry of a list is part of the path, and null is no value."""
    if path in _OLD_NAMES or value is None:
        return
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), member)
    elif isinstance(value, list):
        yield from ((f"{path}[{entry}]", "present") for entry in value)
    elif isinstance(value, bool):
        yield path, "yes" if value else "no"
    else:
        yield path, str(value)
