"""The operator's policy file, validated into a frozen `Policy`.

An invalid policy stops the start with a message that names each field. Quantities must be quoted strings, since YAML
reads `0123` as octal and `1e3` as a float.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from runway.errors import PolicyError, PolicyFault
from runway.policy_faults import MAX_FAULTS, UNQUOTED, FaultFinder, field_of, policy_error
from runway.quantity import format_bytes, format_cpu, format_usd, micro_usd, parse_bytes, parse_cpu
from runway.yaml_loader import (
    DuplicateKey,
    Source,
    StrictLoader,
    UnreadableYaml,
    YamlPath,
    parse,
    read_private_file,
    sanitize_message,
)

MAX_NODE_TERMS: Final = 50
"""Node selector labels of a pool, and its tolerations. Runway copies each into every Job of the pool."""
SPOT_NOTICE_SECONDS: Final = 120
"""The notice of a spot interruption, and so the longest grace period that a spot node can keep.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""
MAX_REFERENCES: Final = 50
"""Volumes, Secrets, image pull secrets and service account annotations of a tenant, each."""
MAX_VOLUME_NAME: Final = 50  # Runway adds a prefix, and a pod's volume name has at most 63 characters.
RESERVED_PATHS: Final = ("/dev", "/etc", "/proc", "/run", "/scratch", "/sys", "/var/run")
"""Directories that Runway, the runtime or Kubernetes provides. No volume may be at, above or below one."""
DISK_PER_JOB: Final = 10 * 1024**3  # Bytes of disk of a job, if the policy sets no limit.
MIN_DISK: Final = 1024**3  # Bytes of disk that a job may at least ask for, if the policy has no `limits.disk`.
RUNWAY_NAMESPACE: Final = "runway"  # Namespace of Runway itself (deploy/chart).

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
TENANT_NAME: Final = re.compile(_DNS_LABEL)
_DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_VOLUME_NAME = rf"^[a-z0-9]([-a-z0-9]{{0,{MAX_VOLUME_NAME - 2}}}[a-z0-9])?$"
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL_VALUE = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LOG_PLACEHOLDERS: Final = ("namespace", "tenant", "job", "pod", "from", "to", "from_time", "to_time")
"""`from` and `to` are Unix times in milliseconds, `from_time` and `to_time` RFC 3339 in UTC."""
LOG_PLACEHOLDER: Final = re.compile(rf"\{{({'|'.join(LOG_PLACEHOLDERS)})\}}")
_URL_CHARACTERS: Final = re.compile(r"[!#-;=?-\[\]_a-z~]*")
"""Printable ASCII without the characters that a URL must encode. Braces are checked apart."""
_ANNOTATION_VALUE = r"^[ -~]{0,1024}$"
# Each component begins with a letter, digit or underscore, so none is "." or "..".
_MOUNT_PATH = re.compile(r"(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+")
_IMAGE_PATTERN = r"^[a-z0-9]([-a-z0-9.:]*[a-z0-9])?(/[a-z0-9]([-a-z0-9._]*[a-z0-9])?)*(/\*)?$"
_TOLERATION_VALUE = rf"{_LABEL_VALUE}|^$"
_ENDS = "with a letter or digit at both ends"
_LABEL_FORM = f"1 to 63 letters, digits, '-', '_' or '.', {_ENDS}"
_FORMS: Final = {
    _DNS_LABEL: f"1 to 63 lower-case letters, digits or '-', {_ENDS}",
    _DNS_SUBDOMAIN: f"lower-case letters, digits, '-' or '.', {_ENDS}",
    _VOLUME_NAME: f"1 to {MAX_VOLUME_NAME} lower-case letters, digits or '-', {_ENDS}",
    _LABEL_VALUE: _LABEL_FORM,
    _TOLERATION_VALUE: f"empty or {_LABEL_FORM}",
    _LABEL_KEY: f"the key of a label: {_LABEL_FORM}, perhaps after a DNS name and '/'",
    _ANNOTATION_VALUE: "at most 1024 printable ASCII characters",
    _IMAGE_PATTERN: "a repository such as registry.example.com/team/train, or registry.example.com/team/*",
}
"""The patterns of fields in words."""


