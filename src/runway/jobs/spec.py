"""Read a job specification strictly from JSON.

`read_draft` does not stop at the first fault: it returns the valid fields and every fault of form. So validation can
check the valid fields against the policy, and report all violations at once.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from runway.errors import Violation
from runway.jobs.models import LABEL_GRAMMAR, json_pattern
from runway.quantity import GRAMMAR, MAX_LENGTH, format_bytes, format_cpu, parse_bytes, parse_cpu
from runway.text import did_you_mean, shorten

MAX_STRINGS: Final = 256  # Entries in `command` and in `args`.
MAX_STRING_BYTES: Final = 32_768  # UTF-8 bytes of all of `command`, or all of `args`.
MAX_WORKING_DIR_BYTES: Final = 1024  # UTF-8 bytes of `working_dir`.
MAX_ENV: Final = 128
MAX_ENV_BYTES: Final = 32_768  # UTF-8 bytes of all environment names and values.
MAX_SPEC_BYTES: Final = 208 * 1024
"""JSON bytes of a specification. JSON escapes a control character in six bytes.

An annotation stores the specification, and Kubernetes limits all annotations of an object together to 256 KiB. The rest
is for defaults, the price, the record and annotations of others.
https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
"""
MAX_VOLUMES: Final = 20
MAX_SECRETS: Final = 50
MAX_UNKNOWN: Final = 20  # Unknown fields that are named one by one.
RESERVED_ENV_PREFIXES: Final = ("RUNWAY_", "KUBERNETES_", "NVIDIA_", "AWS_CONTAINER_")
"""Prefixes that Runway, Kubernetes, the GPU runtime or AWS use."""
RESERVED_ENV_NAMES: Final = ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Variables of the IAM role of a service account. EKS sets them only in a pod that has neither.

https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
"""

