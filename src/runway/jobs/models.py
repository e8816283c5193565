"""The models of a job that the API sends and the command line reads.

They are plain dataclasses: the server encodes them, and the command line decodes them with pydantic.
Codes and states have the type `str`, so that an older command line can read what a newer server sends.
Amounts are Kubernetes quantities, money is USD as a decimal string, times are UTC, and None means unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import AwareDatetime, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import core_schema

from runway.jobs.diagnosis.codes import Category, ConditionCode, FailureCode
from runway.jobs.docstrings import field_docstrings
from runway.quantity import GRAMMAR

MAX_FIGURE: Final = 2.0**63


class Model:
    """Base of the models: the docstring of a field is its description in OpenAPI."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, bool]] = {"json_schema_serialization_defaults_required": True}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        document = handler(schema)
        properties = handler.resolve_ref_schema(document)["properties"]
        for name, docstring in field_docstrings(cls).items():
            properties[name]["description"] = docstring
        return document


class JobState(StrEnum):
    """The state of a job. `succeeded`, `failed` and `cancelled` are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        """Whether the job never changes its state again."""
        return self in FINISHED_STATES


FINISHED_STATES: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True)
class OneOf:
    """Document the known values of a string without refusing other values."""

    values: type[StrEnum]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.union_schema(
            [handler.generate_schema(self.values), core_schema.str_schema()], mode="left_to_right"
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema["choices"][0])


def text(**form: Any) -> WithJsonSchema:
    """Describe the form of a string in OpenAPI without checking it."""
    return WithJsonSchema({"type": "string", **form})


def json_pattern(grammar: str) -> str:
    """Anchor a regular expression and remove the names of its groups, as JSON Schema requires."""
    for name in ("number", "suffix", "repository", "tag", "digest"):
        grammar = grammar.replace(f"?P<{name}>", "?:")
    return f"^(?:{grammar})$"


LABEL_GRAMMAR: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set"""
USER_OF_0_7: Final = 1000
SHARED_MEMORY_OF_0_7: Final = "64Mi"
"""The user and the `/dev/shm` of every job of version 0.7, whose annotation has neither."""
DIGEST_GRAMMAR: Final = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
JOB_ID_GRAMMAR: Final = r"rw-[a-z2-7]{20}"

Quantity = Annotated[str, text(pattern=json_pattern(GRAMMAR.pattern))]
Usd = Annotated[str, text(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")]
Label = Annotated[str, text(pattern=json_pattern(LABEL_GRAMMAR))]
JobId = Annotated[str, text(pattern=json_pattern(JOB_ID_GRAMMAR))]
TENANT_PATTERN: Final = json_pattern(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
TenantName = Annotated[str, text(pattern=TENANT_PATTERN)]
Count = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
Time = Annotated[datetime, AwareDatetime]
"""The server sends UTC. The command line refuses a time without a zone: it cannot be compared with others."""
Positive = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1})]
NonNegative = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0})]
Ratio = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]


@dataclass(frozen=True, slots=True)
class ResourcesView(Model):
    """The resources of one attempt."""

    cpu: Quantity
    """CPU, as a Kubernetes quantity."""
    memory: Quantity
    """Memory, as a Kubernetes quantity."""
    gpu: Count
    """Whole GPUs."""
    gpu_type: str | None
    """The GPU type; null without GPUs."""
    disk: Quantity | None = None
    """Node disk, as a Kubernetes quantity; null for a job of version 0.7."""
    shared_memory: Quantity = SHARED_MEMORY_OF_0_7
    """The size of `/dev/shm`, as a Kubernetes quantity. It is a part of `memory`."""


@dataclass(frozen=True, slots=True)
class SpecView(Model):
    """The admitted specification, with every default filled in."""

    name: Label | None
    """The caller's label."""
    image: str
    """The image reference."""
    command: list[str]
    """The command; empty for the entry point of the image."""
    args: list[str]
    """The arguments."""
    env: dict[str, str]
    """The environment variables. Unless `X-Tenant-ID` names the job's tenant, `<hidden: 12 characters>` replaces each
    value."""
    resources: ResourcesView
    """The requests and limits of each attempt."""
    timeout_seconds: Positive
    """The maximum life of the job from acceptance, in seconds."""
    retries: Count
    """The maximum number of attempts after a failed attempt. Disruptions do not count."""
    grace_period_seconds: Positive
    """Seconds between SIGTERM and SIGKILL."""
    max_cost_usd: Usd | None
    """The maximum cost that the caller allowed, in USD."""
    pool: str | None = None
    """The pool of the job; null for a job that version 0.7 admitted."""
    working_dir: str | None = None
    """The working directory; null for the image's."""
    user: Positive = USER_OF_0_7
    """The numeric user of the process."""
    start_timeout_seconds: Positive | None = None
    """The maximum time from acceptance until a container starts, in seconds; null for no limit of the job's own."""
    secrets: dict[str, str] = field(default_factory=dict)
    """The environment variables from Kubernetes Secrets: variable to `SECRET/KEY`."""
    volumes: list[str] = field(default_factory=list)
    """The mounted volumes, by their names in the policy."""


