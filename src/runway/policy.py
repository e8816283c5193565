"""The policy file: bounds, images, pools and tenants, validated strictly into a frozen `Policy`.

Everything an operator decides stands in this one file. A fault stops the start with a message that names the field.
Quantities must be quoted strings: YAML reads `0123` as octal and `1e3` as a float, so bare numbers are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from runway.errors import PolicyError
from runway.quantity import parse_bytes, parse_cpu
from runway.yaml_loader import StrictLoader, UnreadableYaml, parse, read_file, sanitize_message

MAX_FAULTS: Final = 20
"""Faults of a policy that are shown, one a line: they fit on one screen."""
MAX_NODE_TERMS: Final = 50
"""Node selector labels, and tolerations, of a pool: each is copied into every Job that runs in it."""

_T = TypeVar("_T")

TENANT_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PLAIN_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
RUNWAY_NAMESPACE: Final = "runway"
"""Where Runway itself is deployed (deploy/kustomize/base)."""

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL_VALUE = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_IMAGE_PATTERN = r"^[a-z0-9]([-a-z0-9.:]*[a-z0-9])?(/[a-z0-9]([-a-z0-9._]*[a-z0-9])?)*(/\*)?$"


def _quoted(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'must be a quoted {what}, for example "{"0.768" if what == "amount" else "16"}"')
    return value


def _cpu(value: object) -> int:
    return parse_cpu(_quoted(value, "quantity"))


def _bytes(value: object) -> int:
    return parse_bytes(_quoted(value, "quantity"))


def _usd(value: object) -> Decimal:
    text = _quoted(value, "amount")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError("must be an amount in USD, such as 0.768") from None
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) or amount <= 0:
        raise ValueError("must be an amount in USD above 0 with at most 6 decimals")
    return amount


MilliCpu = Annotated[int, BeforeValidator(_cpu)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Usd = Annotated[Decimal, BeforeValidator(_usd)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)


class CpuRange(_Frozen):
    """Milli-CPU a job may ask for."""

    min: MilliCpu
    max: MilliCpu

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _check_range(self, self.min, self.max, floor=1)


class MemoryRange(_Frozen):
    """Bytes a job may ask for."""

    min: Bytes
    max: Bytes

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _check_range(self, self.min, self.max, floor=1)


class GpuLimit(_Frozen):
    """Whole GPUs a job may ask for."""

    max: int = Field(ge=0, le=64)


class TimeoutRange(_Frozen):
    """Seconds a job may live, from acceptance to its end."""

    min: int = Field(ge=1)
    max: int = Field(le=31_536_000)
    default: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.default <= self.max:
            raise ValueError("min <= default <= max does not hold")
        return self


class GraceLimit(_Frozen):
    """Seconds between SIGTERM and SIGKILL."""

    max: int = Field(ge=1, le=3600)
    default: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.default > self.max:
            raise ValueError("default is above max")
        return self


class RetryLimit(_Frozen):
    """How often a failed attempt may be repeated."""

    max: int = Field(ge=0, le=10)


class StorageLimit(_Frozen):
    """Bytes of node disk a job's writable layer and logs may take, so that no job fills a node's disk.

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
    """

    per_job: Bytes


class Limits(_Frozen):
    """The bounds every job spec must keep."""

    cpu: CpuRange
    memory: MemoryRange
    gpu: GpuLimit
    timeout_seconds: TimeoutRange
    grace_period_seconds: GraceLimit
    retries: RetryLimit
    ephemeral_storage: StorageLimit = StorageLimit.model_construct(per_job=10 * 1024**3)
    retention_seconds: int = Field(default=86_400, ge=60, le=2_592_000)
    """How long a finished job is kept: the Job's `ttlSecondsAfterFinished`."""