NVIDIA_ENV: Final = (
    "NVIDIA_API_KEY", "NVIDIA_DISABLE_REQUIRE", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_ARCH",
    "NVIDIA_REQUIRE_BRAND", "NVIDIA_REQUIRE_CUDA", "NVIDIA_REQUIRE_DRIVER", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
"""The variables of that prefix that a job may set, because they open no device. Others open GPUs, MIG, IMEX channels,
NVSwitch or GDRCopy, and NVIDIA's container toolkit can add more.

https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
"""
DRIVER_CAPABILITIES: Final = ("all", "compat32", "compute", "display", "graphics", "ngx", "utility", "video")

LABEL: Final = re.compile(LABEL_GRAMMAR)
ENV_NAME: Final = re.compile(r"[!-<>-~](?:[ -<>-~]{0,126}[!-<>-~])?")
"""Printable ASCII without `=`, as in Kubernetes since 1.34, but without space at either end.

https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
"""
_HOST: Final = (
    r"[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[-A-Za-z0-9]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?"
)
_PATH: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE: Final = re.compile(
    rf"(?P<repository>(?:{_HOST}/)?{_PATH}(?:/{_PATH})*)"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?P<digest>@(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?"
)
"""https://github.com/distribution/reference/blob/v0.6.0/reference.go, without IPv6 hosts"""
SECRET_REFERENCE: Final = re.compile(
    r"(?=[^/]{1,253}/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
    r"/(?!\.\.|\.$)[-._a-zA-Z0-9]{1,253}"
)
"""The name of a Secret and one of its keys: https://kubernetes.io/docs/concepts/configuration/secret/"""
MONEY: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of one attempt: milli-CPU, bytes of memory, whole GPUs of one type, bytes of disk.

    `shared_memory` is the size of /dev/shm in bytes. It is a part of `memory`.
    """

    cpu: int
    memory: int
    gpu: int = 0
    gpu_type: str | None = None
    disk: int = 0
    shared_memory: int = 0


@dataclass(frozen=True, slots=True)
class AdmittedSpec:
    """An admitted specification: every default filled in, every bound met. Times are in seconds."""

    image: str
    resources: Resources
    timeout_seconds: int
    retries: int
    grace_period_seconds: int
    user: int
    name: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    pool: str | None = None
    start_timeout_seconds: int | None = None
    secrets: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    max_cost_usd: Decimal | None = None

    def to_json(self) -> dict[str, object]:
        """Return the specification as callers write it; `read_draft` reads it back."""
        return {
            "name": self.name,
            "image": self.image,
            "command": list(self.command),
            "args": list(self.args),
            "working_dir": self.working_dir,
            "env": dict(self.env),
            "secrets": dict(self.secrets),
            "volumes": list(self.volumes),
            "user": self.user,
            "resources": {
                "cpu": format_cpu(self.resources.cpu),
                "memory": format_bytes(self.resources.memory),
                "gpu": self.resources.gpu,
                "gpu_type": self.resources.gpu_type,
                "disk": format_bytes(self.resources.disk),
                "shared_memory": format_bytes(self.resources.shared_memory),
            },
            "pool": self.pool,
            "timeout_seconds": self.timeout_seconds,
            "start_timeout_seconds": self.start_timeout_seconds,
            "retries": self.retries,
            "grace_period_seconds": self.grace_period_seconds,
            "max_cost_usd": None if self.max_cost_usd is None else str(self.max_cost_usd),
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """The valid fields of a specification. A field without a value is absent, or faulty if it is in `faulty`."""

    form: SpecForm
    faulty: frozenset[str] = frozenset()
    violations: tuple[Violation, ...] = ()

    @property
    def resources(self) -> ResourcesForm:
        return self.form.resources or ResourcesForm()

    def is_valid(self, *names: str) -> bool:
        """Return whether each of these fields is absent or well formed."""
        return self.faulty.isdisjoint(names)


def decode(body: bytes) -> object:
    """Decode strict JSON in UTF-8. Raises ValueError with a message for the caller."""
    if body.startswith(codecs.BOM_UTF8):
        raise ValueError("the body is not JSON: it begins with a byte order mark; save it as UTF-8 without one")
    try:
        return _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None


def read_draft(document: object) -> Draft:
    """Read a decoded JSON document. The draft holds every fault of form; none is raised."""
    violations: list[Violation] = []
    faulty: set[str] = set()
    try:
        form = SpecForm.model_validate(document)
    except ValidationError:
        if not isinstance(document, dict):
            violation = Violation(
                "body", "wrong_type", "must be a JSON object", _show(document), hint="send the spec itself"
            )
            return Draft(SpecForm(), frozenset({"body"}), (violation,))
        form, violations, faulty = _read_valid_fields(document)
    resources = form.resources or ResourcesForm()
    for field, value, hint in (
        ("image", form.image, f"set {_IMAGE_FORM}"),
        ("resources.cpu", resources.cpu, f"set a quantity such as {_CPU_EXAMPLE}"),
        ("resources.memory", resources.memory, f"set a quantity such as {_MEMORY_EXAMPLE}"),
    ):
        if value is None and field not in faulty:
            violations.append(Violation(field, "required", "is required", hint=hint))
            faulty.add(field)
    violations += [
        Violation(f"secrets[{name}]", "duplicate", "is also in env", hint="remove it from env or from secrets")
        for name in sorted((form.env or {}).keys() & (form.secrets or {}).keys())
    ]
    return Draft(form, frozenset(faulty), tuple(violations))


def split_image(image: str) -> tuple[str, str]:
    """Split an image reference into its repository and the rest: `("docker.io/library/python", ":3.12")`."""
    match = IMAGE.fullmatch(image)
    if match is None:
        raise ValueError(f"not an image reference: {image!r}")
    return match["repository"], (match["tag"] or "") + (match["digest"] or "")


def _fault(code: str, message: str, **details: str) -> PydanticCustomError:
    return PydanticCustomError(code, message, details)


def _match(grammar: re.Pattern[str], expected: str, example: str) -> AfterValidator:
    def check(text: str) -> str:
        if grammar.fullmatch(text) is None:
            raise _fault("malformed", f"must be {expected}", hint=f"write it as {example}")
        return text

    return AfterValidator(check)


def _quantity(parse: Callable[[str], int], example: str) -> BeforeValidator:
    def read(value: object) -> int:
        if not isinstance(value, str):
            raise _fault("wrong_type", "must be a quantity in quotes", hint=f"write it as {example}")
        try:
            return parse(value)
        except ValueError as error:
            raise _fault("malformed", str(error), hint=f"write it as {example}") from None

    return BeforeValidator(read)


def _read_usd(value: object) -> Decimal:
    if not isinstance(value, str):
        raise _fault("wrong_type", "must be an amount in quotes", hint='write it as "12.50"')
    if MONEY.fullmatch(value) is None:
        raise _fault("malformed", "must be an amount in USD with at most 6 decimals", hint='write it as "12.50"')
    return Decimal(value)


def _check_encodable(text: str) -> str:
    """Refuse a string that a process cannot receive: NUL ends a C string, and a lone surrogate has no UTF-8."""
    if "\0" in text:
        raise _fault("malformed", "must not contain a NUL character", hint="remove it")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _fault("malformed", "must not contain a lone surrogate", hint="remove it")
    return text


def _check_working_dir(path: str) -> str:
    if not path.startswith("/"):
        raise _fault("malformed", "must be an absolute path", hint="write it as /scratch")
    if ".." in path.split("/"):
        raise _fault("malformed", "must not contain ..", hint="write the path without ..")
    _check_bytes([path], MAX_WORKING_DIR_BYTES)
    return path


_RESERVED: Final = (
    f"choose a name other than {', '.join(f'{prefix}*' for prefix in RESERVED_ENV_PREFIXES)}, "
    f"{', '.join(RESERVED_ENV_NAMES)}; allowed are {', '.join(NVIDIA_ENV)}"
)


def _check_env_name(name: str) -> str:
    if ENV_NAME.fullmatch(name) is None:
        message = "the name must be 1 to 128 printable ASCII characters without '=', and no space at either end"
        raise _fault("malformed", message, hint="write it as EPOCHS")
    if name in RESERVED_ENV_NAMES or (name.startswith(RESERVED_ENV_PREFIXES) and name not in NVIDIA_ENV):
        raise _fault("reserved", "is reserved", hint=_RESERVED)
    return name


def _at_most(limit: int) -> BeforeValidator:
    """Refuse too many members before pydantic checks each of them."""

    def check(members: object) -> object:
        if isinstance(members, dict) and len(members) > limit:
            details = {"observed": str(len(members)), "limit": str(limit), "hint": f"use at most {limit}"}
            raise _fault("too_many", "has too many entries", **details)
        return members

    return BeforeValidator(check)


def _check_reference(reference: str) -> str:
    """Refuse a malformed reference without the text, which may be the secret itself."""
    if SECRET_REFERENCE.fullmatch(reference) is None:
        raise _fault("malformed", "must be the name of a Secret, '/' and a key", hint="write it as huggingface/token")
    return reference


def _check_distinct(names: list[str]) -> list[str]:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise _fault("duplicate", "names a volume twice", observed=twice, hint="name each volume once")
    return names


def _check_size(strings: list[str]) -> list[str]:
    _check_bytes(strings, MAX_STRING_BYTES)
    return strings


def _check_capabilities(env: dict[str, str]) -> dict[str, str]:
    """Refuse a capability that the container toolkit does not know: it would not start the container."""
    value = env.get("NVIDIA_DRIVER_CAPABILITIES", "")
    if any(part not in ("", *DRIVER_CAPABILITIES) for part in value.split(",")):
        message, limit = "has an unknown value of NVIDIA_DRIVER_CAPABILITIES", ", ".join(DRIVER_CAPABILITIES)
        raise _fault("malformed", message, observed=shorten(value), limit=limit, hint="write it as compute,utility")
    return env


def _check_env_size(env: dict[str, str]) -> dict[str, str]:
    _check_bytes([text for pair in env.items() for text in pair], MAX_ENV_BYTES)
    return env


def _check_bytes(strings: Sequence[str], limit: int) -> None:
    size = sum(len(text.encode()) for text in strings)
    if size > limit:
        details = {"observed": f"{size} bytes", "limit": f"{limit} bytes", "hint": f"use at most {limit} bytes"}
        raise _fault("too_large", "is too large", **details)


_IMAGE_FORM: Final = "an image reference such as registry/team/train:1.4"
_LABEL_FORM: Final = "1 to 63 letters, digits, '-', '_' or '.', starting and ending alphanumeric"
_WORKING_DIR_PATTERN: Final = r"^(?!(?:[^\x00]*/)?\.\.(?:/|$))/[^\x00]*$"
_CPU_EXAMPLE: Final = '"500m" or "2"'
_MEMORY_EXAMPLE: Final = '"512Mi" or "8Gi"'
_DISK_EXAMPLE: Final = '"500Mi" or "50Gi"'
_QUANTITY_SCHEMA: Final = {"type": "string", "maxLength": MAX_LENGTH, "pattern": json_pattern(GRAMMAR.pattern)}


def _at_least(minimum: int) -> Any:
    """Describe the bounds of an integer; the policy's own bounds are checked in `runway.admission.validation`."""
    return Field(json_schema_extra={"minimum": minimum, "maximum": 2**31 - 1})


def _form(grammar: re.Pattern[str], length: int) -> Any:
    return Field(max_length=512, json_schema_extra={"maxLength": length, "pattern": json_pattern(grammar.pattern)})


_String = Annotated[
    str,
    AfterValidator(_check_encodable),
    Field(json_schema_extra={"maxLength": MAX_STRING_BYTES, "pattern": r"^[^\x00]*$"}),
]
_WorkingDir = Annotated[
    str,
    AfterValidator(_check_encodable),
    AfterValidator(_check_working_dir),
    Field(json_schema_extra={"maxLength": MAX_WORKING_DIR_BYTES, "pattern": _WORKING_DIR_PATTERN}),
]
_Strings = Annotated[list[_String], Field(max_length=MAX_STRINGS), AfterValidator(_check_size)]
_ENV_NAME_PATTERN: Final = (
    rf"^(?:{'|'.join(NVIDIA_ENV)}|"
    rf"(?!{'|'.join(RESERVED_ENV_PREFIXES)}|(?:{'|'.join(RESERVED_ENV_NAMES)})$)(?:{ENV_NAME.pattern}))$"
)
_CAPABILITIES_PATTERN: Final = rf"^(?:{'|'.join(DRIVER_CAPABILITIES)})?(?:,(?:{'|'.join(DRIVER_CAPABILITIES)})?)*$"
_EnvName = Annotated[str, AfterValidator(_check_env_name)]
_Env = Annotated[
    dict[_EnvName, _String],
    _at_most(MAX_ENV),
    AfterValidator(_check_env_size),
    AfterValidator(_check_capabilities),
    Field(
        json_schema_extra={
            "maxProperties": MAX_ENV,
            "propertyNames": {"pattern": _ENV_NAME_PATTERN},
            "properties": {"NVIDIA_DRIVER_CAPABILITIES": {"type": "string", "pattern": _CAPABILITIES_PATTERN}},
        }
    ),
]
_Secrets = Annotated[
    dict[_EnvName, Annotated[str, _form(SECRET_REFERENCE, 507), AfterValidator(_check_reference)]],
    _at_most(MAX_SECRETS),
    Field(json_schema_extra={"maxProperties": MAX_SECRETS, "propertyNames": {"pattern": _ENV_NAME_PATTERN}}),
]
_Volumes = Annotated[
    list[Annotated[str, _form(LABEL, 63), _match(LABEL, "the name of a volume", "datasets")]],
    Field(max_length=MAX_VOLUMES, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_check_distinct),
]


def _not_null(schema: dict[str, Any]) -> None:
    """Document a field as required: pydantic may read None, and `read_draft` reports it."""
    schema.update(schema.pop("anyOf")[0])
    del schema["default"]


_Cpu = Annotated[int, _quantity(parse_cpu, _CPU_EXAMPLE), WithJsonSchema(_QUANTITY_SCHEMA)]
_Memory = Annotated[int, _quantity(parse_bytes, _MEMORY_EXAMPLE), WithJsonSchema(_QUANTITY_SCHEMA)]
_Image = Annotated[str, _form(IMAGE, 512), _match(IMAGE, _IMAGE_FORM, "registry/team/train:1.4")]
_Usd = Annotated[
    Decimal, BeforeValidator(_read_usd), WithJsonSchema({"type": "string", "pattern": json_pattern(MONEY.pattern)})
]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class ResourcesForm(_Form):
    """The requested resources; each limit equals its request."""

    model_config = ConfigDict(json_schema_extra={"required": ["cpu", "memory"]})

    cpu: _Cpu | None = Field(default=None, json_schema_extra=_not_null)
    """A Kubernetes quantity such as `500m` or `2`, no finer than `1m`. Linux throttles a job at this limit."""
    memory: _Memory | None = Field(default=None, json_schema_extra=_not_null)
    """A Kubernetes quantity such as `512Mi` or `8Gi`, in whole bytes. Linux kills a job above this limit."""
    gpu: Annotated[int, _at_least(0)] | None = None
    """Whole GPUs, all on one node; default 0."""
    gpu_type: Annotated[str, _form(LABEL, 63), _match(LABEL, "the name of a GPU type", "a10g")] | None = None
    """One of the policy's GPU types; optional if the policy has only one. It requires `gpu`."""
    disk: Annotated[int, _quantity(parse_bytes, _DISK_EXAMPLE), WithJsonSchema(_QUANTITY_SCHEMA)] | None = None
    """The node disk: `/scratch`, other files of the container outside mounted volumes, and the log. The kubelet evicts
    a job above this limit. The policy sets the default."""
    shared_memory: _Memory | None = None
    """The size of `/dev/shm`, from 1Mi to `memory`. What a job writes there counts as memory. Default: half of
    `memory`."""


class SpecForm(_Form):
    """The request of a caller. Unknown fields are refused; null is the same as an absent field.

    The policy sets further bounds (`GET /v1/policy`): resources, times, allowed images, GPU types.
    """

    model_config = ConfigDict(title="JobSpec", json_schema_extra={"required": ["image", "resources"]})

    name: Annotated[str, _form(LABEL, 63), _match(LABEL, _LABEL_FORM, "train-resnet")] | None = None
    """A label for people; it need not be unique."""
    image: _Image | None = Field(default=None, json_schema_extra=_not_null)
    """An image reference from an allowed repository: `registry/team/train:1.4`, or by digest."""
    command: _Strings | None = None
    """The command instead of the image's entry point. The process receives it verbatim. At most 32768 UTF-8 bytes."""
    args: _Strings | None = None
    """The arguments of the command or entry point. The process receives them verbatim. At most 32768 UTF-8 bytes."""
    working_dir: _WorkingDir | None = None
    """The absolute path of the working directory, without `..`. Default: the image's. `/scratch` is writable."""
    env: _Env | None = None
    """Environment variables. The process receives them verbatim. At most 32768 UTF-8 bytes with the names. Reserved
    are the prefixes `RUNWAY_`, `KUBERNETES_`, `AWS_CONTAINER_`, and `NVIDIA_` except for a few names that open no
    device, such as `NVIDIA_DRIVER_CAPABILITIES`; and `AWS_ROLE_ARN` and `AWS_WEB_IDENTITY_TOKEN_FILE`. Names that look
    like credentials belong in `secrets`. Variables replace the defaults of `HOME`, `USER`, `LOGNAME`,
    `PYTHON_CPU_COUNT`, and the thread counts of OpenMP, MKL, OpenBLAS and numexpr."""
    secrets: _Secrets | None = None
    """Environment variables with values from Kubernetes Secrets: `{"HF_TOKEN": "huggingface/token"}` sets `HF_TOKEN`
    to key `token` of Secret `huggingface`. The policy names the tenant's Secrets. Runway never reads the values."""
    volumes: _Volumes | None = None
    """Volumes to mount, by their names in the policy, which sets their paths."""
    user: Annotated[int, _at_least(1)] | None = None
    """The numeric user of the process, never root. The group is always 1000. The policy sets bounds and default."""
    resources: ResourcesForm | None = Field(default=None, json_schema_extra=_not_null)
    """The requests and limits of each attempt."""
    pool: Annotated[str, _form(LABEL, 63), _match(LABEL, "the name of a pool", "a10g")] | None = None
    """One of the policy's pools. Default: the first pool of the GPU type, or without GPUs, that is not spot."""
    timeout_seconds: Annotated[int, _at_least(1)] | None = None
    """The maximum life of the job from acceptance: waiting, image pull and retries included. It bounds the cost and
    the use of quota. The policy sets the default."""
    start_timeout_seconds: Annotated[int, _at_least(1)] | None = None
    """The maximum time from acceptance until a container starts, at most `timeout_seconds`. Default: no limit but those
    of the policy for each cause. A restart of Runway can lengthen it."""
    retries: Annotated[int, _at_least(0)] | None = None
    """The maximum number of attempts after a failed attempt; disruptions do not count. Default 0."""
    grace_period_seconds: Annotated[int, _at_least(1)] | None = None
    """Seconds between SIGTERM and SIGKILL at the deadline, a cancel or an eviction. The policy sets the default."""
    max_cost_usd: _Usd | None = None
    """Refuse the job if `cost.ceiling`, its hourly price times timeout and grace period, is above this amount."""


def _split_unknown(
    prefix: str, document: dict[str, object], model: type[BaseModel]
) -> tuple[dict[str, Any], list[Violation]]:
    """Separate the known fields, so that a fault in an unknown name hides no other fault."""
    known = {name: value for name, value in document.items() if name in model.model_fields}
    unknown = [name for name in document if name not in known]
    fields = list(model.model_fields)
    hint = f"fields here: {', '.join(fields)}"
    message = "is not a field of a job"
    violations = [
        Violation(f"{prefix}{shorten(name)}", "unknown_field", message, hint=f"{did_you_mean(name, fields)}{hint}")
        for name in unknown[:MAX_UNKNOWN]
    ]
    if len(unknown) > MAX_UNKNOWN:
        more = f"has {len(unknown) - MAX_UNKNOWN} more unknown fields"
        violations.append(Violation(prefix.rstrip(".") or "body", "unknown_field", more, hint=hint))
    return known, violations


def _read_valid_fields(document: dict[str, Any]) -> tuple[SpecForm, list[Violation], set[str]]:
    """Read a faulty document: report its faults, and read the other fields without them."""
    valid, violations = _split_unknown("", document, SpecForm)
    if isinstance(valid.get("resources"), dict):
        valid["resources"], unknown = _split_unknown("resources.", valid["resources"], ResourcesForm)
        violations += unknown
    faulty: set[str] = set()
    while True:
        try:
            return SpecForm.model_validate(valid), violations, faulty
        except ValidationError as error:
            faults = error.errors(include_url=False)
        violations += map(_violation, faults)
        faulty |= {_field(fault["loc"]) for fault in faults}
        for loc in {fault["loc"][:2] for fault in faults}:
            _leave_out(valid, loc)
        if "resources" in faulty:
            faulty |= {f"resources.{name}" for name in ResourcesForm.model_fields}


def _leave_out(document: dict[str, Any], loc: tuple[int | str, ...]) -> None:
    """Remove the fault at `loc`: a variable, so that the others are still checked, or the whole field."""
    field, _, member = _field(loc).partition(".")
    if field in ("env", "secrets") and len(loc) > 1 and loc[1] in document.get(field, {}):
        document[field] = {name: value for name, value in document[field].items() if name != loc[1]}
    elif member:
        document[field].pop(member, None)
    else:
        document.pop(field, None)


def _field(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc[:2])) if loc[0] == "resources" else str(loc[0])


_HIDDEN: Final = ("env[", "secrets[", "command[", "args[")
"""The starts of fields whose values may be secret."""
_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "string_type": ("must be a string", "put it in quotes"),
    "int_type": ("must be a whole number", "write decimal digits without quotes"),
    "list_type": ("must be a list of strings", 'write it as ["first", "second"]'),
    "dict_type": ("must be an object of strings", 'write it as {"NAME": "value"}'),
    "model_type": ("must be an object", 'write it as {"cpu": "500m", "memory": "1Gi"}'),
}
"""Message and hint."""


