"""A job spec from a file and options.

The server validates it; this module rejects only what cannot be sent.
"""

from __future__ import annotations

import inspect
import json
import re
import select
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, TextIO

import typer
import yaml
from typer import Argument, Option

from runway.cli.client import without_none
from runway.cli.foreign import explain
from runway.cli.options import duration_option, idempotency_key, parse_duration
from runway.jobs.spec import decode
from runway.text import shorten
from runway.yaml_loader import StrictLoader, parse

EXAMPLE: Final = "--image python:3.12 --cpu 1 --memory 1Gi -- python -c 'print(1)'"
STDIN_SECONDS: Final = 1.0
"""Time until the command says that it waits for stdin. Cron, CI and ssh can leave it open and send nothing."""
MAX_FILE_BYTES = 1 << 20  # Runway accepts a body of at most this many bytes (`RUNWAY_MAX_BODY_BYTES`).
_PLAIN_NUMBER: Final = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{0,99})?|\.[0-9]{1,99})(?:[eE][-+]?[0-9]{1,3})?"
)
_TEXT_FIELDS: Final = ("name", "command", "args", "env", "max_cost_usd", "working_dir", "pool", "secrets", "volumes")
RESOURCES: Final = ("cpu", "memory", "gpu", "gpu_type", "disk", "shared_memory")
_FIELD_OF_OPTION: Final = {
    "timeout": "timeout_seconds",
    "start_timeout": "start_timeout_seconds",
    "grace": "grace_period_seconds",
    "max_cost": "max_cost_usd",
    "workdir": "working_dir",
    "secret": "secrets",  # pragma: allowlist secret
    "volume": "volumes",
    **{name: f"resources.{name}" for name in RESOURCES},
}
"""Names of options that are not names of fields."""


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """The arguments and options of `submit` and `run` that make a spec; None was not given. Times are in seconds."""

    command: Annotated[
        list[str] | None,
        Argument(metavar="COMMAND", help="After --: the command of the container, instead of the image's own."),
    ] = None
    file: Annotated[
        str | None,
        Option("-f", "--file", metavar="FILE", help="YAML or JSON job spec, - for stdin; options override it."),
    ] = None
    image: Annotated[str | None, Option(metavar="REF", help="Container image.")] = None
    cpu: Annotated[str | None, Option(metavar="QUANTITY", help="CPU, such as 500m or 4.")] = None
    memory: Annotated[str | None, Option(metavar="QUANTITY", help="Memory, such as 512Mi or 16Gi.")] = None
    gpu: Annotated[int | None, Option(metavar="COUNT", help="Number of whole GPUs.")] = None
    gpu_type: Annotated[str | None, Option(metavar="TYPE", help="Type of the GPUs, such as a10g.")] = None
    pool: Annotated[str | None, Option(metavar="NAME", help="Pool of nodes, such as a10g-spot.")] = None
    disk: Annotated[str | None, Option(metavar="QUANTITY", help="Disk: /scratch, other files and log.")] = None
    shared_memory: Annotated[str | None, Option(metavar="QUANTITY", help="Size of /dev/shm, in the memory.")] = None
    workdir: Annotated[str | None, Option(metavar="PATH", help="Working directory, instead of the image's own.")] = None
    user: Annotated[int | None, Option(metavar="UID", help="Numeric user of the process; never 0.")] = None
    env: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="Environment variable; may be repeated.")] = None
    secret: Annotated[
        list[str] | None,
        Option(metavar="NAME=SECRET/KEY", help="Environment variable from a Kubernetes Secret; may be repeated."),
    ] = None
    volume: Annotated[
        list[str] | None, Option(metavar="NAME", help="Volume of the policy to mount; may be repeated.")
    ] = None
    timeout: Annotated[
        int | None, duration_option("Lifetime of the job, including waiting and retries: 90, 30m, 1h.")
    ] = None
    start_timeout: Annotated[int | None, duration_option("Time from acceptance until a container starts.")] = None
    retries: Annotated[int | None, Option(metavar="COUNT", help="Number of retries of a failed attempt.")] = None
    grace: Annotated[int | None, duration_option("Time between SIGTERM and SIGKILL.")] = None
    max_cost: Annotated[
        str | None, Option(metavar="USD", help="Reject the job if it could cost more, such as 12.50.")
    ] = None
    name: Annotated[str | None, Option(metavar="LABEL", help="A label for people; need not be unique.")] = None
    idempotency_key: Annotated[
        str | None,
        Option(metavar="KEY", callback=idempotency_key, help="Repeating the same key and spec returns the first job."),
    ] = None


