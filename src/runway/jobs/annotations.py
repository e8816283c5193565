"""What Runway wrote on a Job when it admitted it: the specification and the price, as callers see them again. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from runway.jobs.identity import ANNOTATION_COST, ANNOTATION_SPEC
from runway.kube.objects import Job


@dataclass(frozen=True, slots=True)
class ResourcesView:
    """Resources as the caller wrote them, in Kubernetes quantities."""

    cpu: str
    memory: str
    gpu: int
    gpu_type: str | None


@dataclass(frozen=True, slots=True)
class SpecView:
    """The specification as admitted, every default filled in. Times are in seconds."""

    name: str | None
    image: str
    command: list[str]
    args: list[str]
    env: dict[str, str]
    resources: ResourcesView
    timeout_seconds: int
    retries: int
    grace_period_seconds: int
    max_cost_usd: str | None


@dataclass(frozen=True, slots=True)
class CostLineView:
    """One resource's part of the hourly price, in USD."""

    resource: str
    quantity: str
    hourly: str


@dataclass(frozen=True, slots=True)
class CostView:
    """What the job costs: an hour, at most, and in the end (null while that is unknown). USD as decimal strings."""

    currency: str
    rate_card: str
    hourly: str
    ceiling: str
    actual: str | None
    lines: list[CostLineView]


MAX_SECONDS: Final = 10 * 366 * 24 * 3600
"""Of a timeout or grace period: far more than any policy allows, and little enough to calculate with."""
MAX_RETRIES: Final = 10_000
MAX_GPUS: Final = 10_000
MAX_PRICE_TEXT: Final = 512
"""Characters of all names and quantities in a price: a pool and an instance type have 63 each."""
MAX_PRICE_LINES: Final = 3
"""CPU, memory and GPUs."""

_Decoded = TypeVar("_Decoded")

_USD = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")

_spec_decoder = msgspec.json.Decoder(SpecView)
_cost_decoder = msgspec.json.Decoder(CostView)


def spec_of(job: Job) -> SpecView | None:
    """The specification as admitted; None for a Job that did not come through Runway."""
    spec = read_annotation(_spec_decoder, job.metadata.annotations.get(ANNOTATION_SPEC))
    return spec if spec is not None and _is_possible(spec) else None


def cost_of(job: Job) -> CostView | None:
    """The price as admitted; None for a Job that did not come through Runway."""
    text = job.metadata.annotations.get(ANNOTATION_COST)
    return None if text is None else _price_of(text)


def usd(text: str) -> Decimal | None:
    """An amount as Runway writes it; None for a text that was changed by hand into something else."""
    return Decimal(text) if _USD.fullmatch(text) else None


def read_annotation(decoder: msgspec.json.Decoder[_Decoded], text: str | None) -> _Decoded | None:
    """What Runway once wrote in an annotation; None for a Job that is not its own, or was changed by hand."""
    try:
        return decoder.decode(text) if text is not None else None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _is_possible(spec: SpecView) -> bool:
    """Whether a policy could have admitted this: an annotation can be changed by hand."""
    return (
        0 <= spec.timeout_seconds <= MAX_SECONDS
        and 0 <= spec.grace_period_seconds <= MAX_SECONDS
        and 0 <= spec.retries <= MAX_RETRIES
        and 0 <= spec.resources.gpu <= MAX_GPUS
    )


@lru_cache(maxsize=256)
def _price_of(text: str) -> CostView | None:
    """The price in an annotation. Jobs have few prices, and a page of jobs asks for each of them."""
    cost = read_annotation(_cost_decoder, text)
    return cost if cost is not None and _is_price(cost) else None


def _is_price(cost: CostView) -> bool:
    """Whether Runway could have written this price."""
    lines = cost.lines[:MAX_PRICE_LINES]
    text = "".join([cost.currency, cost.rate_card, *[line.resource + line.quantity for line in lines]])
    return (
        len(cost.lines) <= MAX_PRICE_LINES
        and len(text) <= MAX_PRICE_TEXT
        and text.isprintable()
        and all(map(_USD.fullmatch, [cost.hourly, cost.ceiling, *[line.hourly for line in lines]]))
    )