@dataclass(frozen=True, slots=True)
class CostLineView(Model):
    """The part of one resource in the hourly price."""

    resource: Annotated[str, text(enum=["cpu", "memory", "gpu"])]
    """The resource."""
    quantity: Quantity
    """The amount of the resource."""
    hourly: Usd
    """USD an hour."""


@dataclass(frozen=True, slots=True)
class CostView(Model):
    """The cost of the job, in USD as decimal strings."""

    currency: Annotated[str, text(const="USD")]
    """Always USD."""
    rate_card: str
    """The pool, instance type and hourly node price that set the job's price."""
    hourly: Usd
    """USD an hour: the job's share of its node."""
    ceiling: Usd
    """The maximum cost in USD: `hourly` times the timeout and the grace period, rounded up."""
    actual: Usd | None
    """USD for the time on nodes, over all attempts; null until the job is finished."""
    lines: list[CostLineView]
    """The part of each resource; the parts add up to `hourly`."""


@dataclass(frozen=True, slots=True)
class ConditionView(Model):
    """The reason why an unfinished job makes no progress."""

    code: Annotated[str, OneOf(ConditionCode)]
    """A stable code for programs."""
    message: str
    """The details in plain words."""
    since: Time | None
    """The start of the condition, if Kubernetes reports it."""
    start_timeout_seconds: Positive | None = None
    """Seconds after which Runway ends a job that this condition keeps from starting; null without a limit."""