def with_spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `SpecOptions`: it receives them as its parameter `options`."""
    spec = inspect.signature(SpecOptions, eval_str=True).parameters
    own = dict(inspect.signature(command, eval_str=True).parameters)
    context = own.pop("context")
    del own["options"]

    def expanded(context: typer.Context, **values: Any) -> None:
        options = SpecOptions(**{name: values.pop(name) for name in spec})
        command(context, options, **values)

    expanded.__doc__, expanded.__name__ = command.__doc__, command.__name__
    expanded.__signature__ = inspect.Signature([context, *spec.values(), *own.values()])  # type: ignore[attr-defined]
    expanded.__annotations__ = {name: parameter.annotation for name, parameter in (own | dict(spec)).items()}
    return expanded


def build_spec(
    context: typer.Context, options: SpecOptions, defaults: Mapping[str, object] = MappingProxyType({})
) -> dict[str, object]:
    """Return the spec of the file or of stdin, overridden by the options. Raises typer.BadParameter.

    `--env` and `--secret` add to the file's variables, `--volume` to its volumes. A command replaces both `command` and
    `args` of the file. Without a file, an image and a command the spec is read from stdin, unless that is a terminal.
    `defaults` fill absent fields.
    """
    has_file = options.file is not None
    spec = _read_file(options.file or "-") if has_file else _read_stdin(context, options, "image" in defaults)
    values = {
        "name": options.name,
        "image": options.image,
        "pool": options.pool,
        "timeout_seconds": options.timeout,
        "start_timeout_seconds": options.start_timeout,
        "retries": options.retries,
        "grace_period_seconds": options.grace,
        "max_cost_usd": options.max_cost,
        "command": options.command or None,
        "working_dir": options.workdir,
        "user": options.user,
    }
    resources = {
        "cpu": options.cpu,
        "memory": options.memory,
        "gpu": options.gpu,
        "gpu_type": options.gpu_type,
        "disk": options.disk,
        "shared_memory": options.shared_memory,
    }
    if options.command:
        spec.pop("args", None)
    spec |= without_none(values)
    _overlay(spec, "resources", without_none(resources))
    _overlay(spec, "env", parse_env(options.env or []))
    _overlay(spec, "secrets", parse_env(options.secret or [], "--secret", "NAME=SECRET/KEY"))
    _append(spec, "volumes", options.volume or [])
    spec = _with_defaults(spec, defaults)
    try:
        _check_json(spec)
    except ValueError as error:
        raise typer.BadParameter(f"the job cannot be sent: {error}") from error
    return spec


def parse_env(assignments: list[str], option: str = "--env", form: str = "NAME=VALUE") -> dict[str, str]:
    """Parse `["A=1", "B=x=y"]` to `{"A": "1", "B": "x=y"}`. Raises typer.BadParameter, also for a repeated name."""
    env: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not {form}", param_hint=option)
        if name in env:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint=option)
        env[name] = value
    return env


def _overlay(spec: dict[str, object], field: str, values: Mapping[str, object]) -> None:
    if not values:
        return
    present = spec.get(field)
    if present is not None and not isinstance(present, Mapping):
        raise typer.BadParameter(f"{field} must be a mapping for options to add to it", param_hint="--file")
    spec[field] = {**(present or {}), **values}


def _append(spec: dict[str, object], field: str, values: Sequence[str]) -> None:
    """Add to the list of the file those values that it lacks."""
    if not values:
        return
    present = spec.get(field)
    if present is not None and not isinstance(present, list):
        raise typer.BadParameter(f"{field} must be a list for options to add to it", param_hint="--file")
    known = present or []
    spec[field] = [*known, *(value for value in values if value not in known)]


def _with_defaults(spec: dict[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    resources, common = spec.get("resources", {}), defaults.get("resources", {})
    if not isinstance(resources, Mapping) or not isinstance(common, Mapping):
        return {**defaults, **spec}
    filled = {**common, **resources}
    if not filled.get("gpu") and "gpu_type" not in resources:
        filled.pop("gpu_type", None)  # A default type does not make a CPU job invalid.
    return {**defaults, **spec} | ({"resources": filled} if filled else {})


def _read_stdin(context: typer.Context, options: SpecOptions, has_image: bool) -> dict[str, object]:
    """Return the spec that a pipe brings, {} without one. A command without any option, pipe and image is an error."""
    is_bare = all(getattr(options, field.name) in (None, []) for field in fields(options))
    if options.image is not None or options.command or (has_image and not is_bare):
        return {}
    if sys.stdin is not None and not sys.stdin.isatty():
        content = _content("-", "stdin")
        if content.strip():
            return _spec_in(content, "stdin")
    if is_bare and not has_image:
        context.fail(f"There is no job to submit. For example: {context.command_path} {EXAMPLE}")
    return {}


def _read_file(name: str) -> dict[str, object]:
    shown = "stdin" if name == "-" else name
    return _spec_in(_content(name, shown), shown)


def _content(name: str, shown: str) -> bytes:
    try:
        if name == "-":
            announce_wait(sys.stdin)
            content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{shown} cannot be read: {error.strerror}", param_hint="--file") from error
    if len(content) > MAX_FILE_BYTES:
        raise typer.BadParameter(f"{shown} is larger than {MAX_FILE_BYTES} bytes", param_hint="--file")
    return content


def announce_wait(stdin: TextIO, seconds: float = STDIN_SECONDS) -> None:
    """Say on stderr that the command waits for a spec, if stdin is no terminal and sends nothing for this time."""
    with suppress(OSError, ValueError):  # It has no file descriptor.
        if not stdin.isatty() and not select.select([stdin], [], [], seconds)[0]:
            typer.echo("Waiting for a job spec on stdin; if there is none, add </dev/null to the command.", err=True)


def _spec_in(content: bytes, shown: str) -> dict[str, object]:
    if (explanation := explain(shown, content)) is not None:
        raise typer.BadParameter(explanation, param_hint="--file")
    try:
        return read_spec(content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(f"{shown} is not a job spec: {reason}", param_hint="--file") from error


def read_spec(content: bytes) -> dict[str, object]:
    """Read YAML or JSON as people write it: durations, and numbers where the API wants text.

    Raises ValueError, also for YAML that means something else than it looks like: `no`, `012`, `1:30`.
    """
    is_json = content.lstrip().startswith(b"{")
    document = decode(content) if is_json else parse(content.decode("utf-8"), SpecLoader)
    if not isinstance(document, dict):
        raise ValueError("it must be one mapping")
    spec = as_fields(document)
    _check_json(spec)
    return spec


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for the names of options that are not the names of their fields."""
    if wrong := [name for name in names if name in _FIELD_OF_OPTION]:
        raise ValueError(", ".join(f"the field {name} is called {_FIELD_OF_OPTION[name]}" for name in wrong))


