"""The pools that a pod may use, for its GPU type and price. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from runway.jobs.annotations import LABEL_POOL, Price
from runway.jobs.cost import hourly_micro_usd
from runway.jobs.resources import ResourceVector, requests_of
from runway.kube.objects import PodSpec
from runway.policy import Pool

Pools = Mapping[str, Pool]


def pod_amounts(spec: PodSpec, labels: Mapping[str, str], price: Price | None, pools: Pools) -> ResourceVector:
    """Return the amounts of one pod, at the price of its Job if Runway created it, else at that of its pool.

    If several pools are possible, the GPUs count for each of their types, at the highest price: a limit then holds
    whichever pool runs the pod.
    """
    requests = requests_of(spec)
    cpu, memory, gpu = requests.cpu, requests.memory, requests.gpu
    if price is not None and not gpu:
        return replace(requests, jobs=1, usd_per_hour=price.hourly)
    name = labels.get(LABEL_POOL) if price is None else price.pool
    possible = possible_pools(name, spec.node_selector, gpu, pools)
    types = sorted({pool.gpu_type for pool in possible if pool.gpu_type is not None}) if gpu else ()
    return replace(
        requests,
        jobs=1,
        gpu_types=tuple((gpu_type, gpu) for gpu_type in types),
        usd_per_hour=price.hourly
        if price is not None
        else max((hourly_micro_usd(pool, cpu, memory, gpu) for pool in possible), default=0),
    )


def possible_pools(name: str | None, selector: Mapping[str, str], gpu: int, pools: Pools) -> list[Pool]:
    """Return the pools that may run a pod, first match wins:

    1. the pool of this name;
    2. the pools whose node labels it selects, those with the most labels;
    3. pools with GPUs, or those without, that its node selector does not rule out;
    4. all pools with GPUs, or all without;
    5. all pools.
    """
    named = pools.get(name or "")
    if named is not None and (named.gpu or not gpu):
        return [named]
    fitting = [pool for pool in pools.values() if pool.gpu or not gpu]
    selected = [pool for pool in fitting if pool.node_selector and pool.node_selector.items() <= selector.items()]
    if selected:
        most = max(len(pool.node_selector) for pool in selected)
        return [pool for pool in selected if len(pool.node_selector) == most]
    alike = [pool for pool in pools.values() if bool(pool.gpu) == bool(gpu)]
    allowed = [
        pool for pool in alike if all(selector.get(key, value) == value for key, value in pool.node_selector.items())
    ]
    return allowed or alike or list(pools.values())