def _violation(fault: ErrorDetails) -> Violation:
    kind, value, details = fault["type"], fault["input"], fault.get("ctx", {})
    path = _field(fault["loc"])
    if path in ("command", "args", "volumes") and len(fault["loc"]) > 1:
        path += f"[{fault['loc'][1]}]"
    elif path in ("env", "secrets") and len(fault["loc"]) > 1:
        path += f"[{shorten(str(value if fault['loc'][-1] == '[key]' else fault['loc'][1]))}]"
    shown = None if path.startswith(_HIDDEN) else _show(value)
    if kind in _TYPES:
        message, hint = _TYPES[kind]
        return Violation(path, "wrong_type", message, shown, hint=hint)
    if kind == "string_too_long":
        limit = f"{details['max_length']} characters"
        return Violation(path, "too_long", "is too long", shown, limit, f"use at most {limit}")
    if kind == "too_long":
        most = str(details["max_length"])
        return Violation(path, "too_many", "has too many entries", str(len(value)), most, f"use at most {most}")
    if kind == "string_unicode":
        return Violation(path, "malformed", "must not contain a lone surrogate", shown, hint="remove it")
    return Violation(
        path, kind, fault["msg"], details.get("observed") or shown, details.get("limit"), details.get("hint")
    )


def _show(observed: object) -> str | None:
    """Show a caller's value in a problem document: scalars shortened, containers only named."""
    if observed is None:
        return None
    if isinstance(observed, str):
        return shorten(observed)
    if isinstance(observed, Mapping):
        return f"an object of {len(observed)} members"
    if isinstance(observed, list):
        return f"a list of {len(observed)} entries"
    return json.dumps(observed)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"duplicate key {shorten(duplicate)!r}")
    return document


def _no_constant(name: str) -> object:
    raise ValueError(f"the body is not JSON: {name} is not a JSON number")


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number in the body has more than 20 digits")
    return int(digits)


_decoder: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_short_int)