def _quoted(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError(UNQUOTED, "must be in quotes", {"hint": f'write it as "{example}"'})
    return value


def _bytes(value: object) -> int:
    if isinstance(value, int | float):  # In quotes it would be a number of bytes, which nobody means.
        raise PydanticCustomError("no_unit", "must have a unit", {"hint": "write it with its unit, such as 64Gi"})
    return parse_bytes(_quoted(value, "64Gi"))


def _usd(value: object) -> Decimal:
    text = _quoted(value, "0.768")
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", text) or Decimal(text) == 0:
        raise PydanticCustomError(
            "usd", "must be an amount in USD above 0 with at most 6 decimals", {"hint": 'write it as "0.768"'}
        )
    return Decimal(text)


MilliCpu = Annotated[
    int, BeforeValidator(lambda value: parse_cpu(_quoted(value, "16"))), PlainSerializer(format_cpu, when_used="json")
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    PlainSerializer(format_bytes, when_used="json"),
]
Usd = Annotated[Decimal, BeforeValidator(_usd), PlainSerializer(lambda usd: f"{usd.normalize():f}", when_used="json")]
MicroUsd = Annotated[
    int, BeforeValidator(lambda value: micro_usd(_usd(value))), PlainSerializer(format_usd, when_used="json")
]
ObjectName = Annotated[str, Field(pattern=_DNS_SUBDOMAIN, max_length=253)]
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)


class _Range(_Frozen):
    min: int
    max: int

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if not 0 < self.min <= self.max:
            raise ValueError("min must be above 0 and at most max")
        return self


class CpuRange(_Range):
    min: MilliCpu
    max: MilliCpu


class MemoryRange(_Range):
    min: Bytes
    max: Bytes


class GpuLimit(_Frozen):
    max: int = Field(ge=0, le=64)


class _RangeWithDefault(_Frozen):
    min: int
    max: int
    default: int

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if not self.min <= self.default <= self.max:
            shown = self.model_dump(mode="json")
            raise ValueError(f"default {shown['default']} must be from min {shown['min']} to max {shown['max']}")
        return self


class TimeoutRange(_RangeWithDefault):
    min: int = Field(ge=1)  # Seconds from acceptance to the end of a job.
    max: int = Field(le=31_536_000)


class DiskRange(_RangeWithDefault):
    """Node disk of one job: scratch volume, writable layer of the container, and log.

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
    """

    min: Bytes = Field(gt=0)
    max: Bytes
    default: Bytes


def _one_size(size: int) -> DiskRange:
    return DiskRange.model_construct(min=min(MIN_DISK, size), max=size, default=size)


class UserRange(_RangeWithDefault):
    """Numeric users that a job may run as; 0 is root."""

    min: int = Field(default=1, ge=1)
    max: int = Field(default=65_535, le=2**31 - 1)  # The limit of Kubernetes.
    default: int = 1000


class GraceLimit(_Frozen):
    max: int = Field(ge=1, le=3600)  # Seconds between SIGTERM and SIGKILL.
    default: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.default > self.max:
            raise ValueError(f"default {self.default} is above max {self.max}")
        return self


class RetryLimit(_Frozen):
    max: int = Field(ge=0, le=10)


class StartTimeouts(_Frozen):
    """Seconds that one cause may keep a job from starting before Runway ends the job; None: no limit.

    The fields are those of `runway.jobs.diagnosis.start_timeout.StartLimit`, except `job`.
    """

    image: int | None = Field(default=None, ge=1, le=31_536_000)
    registry: int | None = Field(default=None, ge=1, le=31_536_000)
    config: int | None = Field(default=None, ge=1, le=31_536_000)
    unschedulable: int | None = Field(default=None, ge=1, le=31_536_000)


class StorageLimit(_Frozen):
    """The disk limit of version 0.7, one size for every job."""

    per_job: Bytes = Field(gt=0)


class IdleGpuLimit(_Frozen, title="an idle GPU limit"):
    """GPUs are idle if each was below this utilisation, in percent, for this time."""

    below_percent: int = Field(ge=1, le=100)
    for_seconds: int = Field(ge=60, le=604_800)
    action: Literal["report", "cancel"] = "report"