def as_fields(document: Mapping[str, object]) -> dict[str, object]:
    """Return the fields as the API wants them. Raises ValueError for the name of an option, and for no duration."""
    check_names(document)
    return {name: _as_field((name,), value) for name, value in document.items()}


def _as_field(path: tuple[str, ...], value: object) -> object:
    if isinstance(value, dict):
        return {name: _as_field((*path, name), item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_field(path, item) for item in value]
    if path[0] == "env" and value is None:
        raise ValueError(f'{".".join(path)} has no value: write "" for an empty one')
    if path[0].endswith("_seconds") and isinstance(value, str):
        try:
            return parse_duration(value)
        except typer.BadParameter as error:
            raise ValueError(f"{path[0]}: {error.message}") from error
    is_text = path[0] in _TEXT_FIELDS or (path[0] == "resources" and path[-1] != "gpu")
    if isinstance(value, Number):
        return value.text if is_text else value.amount
    return str(value) if is_text and isinstance(value, int | float) and not isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class Number:
    """A plain number of a YAML file, as it is written: `1.50` stays `1.50` where the API wants text."""

    text: str

    @property
    def amount(self) -> int | float:
        return float(self.text) if re.search(r"[.eE]", self.text) else int(self.text)

    def __repr__(self) -> str:
        return self.text


def _check_json(document: object) -> None:
    """Raise ValueError where JSON in UTF-8 cannot express `document`: a lone surrogate, an infinite number."""
    try:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except TypeError as error:
        raise ValueError(f"{error}; quote it if it is text") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"the text {error.object[error.start : error.end]!r} is not UTF-8") from error


class SpecLoader(StrictLoader):
    """Refuses a value that YAML 1.1 changes, with the hint to quote it."""

    def construct_number(self, node: yaml.ScalarNode) -> Number:
        if not _PLAIN_NUMBER.fullmatch(node.value):
            text = shorten(node.value)
            raise ValueError(f'YAML reads {text} as another number; if it is text, write "{text}"')
        return Number(node.value)

    def refuse_boolean(self, node: yaml.ScalarNode) -> object:
        raise ValueError(f'YAML reads {node.value} as a boolean, and no field is one; write "{node.value}"')


SpecLoader.add_constructor("tag:yaml.org,2002:int", SpecLoader.construct_number)
SpecLoader.add_constructor("tag:yaml.org,2002:float", SpecLoader.construct_number)
SpecLoader.add_constructor("tag:yaml.org,2002:bool", SpecLoader.refuse_boolean)
