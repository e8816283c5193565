"""Labels and annotations of a Job, and the specification and price in them. Pure.

Runway rebuilds its state from them after a restart, so their names never change.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

import msgspec

from runway.jobs.models import JOB_ID_GRAMMAR, CostView, SpecView
from runway.kube.objects import MAX_SECONDS, Job, MetadataFilter
from runway.quantity import micro_usd

PREFIX: Final = "runway.internal/"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_JOB: Final = PREFIX + "job"
LABEL_NAME: Final = PREFIX + "name"
LABEL_POOL: Final = PREFIX + "pool"
LABEL_TENANT: Final = PREFIX + "tenant"
ANNOTATION_COST: Final = PREFIX + "cost"
ANNOTATION_CANCELLED_AT: Final = PREFIX + "cancelled-at"
ANNOTATION_ENDED: Final = PREFIX + "ended"
ANNOTATION_RECORD: Final = PREFIX + "record"
ANNOTATION_REQUEST_HASH: Final = PREFIX + "request-hash"
ANNOTATION_SPEC: Final = PREFIX + "spec"
ANNOTATION_SPEC_HASH: Final = PREFIX + "spec-hash"
ANNOTATION_START_TIMEOUT: Final = PREFIX + "start-timeout"

MANAGED_BY: Final = "runway"
JOB_ID: Final = re.compile(JOB_ID_GRAMMAR)

METADATA: Final = MetadataFilter(
    labels=frozenset({LABEL_MANAGED_BY, LABEL_JOB, LABEL_NAME, LABEL_POOL, LABEL_TENANT}),
    annotations={
        ANNOTATION_CANCELLED_AT: 64,
        ANNOTATION_COST: 4096,
        ANNOTATION_ENDED: 4096,
        ANNOTATION_RECORD: 32 * 1024,
        ANNOTATION_REQUEST_HASH: 64,
        ANNOTATION_SPEC: 256 * 1024,
        ANNOTATION_SPEC_HASH: 64,
        ANNOTATION_START_TIMEOUT: 4096,
    },
)
"""The labels and annotations that Runway reads; some limits are twice the size that Runway writes."""
MAX_RETRIES: Final = 10_000
MAX_GPUS: Final = 10_000
MAX_USER: Final = 2**31 - 1  # The limit of Kubernetes.
MAX_CACHED_SPEC: Final = 1024
"""Characters of a specification that is decoded once for all its jobs and their events; few are longer."""
MAX_PRICE_TEXT: Final = 512
"""Characters of all names and quantities in a price: a pool and an instance type have 63 each."""
MAX_PRICE_LINES: Final = 3  # CPU, memory and GPUs.

_Decoded = TypeVar("_Decoded")

_USD = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")

_spec_decoder = msgspec.json.Decoder(SpecView)
_cost_decoder = msgspec.json.Decoder(CostView)


def spec_of(job: Job) -> SpecView | None:
    """Return the admitted specification; None for a Job that was created outside Runway."""
    text = job.metadata.annotations.get(ANNOTATION_SPEC)
    if text is None:
        return None
    return _cached_spec(text) if len(text) <= MAX_CACHED_SPEC else _read_spec(text)


def _read_spec(text: str) -> SpecView | None:
    spec = read_annotation(_spec_decoder, text)
    if spec is None:
        return None
    seconds = (spec.timeout_seconds, spec.grace_period_seconds)
    possible = all(0 <= value <= MAX_SECONDS for value in seconds) and 0 <= spec.retries <= MAX_RETRIES
    possible = possible and 0 < spec.user <= MAX_USER
    possible = possible and (spec.start_timeout_seconds is None or 0 < spec.start_timeout_seconds <= MAX_SECONDS)
    return spec if possible and 0 <= spec.resources.gpu <= MAX_GPUS else None


_cached_spec = lru_cache(maxsize=256)(_read_spec)


def cost_of(job: Job) -> CostView | None:
    """Return the price at admission; None for a Job that was created outside Runway."""
    text = job.metadata.annotations.get(ANNOTATION_COST)
    return None if text is None else _price_of(text)


class Price(NamedTuple):
    """The price of a job at admission, in micro-USD, and its pool."""

    hourly: int
    ceiling: int
    pool: str


def price_of(job: Job) -> Price | None:
    """Return the price of a Job that Runway created; None for others, and if its annotation is not readable."""
    text = job.metadata.annotations.get(ANNOTATION_COST)
    return None if text is None or job.metadata.labels.get(LABEL_MANAGED_BY) != MANAGED_BY else _amounts_of(text)


def pool_of(spec: SpecView | None, cost: CostView | None) -> str | None:
    """Return the name of the job's pool. Version 0.7 stored it only in the rate card of the price."""
    if spec is not None and spec.pool is not None:
        return spec.pool
    return None if cost is None else cost.rate_card.partition("/")[0] or None


def usd(text: str) -> Decimal | None:
    """Parse an amount; None for a text that Runway does not write."""
    return Decimal(text) if _USD.fullmatch(text) else None


def read_annotation(decoder: msgspec.json.Decoder[_Decoded], text: str | None) -> _Decoded | None:
    """Decode an annotation; None without one, or if it is invalid: anyone with access can edit it."""
    try:
        return decoder.decode(text) if text is not None else None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


@lru_cache(maxsize=256)
def _price_of(text: str) -> CostView | None:
    cost = read_annotation(_cost_decoder, text)
    return cost if cost is not None and _is_price(cost) else None


@lru_cache(maxsize=256)
def _amounts_of(text: str) -> Price | None:
    cost = _price_of(text)
    if cost is None:
        return None
    return Price(micro_usd(cost.hourly), micro_usd(cost.ceiling), cost.rate_card.partition("/")[0])


def _is_price(cost: CostView) -> bool:
    lines = cost.lines[:MAX_PRICE_LINES]
    text = "".join([cost.currency, cost.rate_card, *[line.resource + line.quantity for line in lines]])
    return (
        len(cost.lines) <= MAX_PRICE_LINES
        and len(text) <= MAX_PRICE_TEXT
        and text.isprintable()
        and all(map(_USD.fullmatch, [cost.hourly, cost.ceiling, *[line.hourly for line in lines]]))
    )