class Limits(_Frozen, title="limits"):
    cpu: CpuRange
    memory: MemoryRange
    gpu: GpuLimit
    timeout_seconds: TimeoutRange
    grace_period_seconds: GraceLimit
    retries: RetryLimit
    start_timeout_seconds: StartTimeouts = StartTimeouts.model_construct()
    ephemeral_storage: StorageLimit | None = Field(default=None, exclude=True)  # Read into `disk`.
    disk: DiskRange = _one_size(DISK_PER_JOB)
    user: UserRange = UserRange.model_construct()
    idle_gpu: IdleGpuLimit | None = None  # Without it nothing measures idle GPUs.
    retention_seconds: int = Field(default=86_400, ge=60, le=2_592_000)  # The `ttlSecondsAfterFinished` of a Job.
    secrets_in_env: Literal["refuse", "allow"] = "refuse"  # For `env` names that look like credentials.

    @model_validator(mode="after")
    def _has_one_disk_limit(self) -> Self:
        if self.ephemeral_storage is None:
            return self
        if "disk" in self.model_fields_set:
            raise ValueError("disk replaces ephemeral_storage: set only disk")
        return self.model_copy(update={"disk": _one_size(self.ephemeral_storage.per_job), "ephemeral_storage": None})


class Images(_Frozen, title="images"):
    """Allowed images: exact repositories, or all repositories below a path (`registry/team/*`)."""

    allow: tuple[Annotated[str, Field(pattern=_IMAGE_PATTERN, max_length=255)], ...] = Field(
        min_length=1, max_length=200, strict=False
    )

    @field_validator("allow")
    @classmethod
    def _has_registry(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in allow:
            first, slash, _ = pattern.partition("/")
            # A pattern without a registry never matches the full name that a node pulls.
            if not slash or not ("." in first or ":" in first or first == "localhost"):
                repository = pattern.partition(":")[0]
                raise ValueError(f"{pattern} must start with a registry, such as docker.io/library/{repository}")
        return allow


class PoolToleration(_Frozen, title="a toleration"):
    key: str | None = Field(default=None, pattern=_LABEL_KEY)
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = Field(default=None, pattern=_TOLERATION_VALUE)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class PerGpu(_Frozen):
    """The most that a job may request for each of its GPUs: milli-CPU and bytes of memory."""

    cpu: MilliCpu = Field(gt=0)
    memory: Bytes = Field(gt=0)


class Pool(_Frozen, title="a pool"):
    instance_type: str = Field(min_length=1, max_length=63)
    hourly_usd: Usd
    cpu: MilliCpu = Field(gt=0)
    memory: Bytes = Field(gt=0)
    gpu: int = Field(default=0, ge=0, le=64)
    gpu_type: str | None = Field(default=None, pattern=_LABEL_VALUE)
    node_selector: dict[Annotated[str, Field(pattern=_LABEL_KEY)], Annotated[str, Field(pattern=_LABEL_VALUE)]] = Field(
        default_factory=dict, max_length=MAX_NODE_TERMS
    )
    tolerations: tuple[PoolToleration, ...] = Field(default=(), max_length=MAX_NODE_TERMS, strict=False)
    per_gpu: PerGpu | None = None  # Unbounded without it: one GPU can take all CPUs of its node.
    max_nodes: int | None = Field(default=None, ge=1, le=100_000)  # The most that the autoscaler starts.
    spot: bool = False  # Only jobs that name a spot pool run in it.

    @model_validator(mode="after")
    def _gpu_has_type(self) -> Self:
        if (self.gpu > 0) != (self.gpu_type is not None):
            raise ValueError("gpu and gpu_type belong together: set both or neither")
        return self

    @model_validator(mode="after")
    def _shares_fit_node(self) -> Self:
        """Require that all GPUs with their shares fit on a node. A job then fits wherever its GPUs are free."""
        if self.per_gpu is None:
            return self
        if self.gpu == 0:
            raise ValueError("per_gpu needs gpu: the pool has no GPUs")
        if self.per_gpu.cpu * self.gpu > self.cpu:
            raise ValueError(f"per_gpu.cpu is above cpu / gpu, so set at most {self.cpu // self.gpu}m")
        if self.per_gpu.memory * self.gpu > self.memory:
            most = format_bytes(self.memory // self.gpu)
            raise ValueError(f"per_gpu.memory is above memory / gpu, so set at most {most}")
        return self


class Quota(_Frozen, title="a quota"):
    """Maximum usage of a tenant at one time: whole GPUs, milli-CPU, bytes of memory and disk, unfinished jobs, prices.

    None, and a GPU type that is not named, are not limited.
    """

    gpu: int = Field(ge=0, le=1_000_000)
    gpu_types: dict[Annotated[str, Field(pattern=_LABEL_VALUE)], Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        default_factory=dict, max_length=100
    )
    cpu: MilliCpu
    memory: Bytes
    disk: Bytes | None = None
    jobs: int = Field(ge=0, le=1_000_000)
    usd_per_hour: MicroUsd | None = None


class Budget(_Frozen, title="a budget"):
    """What a tenant may spend in a rolling window: on jobs that finished in it, and at most on unfinished ones."""

    usd: MicroUsd
    hours: int = Field(ge=1, le=720)

    @property
    def seconds(self) -> int:
        return self.hours * 3600


class Rate(_Frozen, title="a rate"):
    """Requests a minute on average, and at once."""

    per_minute: int = Field(ge=1, le=1_000_000)
    burst: int = Field(ge=1, le=1_000_000)


class TenantRate(Rate):
    reads: Rate = Rate.model_construct(per_minute=6000, burst=600)
    streams: int = Field(default=20, ge=1, le=10_000)


class TenantVolume(_Frozen, title="a volume"):
    """A PersistentVolumeClaim in the tenant's namespace, mounted at `path` in the jobs that name it."""

    claim: ObjectName
    path: str = Field(max_length=255)
    read_only: bool = False

    @field_validator("path")
    @classmethod
    def _is_free(cls, path: str) -> str:
        if not _MOUNT_PATH.fullmatch(path):
            raise ValueError("must be an absolute path such as /data, of letters, digits, '-', '_' and '.'")
        reserved = next((taken for taken in RESERVED_PATHS if _overlap(path, taken)), None)
        if reserved is not None:
            raise ValueError(f"{path} overlaps {reserved}, which Runway, the runtime or Kubernetes provides")
        return path


class ServiceAccount(_Frozen, title="a service account"):
    """The service account of the tenant's jobs. `pod_identity` opens the address of the EKS Pod Identity agent."""

    annotations: dict[Annotated[str, Field(pattern=_LABEL_KEY)], Annotated[str, Field(pattern=_ANNOTATION_VALUE)]] = (
        Field(default_factory=dict, max_length=MAX_REFERENCES)
    )
    pod_identity: bool = False


class Tenant(_Frozen, title="a tenant"):
    """A team. Its jobs see only the volumes and Secrets listed here; `images` replaces the common list."""

    namespace: str = Field(pattern=_DNS_LABEL)
    quota: Quota
    budget: Budget | None = None
    rate: TenantRate
    volumes: dict[Annotated[str, Field(pattern=_VOLUME_NAME)], TenantVolume] = Field(
        default_factory=dict, max_length=MAX_REFERENCES
    )
    secrets: tuple[ObjectName, ...] = Field(default=(), max_length=MAX_REFERENCES, strict=False)
    service_account: ServiceAccount = ServiceAccount()
    image_pull_secrets: tuple[ObjectName, ...] = Field(default=(), max_length=MAX_REFERENCES, strict=False)
    images: Images | None = None

    @field_validator("namespace")
    @classmethod
    def _is_for_tenants(cls, namespace: str) -> str:
        # https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
        # A tenant's NetworkPolicies would cut off the cluster or Runway.
        if namespace in ("default", RUNWAY_NAMESPACE) or namespace.startswith("kube-"):
            raise ValueError(f"{namespace} is not for tenants: Kubernetes or Runway uses it")
        return namespace

    @field_validator("volumes")
    @classmethod
    def _has_separate_paths(cls, volumes: dict[str, TenantVolume]) -> dict[str, TenantVolume]:
        # Sorted with a final slash, a path directly precedes one of those below it, if there are any.
        paths = sorted((f"{volume.path}/", name) for name, volume in volumes.items())
        for (path, name), (below, other) in pairwise(paths):
            if below.startswith(path):
                raise ValueError(f"{other} at {below[:-1]} is at or below {name} at {path[:-1]}")
        return volumes

    @field_validator("secrets", "image_pull_secrets")
    @classmethod
    def _is_listed_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _reject_duplicates("name", list(names))
        return names


class Logs(_Frozen, title="logs"):
    """A link to the place where the logs of jobs are kept; Runway stores only the end of a log."""

    url_template: str = Field(max_length=2000)

    @field_validator("url_template")
    @classmethod
    def _is_link(cls, template: str) -> str:
        fixed = LOG_PLACEHOLDER.sub("", template)
        if unknown := re.search(r"\{[^{}]*\}?|\}", fixed):
            known = ", ".join(f"{{{name}}}" for name in LOG_PLACEHOLDERS)
            raise ValueError(f"{unknown[0][:40]} is no placeholder; use {known}, or %7B and %7D for braces")
        if not _URL_CHARACTERS.fullmatch(fixed):
            raise ValueError("must have only characters of a URL; percent-encode spaces, quotes and others")
        base = re.match(r"(https?://[^/?#]*)", template)
        if base is None:
            raise ValueError("must start with https:// or http:// and a host")
        if LOG_PLACEHOLDER.search(base[1]) or "@" in base[1]:
            raise ValueError("must have no placeholder and no password before the path")
        try:
            has_host = bool(urlsplit(base[1]).hostname) and urlsplit(base[1]).port != 0
        except ValueError:
            has_host = False
        if not has_host:
            raise ValueError("must have a valid host and port")
        return template


class Policy(_Frozen, title="the policy"):
    """The policy. Pools, tenants and volumes keep the order of the file."""

    version: int
    limits: Limits
    images: Images
    logs: Logs | None = None
    pools: dict[Annotated[str, Field(pattern=_DNS_LABEL)], Pool] = Field(min_length=1, max_length=100)
    tenants: dict[Annotated[str, Field(pattern=_DNS_LABEL)], Tenant] = Field(min_length=1, max_length=10_000)

    @field_validator("version")
    @classmethod
    def _version_is_known(cls, version: int) -> int:
        if version != 1:
            raise ValueError("must be 1")
        return version

    @field_validator("pools")
    @classmethod
    def _gpu_and_spot_pools_are_distinct(cls, pools: dict[str, Pool]) -> dict[str, Pool]:
        """Require different nodes for the pools of one GPU type, and for spot: a job must run at its pool's price."""
        by_nodes: dict[tuple[object, ...], str] = {}
        for name, pool in pools.items():
            other = by_nodes.setdefault((pool.gpu_type, *sorted(pool.node_selector.items())), name)
            if other == name:
                continue
            if pool.gpu_type is not None:
                raise ValueError(f"{other} and {name} have gpu_type {pool.gpu_type} and the same node_selector")
            if pool.spot != pools[other].spot:
                raise ValueError(f"one of {other} and {name} is spot, and both have the same node_selector")
        return pools

    def images_of(self, tenant: str) -> Images:
        """Return the allowed images of a tenant: its own list, or the common one."""
        return self.tenants[tenant].images or self.images


def load_policy(path: str | Path) -> Policy:
    """Read and validate the policy at `path`. Raises PolicyError."""
    try:
        content = read_private_file(Path(path))
    except UnreadableYaml as error:
        raise PolicyError([PolicyFault(sanitize_message(str(path)), str(error))]) from error
    return parse_policy(content)


def parse_policy(content: bytes | str) -> Policy:
    """Validate a policy's YAML text. Raises PolicyError with the first `MAX_FAULTS` faults."""
    has_duplicates = False
    try:
        try:
            document = parse(content, _PolicyLoader)
        except DuplicateKey:
            document, has_duplicates = parse(content, _TolerantLoader), True
    except UnreadableYaml as error:
        raise PolicyError([PolicyFault("file", error.problem, error.line)]) from error
    with suppress(ValidationError):
        policy = Policy.model_validate(document)
        if not has_duplicates and not any(_contradictions_of(policy)):
            return policy
    raise policy_error(_all_faults(content, document))


def _all_faults(content: bytes | str, document: object) -> list[PolicyFault]:
    """Return every fault of a faulty policy. Faults of one part hide none of another."""
    if not isinstance(document, Mapping):
        return [PolicyFault("file", "must be a mapping", hint="write version, limits, images, pools and tenants")]
    if document.get("kind") == "ConfigMap" and "apiVersion" in document:
        message = "this is a Kubernetes ConfigMap; the policy is its value policy.yaml"
        return [PolicyFault("file", message, hint="give a file with this value alone")]
    source = Source(content)
    finder = FaultFinder(Policy, _FORMS, source)
    faults = [
        PolicyFault(field_of(path), f"is given twice, first in line {first}", line, hint="remove one of the two")
        for path, line, first in source.duplicates()
    ]
    try:
        Policy.model_validate(document)
    except ValidationError as error:
        faults += finder.faults(error)
    contradictions = list(_contradictions_in(document))
    found = [finder.fault(path, message, hint=hint) for path, message, hint in contradictions[:MAX_FAULTS]]
    return [*faults, *found, *found[-1:] * (len(contradictions) - len(found))]


_Contradiction = tuple[YamlPath, str, str]
"""Path, message and hint."""


def _contradictions_of(policy: Policy) -> Iterator[_Contradiction]:
    namespaces = {name: tenant.namespace for name, tenant in policy.tenants.items()}
    types = {pool.gpu_type for pool in policy.pools.values()}
    return _contradictions(namespaces, types, policy.tenants, policy.limits.retention_seconds)


def _contradictions_in(document: Mapping[str, object]) -> Iterator[_Contradiction]:
    """Yield the contradictions of a document with other faults, as far as its values are valid."""
    tenants: dict[str, Tenant] = {}
    for name, value in _mappings(document.get("tenants")):
        with suppress(ValidationError):
            tenants[name] = Tenant.model_validate(value)
    retention = None
    with suppress(ValidationError):
        retention = Limits.model_validate(document.get("limits")).retention_seconds
    named = ((name, value.get("namespace")) for name, value in _mappings(document.get("tenants")))
    namespaces = {name: namespace for name, namespace in named if isinstance(namespace, str)}
    offered = (pool.get("gpu_type") for _, pool in _mappings(document.get("pools")))
    types = {gpu_type for gpu_type in offered if isinstance(gpu_type, str)}
    return _contradictions(namespaces, types, tenants, retention)


def _contradictions(
    namespaces: Mapping[str, str], types: Set[str | None], tenants: Mapping[str, Tenant], retention: int | None
) -> Iterator[_Contradiction]:
    """Yield values that are valid, but not together."""
    owners: dict[str, str] = {}
    for name, namespace in namespaces.items():
        if (other := owners.setdefault(namespace, name)) != name:
            message = f"duplicate namespace {namespace} (tenants {other} and {name})"
            yield ("tenants", name, "namespace"), message, "give each tenant a namespace of its own"
    for name, tenant in tenants.items():
        for gpu_type in tenant.quota.gpu_types:
            if gpu_type not in types:
                offered = f"offered: {', '.join(sorted(filter(None, types))) or 'none'}"
                yield ("tenants", name, "quota", "gpu_types", gpu_type), "no pool has this GPU type", offered
        if tenant.budget is not None and retention is not None and tenant.budget.seconds > retention:
            message = f"{tenant.budget.hours} h is longer than limits.retention_seconds, {retention} s"
            hint = "shorten the budget or lengthen the retention: a deleted job no longer counts"
            yield ("tenants", name, "budget", "hours"), message, hint


def _mappings(section: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the members of a section that are mappings."""
    for name, value in section.items() if isinstance(section, Mapping) else ():
        if isinstance(value, Mapping):
            yield name, value


def policy_hash(policy: Policy) -> str:
    """Return a SHA-256 of what the policy says, in hexadecimal.

    Comments, format, the order of tenants, fields and lists, and optional fields of later versions do not change it.
    """
    document = _unordered(policy.model_dump(mode="json", exclude_defaults=True))
    return hashlib.sha256(json.dumps([list(policy.pools), document], sort_keys=True).encode()).hexdigest()


def _unordered(value: Any) -> Any:
    """Return a document whose lists are sorted: no list of the policy has an order that counts."""
    if isinstance(value, dict):
        return {name: _unordered(member) for name, member in value.items()}
    if isinstance(value, list):
        return sorted(map(_unordered, value), key=lambda entry: json.dumps(entry, sort_keys=True))
    return value


def _overlap(path: str, other: str) -> bool:
    """Return whether the paths are equal, or one is below the other."""
    return f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")


def _reject_duplicates(field: str, values: list[str]) -> None:
    duplicates = sorted(value for value, count in Counter(values).items() if count > 1)
    if duplicates:
        raise ValueError(f"{field} {', '.join(duplicates)} is given twice")


class _PolicyLoader(StrictLoader):
    """Reads only plain decimal integers: YAML 1.1 reads `0100` as 64 and `1:30` as 90."""

    def construct_plain_int(self, node: yaml.ScalarNode) -> object:
        # No field accepts `object()`, so the error names the field.
        return int(node.value) if re.fullmatch(r"-?(?:0|[1-9][0-9]{0,18})", node.value) else object()


_PolicyLoader.add_constructor("tag:yaml.org,2002:int", _PolicyLoader.construct_plain_int)


class _TolerantLoader(_PolicyLoader):
    takes_last_duplicate = True