@dataclass(frozen=True, slots=True)
class Attempt(Model):
    """One pod of the job."""

    pod: str
    """The name of the pod."""
    node: str | None
    """The node of the pod; null if the scheduler never bound it."""
    state: Annotated[str, text(enum=["waiting", "running", "terminating", "succeeded", "failed"])]
    """The state of the attempt."""
    exit_code: Annotated[int, WithJsonSchema({"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1})] | None
    """The exit code of the container; 128 + n for signal n."""
    signal: str | None
    """The name of the signal that ended the process."""
    reason: str | None
    """The reason that Kubernetes reports for the end of the attempt."""
    created_at: Time | None
    """The creation time of the pod."""
    bound_at: Time | None
    """The time when the scheduler bound the pod to its node. The actual cost counts from here."""
    started_at: Time | None
    """The start time of the container."""
    finished_at: Time | None
    """The end time of the container."""
    counted: bool
    """Whether the attempt used up a retry."""
    cause: Annotated[str, OneOf(FailureCode)] | None
    """The reason why the attempt did not succeed."""
    message: str | None
    """The cause in plain words, or the evidence against a reported success."""
    image_id: Annotated[str, text(pattern=json_pattern(DIGEST_GRAMMAR))] | None = None
    """The digest of the image that ran, as the container runtime reports it."""


@dataclass(frozen=True, slots=True)
class Failure(Model):
    """The diagnosis of a failed job, with the fields that support it."""

    code: Annotated[str, OneOf(FailureCode)]
    """A stable code for programs."""
    category: Annotated[str, OneOf(Category)]
    """The party that has to act."""
    retryable: bool
    """Whether the same specification may succeed if the caller submits it again."""
    message: str
    """The failure in plain words."""
    hint: str
    """The next step, with an amount if it can be calculated."""
    evidence: dict[str, str]
    """The fields that support the diagnosis, each of limited length."""


@dataclass(frozen=True, slots=True)
class Excerpt(Model):
    """The end of an attempt's log."""

    pod: str
    """The pod that wrote the log."""
    text: str
    """At most 4 KiB. Control characters are escaped, and `***` replaces known secrets."""
    truncated: bool
    """Whether the log has more text before the excerpt."""


@dataclass(frozen=True, slots=True)
class Usage(Model):
    """The resource usage of a job's last attempt, and the memory peak of all its attempts."""

    cpu_seconds: NonNegative | None = None
    """CPU time of the last attempt."""
    cpu_cores: NonNegative | None = None
    """Mean CPU usage since the container started, in cores."""
    cpu_limit_cores: NonNegative | None = None
    """The job's `resources.cpu`, in cores."""
    memory_bytes: Count | None = None
    """The working set: memory that the kernel cannot reclaim easily."""
    memory_peak_bytes: Count | None = None
    """The peak memory need over all attempts."""
    memory_limit_bytes: Count | None = None
    """The job's `resources.memory`, in bytes."""
    throttled_ratio: Ratio | None = None
    """The share of the job's CPU periods in which the CPU limit throttled it."""
    cpu_periods: Count | None = None
    """The number of CPU periods of 100 ms in which the job ran."""
    gpu_utilisation: Ratio | None = None
    """Mean utilisation of the job's GPUs; null unless Prometheus scrapes NVIDIA's DCGM exporter."""
    sampled_at: Time | None = None
    """The time of the last CPU sample."""

    @property
    def measured(self) -> bool:
        """Whether any figure besides the limits is known."""
        figures = (self.cpu_seconds, self.memory_bytes, self.memory_peak_bytes, self.throttled_ratio)
        return any(figure is not None for figure in (*figures, self.gpu_utilisation))

    @property
    def is_possible(self) -> bool:
        """Whether the figures, which come from an annotation, are within the limits of a machine."""
        figures = (
            self.cpu_seconds, self.cpu_cores, self.cpu_limit_cores, self.memory_bytes, self.memory_peak_bytes,
            self.memory_limit_bytes, self.throttled_ratio, self.cpu_periods, self.gpu_utilisation,
        )  # fmt: skip
        return all(figure is None or 0 <= figure <= MAX_FIGURE for figure in figures)

    @property
    def memory_ratio(self) -> float | None:
        """The memory peak as a share of the limit."""
        if self.memory_peak_bytes is None or not self.memory_limit_bytes:
            return None
        return min(self.memory_peak_bytes / self.memory_limit_bytes, 1.0)


@dataclass(frozen=True, slots=True)
class KubernetesRef(Model):
    """The names of the Kubernetes Job."""

    namespace: str
    """The namespace of the tenant."""
    job: JobId
    """The name of the Job."""


@dataclass(frozen=True, slots=True)
class JobView(Model):
    """A job as Kubernetes reports it now."""

    id: JobId
    """The name of the Kubernetes Job."""
    tenant: TenantName
    """The tenant that owns the job."""
    name: Label | None
    """The caller's label."""
    state: Annotated[str, OneOf(JobState)]
    """The state of the job."""
    spec: SpecView | None
    """The admitted specification, with every default filled in; null for a Job created outside Runway."""
    created_at: Time | None
    """The time when Kubernetes created the Job. The timeout counts from here."""
    started_at: Time | None
    """The start time of the first container."""
    finished_at: Time | None
    """The time when Kubernetes set the final condition; null until the job is finished."""
    conditions: list[ConditionView]
    """The reasons why an unfinished job makes no progress. Several can apply at once."""
    attempts: Annotated[list[Attempt], Field(json_schema_extra={"maxItems": 20})]
    """The newest 20 pods of the job, oldest first."""
    attempts_left_out: Count
    """The number of older attempts."""
    disruptions: Count
    """The number of attempts that the cluster ended. They do not count against the retries."""
    failure: Failure | None
    """The diagnosis of a failed job."""
    cost: CostView | None
    """The estimated cost, and the actual cost once it is known; null for a Job created outside Runway."""
    kubernetes: KubernetesRef
    """The Kubernetes Job, for `kubectl`."""
    excerpt: Excerpt | None
    """The stored end of the log of the last attempt that started."""
    usage: Usage | None
    """The stored resource usage of a finished job, if it was measured."""
    images_differ: bool = False
    """Whether the attempts in the view ran different images, for example because the tag moved between them."""
    may_be_incomplete: str | None = None
    """The reason why the work of a succeeded job may be incomplete: the cluster ended its pod, or the kernel killed one
    of its processes, before it exited with 0. Null for any other job."""
    logs_url: Annotated[str, text(format="uri")] | None = None
    """The link to the stored logs of the job; null without `logs.url_template` in the policy or before an attempt."""

    @property
    def is_finished(self) -> bool:
        """Whether the job never changes its state again."""
        return self.state in FINISHED_STATES

    @property
    def attempt_count(self) -> int:
        """The number of all attempts, including those that the view leaves out."""
        return self.attempts_left_out + len(self.attempts)
