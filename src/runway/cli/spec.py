"""A job spec from a file and flags. Runway alone judges it: here only what cannot be sent is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml

from runway.jobs.spec import decode
from runway.yaml_loader import StrictLoader, parse

MAX_FILE_BYTES = 1 << 20
"""Runway takes a body of at most this many bytes (`RUNWAY_MAX_BODY_BYTES`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecFlags:
    """The flags of `submit` and `run` that make a spec; None was not given. Times are in seconds."""

    file: str | None
    name: str | None
    image: str | None
    cpu: str | None
    memory: str | None
    gpu: int | None
    gpu_type: str | None
    env: list[str] | None
    timeout: int | None
    retries: int | None
    grace: int | None
    max_cost: str | None
    command: list[str] | None


def build_spec(flags: SpecFlags) -> dict[str, object]:
    """The spec of the file, if one was named, with the flags over it.

    `--env` adds to the file's variables; a command replaces both `command` and `args` of the file.
    Raises typer.BadParameter where the file or a flag cannot be read.
    """
    spec = _read_file(flags.file) if flags.file is not None else {}
    fields = {
        "name": flags.name,
        "image": flags.image,
        "timeout_seconds": flags.timeout,
        "retries": flags.retries,
        "grace_period_seconds": flags.grace,
        "max_cost_usd": flags.max_cost,
        "command": flags.command or None,
    }
    resources = {"cpu": flags.cpu, "memory": flags.memory, "gpu": flags.gpu, "gpu_type": flags.gpu_type}
    if flags.command:
        spec.pop("args", None)
    spec |= {name: value for name, value in fields.items() if value is not None}
    _overlay(spec, "resources", {name: value for name, value in resources.items() if value is not None})
    _overlay(spec, "env", parse_env(flags.env or []))
    try:
        _check_json(spec)
    except ValueError as error:
        raise typer.BadParameter(f"the job cannot be sent: {error}") from error
    return spec


def parse_env(assignments: list[str]) -> dict[str, str]:
    """`["A=1", "B=x=y"]` as `{"A": "1", "B": "x=y"}`. Raises typer.BadParameter without `=`, or for a repeated name."""
    env: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE", param_hint="--env")
        if name in env:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--env")
        env[name] = value
    return env


def _overlay(spec: dict[str, object], field: str, given: Mapping[str, object]) -> None:
    if not given:
        return
    present = spec.get(field)
    if present is not None and not isinstance(present, Mapping):
        raise typer.BadParameter(f"{field} must be a mapping for flags to add to it", param_hint="--file")
    spec[field] = {**(present or {}), **given}


def _read_file(name: str) -> dict[str, object]:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint="--file") from error
    if len(content) > MAX_FILE_BYTES:
        raise typer.BadParameter(f"{name} is larger than {MAX_FILE_BYTES} bytes", param_hint="--file")
    try:
        document = _parse(content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(f"{name} is not a job spec: {reason}", param_hint="--file") from error
    if not isinstance(document, dict):
        raise typer.BadParameter(f"{name} is not a job spec: it must be one mapping", param_hint="--file")
    return document


def _parse(content: bytes) -> object:
    """The document in a spec file: JSON where it starts with a brace, YAML otherwise. Raises ValueError."""
    is_json = content.lstrip().startswith(b"{")
    document = decode(content) if is_json else parse(content.decode("utf-8"), _SpecLoader)
    _check_json(document)
    return document


def _check_json(document: object) -> None:
    """Raise ValueError where `document` has no form as JSON in UTF-8: a lone surrogate, an infinite number."""
    try:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except TypeError as error:
        raise ValueError(f"{error}; quote what is meant as text") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"the text {error.object[error.start : error.end]!r} is not UTF-8") from error


class _SpecLoader(StrictLoader):
    """Dates stay text: no field of a job is one."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as the base class has it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