class Images(_Frozen):
    """Which images may run: exact repositories, or everything below a path (`registry/team/*`)."""

    allow: tuple[Annotated[str, Field(pattern=_IMAGE_PATTERN, max_length=255)], ...] = Field(
        min_length=1, max_length=200, strict=False
    )

    @field_validator("allow")
    @classmethod
    def _names_a_registry(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        """Images are compared as a node would pull them, so a pattern without a registry would never match."""
        for pattern in allow:
            first, slash, _ = pattern.partition("/")
            if not slash or not ("." in first or ":" in first or first == "localhost"):
                raise ValueError(f"{pattern} must start with a registry, such as docker.io/library/{pattern}")
        return allow


class Toleration(_Frozen):
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""

    key: str | None = Field(default=None, pattern=_LABEL_KEY)
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = Field(default=None, pattern=rf"{_LABEL_VALUE}|^$")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pool(_Frozen):
    """One kind of node: what a node holds, what it costs an hour, and how pods find it."""

    instance_type: str = Field(min_length=1, max_length=63)
    hourly_usd: Usd
    cpu: MilliCpu = Field(gt=0)
    memory: Bytes = Field(gt=0)
    gpu: int = Field(default=0, ge=0, le=64)
    gpu_type: str | None = Field(default=None, pattern=_LABEL_VALUE)
    node_selector: dict[Annotated[str, Field(pattern=_LABEL_KEY)], Annotated[str, Field(pattern=_LABEL_VALUE)]] = Field(
        default_factory=dict, max_length=MAX_NODE_TERMS
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=MAX_NODE_TERMS, strict=False)

    @model_validator(mode="after")
    def _gpu_has_type(self) -> Self:
        if (self.gpu > 0) != (self.gpu_type is not None):
            raise ValueError("gpu and gpu_type go together: give both or neither")
        return self


class Quota(_Frozen):
    """What a tenant may hold at once: whole GPUs, milli-CPU, bytes, jobs that are not over."""

    gpu: int = Field(ge=0, le=1_000_000)
    cpu: MilliCpu
    memory: Bytes
    jobs: int = Field(ge=0, le=1_000_000)


class Rate(_Frozen):
    """So many requests a minute in the long run, so many at once."""

    per_minute: int = Field(ge=1, le=1_000_000)
    burst: int = Field(ge=1, le=1_000_000)


class TenantRate(Rate):
    """A tenant's submissions; its reads and its open streams, each apart."""

    reads: Rate = Rate.model_construct(per_minute=6000, burst=600)
    streams: int = Field(default=20, ge=1, le=10_000)


class Tenant(_Frozen):
    """A team: its namespace, what it may hold and how fast it may submit."""

    namespace: str = Field(pattern=_DNS_LABEL)
    quota: Quota
    rate: TenantRate

    @field_validator("namespace")
    @classmethod
    def _for_tenants(cls, namespace: str) -> str:
        """Rendering a tenant would close the network of a namespace that the cluster or Runway itself lives in.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
        """
        if namespace in ("default", RUNWAY_NAMESPACE) or namespace.startswith("kube-"):
            raise ValueError(f"{namespace} is not for tenants: it is Kubernetes' or Runway's own")
        return namespace


class Policy(_Frozen):
    """The whole policy. Pools and tenants keep the order of the file."""

    version: int = Field(ge=1, le=1)
    limits: Limits
    images: Images
    pools: dict[Annotated[str, Field(pattern=_DNS_LABEL)], Pool] = Field(min_length=1, max_length=100)
    tenants: dict[Annotated[str, Field(pattern=_DNS_LABEL)], Tenant] = Field(min_length=1, max_length=10_000)

    @field_validator("pools")
    @classmethod
    def _one_pool_per_type(cls, pools: dict[str, Pool]) -> dict[str, Pool]:
        _refuse_twice("gpu_type", [pool.gpu_type for pool in pools.values() if pool.gpu_type is not None])
        return pools

    @field_validator("tenants")
    @classmethod
    def _one_tenant_per_namespace(cls, tenants: dict[str, Tenant]) -> dict[str, Tenant]:
        _refuse_twice("namespace", [tenant.namespace for tenant in tenants.values()])
        return tenants

    def pool_for(self, gpu: int, gpu_type: str | None) -> str | None:
        """The name of the pool that runs a job with so many GPUs of that type; None where there is none.

        GPU jobs go to the pool of their type, or to the only GPU pool where the type is left out;
        other jobs go to the first pool without GPUs.
        """
        if gpu == 0:
            return next((name for name, pool in self.pools.items() if pool.gpu == 0), None)
        fitting = [n for n, pool in self.pools.items() if pool.gpu > 0 and gpu_type in (None, pool.gpu_type)]
        return fitting[0] if len(fitting) == 1 else None

    @property
    def gpu_types(self) -> tuple[str, ...]:
        """Every GPU type that a pool offers, in the order of the file."""
        return tuple(pool.gpu_type for pool in self.pools.values() if pool.gpu_type is not None)


def load_policy(path: str | Path) -> Policy:
    """Read and validate the policy at `path`. Raises PolicyError, which names every faulty field."""
    try:
        content = read_file(Path(path))
    except UnreadableYaml as error:
        raise PolicyError([(sanitize_message(str(path)), str(error))]) from error
    return parse_policy(content)


def parse_policy(content: bytes | str) -> Policy:
    """Validate a policy's YAML text. Raises PolicyError, which names the first `MAX_FAULTS` faulty fields."""
    try:
        document = parse(content, _PolicyLoader)
    except UnreadableYaml as error:
        raise PolicyError([("file", str(error))]) from error
    if not isinstance(document, Mapping):
        raise PolicyError([("file", "must be a mapping with version, limits, images, pools and tenants")])
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        listed = [
            (
                sanitize_message(".".join(map(str, fault["loc"]))) or "file",
                sanitize_message(fault["msg"].removeprefix("Value error, ")),
            )
            for fault in faults[:MAX_FAULTS]
        ]
        if len(faults) > MAX_FAULTS:
            listed.append(("file", f"{len(faults) - MAX_FAULTS} more faults are not shown"))
        raise PolicyError(listed) from error


def _check_range(item: _T, low: int, high: int, *, floor: int) -> _T:
    if not floor <= low <= high:
        raise ValueError("0 < min <= max does not hold")
    return item


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    twice = sorted(value for value, count in Counter(values).items() if count > 1)
    if twice:
        raise ValueError(f"{what} {', '.join(twice)} is given twice")


class _PolicyLoader(StrictLoader):
    """Takes no number that YAML reads as another: `0100` is 64 to it, `1:30` is 90."""

    def construct_plain_int(self, node: yaml.ScalarNode) -> object:
        """A plain decimal number, or a value that no field takes: the fault then names the field."""
        return int(node.value) if _PLAIN_INTEGER.fullmatch(node.value) else _NotPlain()


class _NotPlain:
    """Stands for a number written in a way that YAML reads as another."""


_PolicyLoader.add_constructor("tag:yaml.org,2002:int", _PolicyLoader.construct_plain_int)
