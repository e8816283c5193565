"""The job specification: what a caller may ask for, read strictly from JSON.

Reading never stops at the first fault: `read_draft` returns what could be understood together with every violation of
form, so that the gate can check the sound fields against the policy and answer with all violations at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from runway.errors import Violation
from runway.quantity import format_bytes, format_cpu, parse_bytes, parse_cpu

MAX_STRINGS: Final = 256
"""Entries in `command` and in `args`."""
MAX_STRING_BYTES: Final = 32_768
"""UTF-8 bytes of all of `command`, or all of `args`."""
MAX_ENV: Final = 128
MAX_ENV_BYTES: Final = 32_768
"""UTF-8 bytes of all environment names and values."""
MAX_UNKNOWN: Final = 20
"""Unknown fields that are named one by one."""
RESERVED_ENV_PREFIXES: Final = ("RUNWAY_", "KUBERNETES_", "NVIDIA_", "AWS_CONTAINER_")
"""Names that the platform, Kubernetes, the GPU runtime or AWS give a meaning to."""

LABEL: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
IMAGE: Final = re.compile(
    r"(?P<repository>[a-z0-9]+(?:(?:[._]|__|-+|:(?=[0-9]+/))[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[a-f0-9]{64})?"
)
MONEY: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")

_FIELDS: Final = (
    "name", "image", "command", "args", "env", "resources", "timeout_seconds", "retries", "grace_period_seconds",
    "max_cost_usd",
)  # fmt: skip
_RESOURCE_FIELDS: Final = ("cpu", "memory", "gpu", "gpu_type")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one attempt of the job holds: milli-CPU, bytes of memory, whole GPUs of one type."""

    cpu: int
    memory: int
    gpu: int = 0
    gpu_type: str | None = None


@dataclass(frozen=True, slots=True)
class JobSpec:
    """An admitted specification: every default filled in, every bound kept. Times are in seconds."""

    image: str
    resources: Resources
    timeout_seconds: int
    retries: int
    grace_period_seconds: int
    name: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    max_cost_usd: Decimal | None = None

    def to_json(self) -> dict[str, object]:
        """The specification as callers write it; `read_draft` reads it back."""
        return {
            "name": self.name,
            "image": self.image,
            "command": list(self.command),
            "args": list(self.args),
            "env": dict(self.env),
            "resources": {
                "cpu": format_cpu(self.resources.cpu),
                "memory": format_bytes(self.resources.memory),
                "gpu": self.resources.gpu,
                "gpu_type": self.resources.gpu_type,
            },
            "timeout_seconds": self.timeout_seconds,
            "retries": self.retries,
            "grace_period_seconds": self.grace_period_seconds,
            "max_cost_usd": None if self.max_cost_usd is None else str(self.max_cost_usd),
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """A specification as far as it could be read. None means absent, or faulty if its name is in `faulty`."""

    name: str | None = None
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cpu: int | None = None
    memory: int | None = None
    gpu: int | None = None
    gpu_type: str | None = None
    timeout_seconds: int | None = None
    retries: int | None = None
    grace_period_seconds: int | None = None
    max_cost_usd: Decimal | None = None
    faulty: frozenset[str] = frozenset()
    violations: tuple[Violation, ...] = ()

    def sound(self, *names: str) -> bool:
        """Whether each of these fields was absent or well formed."""
        return self.faulty.isdisjoint(names)


def decode(body: bytes) -> object:
    """The JSON document in a request's body.

    Raises ValueError, with a message for the caller, for what is not strict JSON in UTF-8: NaN and Infinity, a key
    given twice, numbers beyond reason, nesting without end.
    """
    try:
        return _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None


def read_draft(document: object) -> Draft:
    """Read a decoded JSON document; every violation of form is in the draft, none is raised."""
    if not isinstance(document, Mapping):
        return Draft(
            faulty=frozenset({"body"}),
            violations=(_violation("body", "wrong_type", "must be a JSON object", document),),
        )
    reader = _Reader()
    reader.unknown("", document, _FIELDS)
    resources = reader.mapping(document, "resources")
    reader.unknown("resources.", resources, _RESOURCE_FIELDS)
    return Draft(
        name=reader.text(
            document, "name", LABEL, "1 to 63 letters, digits, '-', '_' or '.', starting and ending alphanumeric"
        ),
        image=reader.text(
            document, "image", IMAGE, "an image reference such as registry/team/train:1.4", required=True
        ),
        command=reader.strings(document, "command"),
        args=reader.strings(document, "args"),
        env=reader.env(document),
        cpu=reader.quantity(resources, "cpu"),
        memory=reader.quantity(resources, "memory"),
        gpu=reader.integer(resources, "gpu", "resources.gpu"),
        gpu_type=reader.text(resources, "gpu_type", LABEL, "the name of a GPU type", path="resources.gpu_type"),
        timeout_seconds=reader.integer(document, "timeout_seconds"),
        retries=reader.integer(document, "retries"),
        grace_period_seconds=reader.integer(document, "grace_period_seconds"),
        max_cost_usd=reader.money(document, "max_cost_usd"),
        faulty=frozenset(reader.faulty),
        violations=tuple(reader.violations),
    )


@dataclass(slots=True)
class _Reader:
    """Takes fields out of JSON objects and notes every violation on the way."""

    violations: list[Violation] = field(default_factory=list)
    faulty: set[str] = field(default_factory=set)

    def fault(self, path: str, code: str, message: str, observed: object = None, **more: str) -> None:
        self.faulty.add(path.split("[")[0])
        self.violations.append(_violation(path, code, message, observed, **more))

    def unknown(self, prefix: str, document: Mapping[str, object], known: Sequence[str]) -> None:
        """Unknown fields are violations, but take nothing from the fields that are known."""
        strangers = [key for key in document if key not in known]
        hint = f"fields here: {', '.join(known)}"
        for key in strangers[:MAX_UNKNOWN]:
            self.violations.append(
                Violation(f"{prefix}{_shorten(key)}", "unknown_field", "is not a field of a job", hint=hint)
            )
        if len(strangers) > MAX_UNKNOWN:
            more = f"has {len(strangers) - MAX_UNKNOWN} more unknown fields"
            self.violations.append(Violation(prefix.rstrip(".") or "body", "unknown_field", more, hint=hint))

    def mapping(self, document: Mapping[str, object], name: str) -> Mapping[str, object]:
        value = document.get(name)
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.fault(name, "wrong_type", "must be an object", value)
            self.faulty.update({f"{name}.cpu", f"{name}.memory", f"{name}.gpu", f"{name}.gpu_type"})
        return {} if value is None else {"cpu": _FAULTY, "memory": _FAULTY}

    def text(
        self, document: Mapping[str, object], name: str, grammar: re.Pattern[str], what: str, *, path: str = "",
        required: bool = False,
    ) -> str | None:  # fmt: skip
        value, path = document.get(name), path or name
        if value is None:
            if required:
                self.fault(path, "required", "is required", hint=f"give {what}")
        elif not isinstance(value, str):
            self.fault(path, "wrong_type", "must be a string", value)
        elif len(value) > 512:
            self.fault(path, "too_long", "is too long", value, limit="512 characters")
        elif grammar.fullmatch(value) is None:
            self.fault(path, "malformed", f"must be {what}", value)
        else:
            return value
        return None

    def integer(self, document: Mapping[str, object], name: str, path: str = "") -> int | None:
        value = document.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(path or name, "wrong_type", "must be a whole number", value)
            return None
        return value

    def quantity(self, resources: Mapping[str, object], name: str) -> int | None:
        value, path = resources.get(name), f"resources.{name}"
        example = '"500m" or "2"' if name == "cpu" else '"512Mi" or "8Gi"'
        if value is _FAULTY:
            return None
        if value is None:
            self.fault(path, "required", "is required", hint=f"give a quantity such as {example}")
        elif not isinstance(value, str):
            self.fault(path, "wrong_type", "must be a quantity in a string", value, hint=f"write it as {example}")
        else:
            try:
                return parse_cpu(value) if name == "cpu" else parse_bytes(value)
            except ValueError as error:
                self.fault(path, "malformed", str(error), value, hint=f"write it as {example}")
        return None

    def money(self, document: Mapping[str, object], name: str) -> Decimal | None:
        value = document.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fault(name, "wrong_type", "must be a decimal in a string", value, hint='write it as "12.50"')
        elif MONEY.fullmatch(value) is None:
            self.fault(
                name, "malformed", "must be an amount in USD with at most 6 decimals", value, hint='such as "12.50"'
            )
        else:
            return Decimal(value)
        return None

    def strings(self, document: Mapping[str, object], name: str) -> tuple[str, ...]:
        value = document.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fault(name, "wrong_type", "must be a list of strings", value)
            return ()
        if len(value) > MAX_STRINGS:
            self.fault(name, "too_many", "has too many entries", len(value), limit=str(MAX_STRINGS))
            return ()
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.fault(f"{name}[{index}]", "wrong_type", "must be a string", item)
            else:
                self.passable(f"{name}[{index}]", item)
        if name not in self.faulty:
            self.total(name, value, MAX_STRING_BYTES)
        return () if name in self.faulty else tuple(value)

    def env(self, document: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
        value = document.get("env")
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            self.fault("env", "wrong_type", "must be an object of strings", value)
            return ()
        if len(value) > MAX_ENV:
            self.fault("env", "too_many", "has too many entries", len(value), limit=str(MAX_ENV))
            return ()
        for key, item in value.items():
            path = f"env[{_shorten(key)}]"
            if ENV_NAME.fullmatch(key) is None:
                self.fault(
                    path, "malformed", "the name must be 1 to 128 letters, digits or '_', not starting with a digit"
                )
            elif key.startswith(RESERVED_ENV_PREFIXES):
                self.fault(
                    path,
                    "reserved",
                    "is reserved",
                    hint=f"not free: names starting with {', '.join(RESERVED_ENV_PREFIXES)}",
                )
            if not isinstance(item, str):
                self.fault(path, "wrong_type", "must be a string", item)
            else:
                self.passable(path, item)
        if "env" not in self.faulty:
            self.total("env", [part for pair in value.items() for part in pair], MAX_ENV_BYTES)
        return () if "env" in self.faulty else tuple(value.items())

    def passable(self, path: str, text: str) -> None:
        """What cannot be handed to a process: a NUL ends a C string, a lone surrogate has no UTF-8."""
        if "\0" in text:
            self.fault(path, "malformed", "must not hold a NUL character")
        elif not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            self.fault(path, "malformed", "must not hold a lone surrogate")

    def total(self, path: str, parts: Sequence[str], limit: int) -> None:
        size = sum(len(part.encode()) for part in parts)
        if size > limit:
            self.fault(path, "too_large", "is too large", f"{size} bytes", limit=f"{limit} bytes")


_FAULTY: Final = object()
"""Stands for the members of an object that was itself faulty, so that they are not also called missing."""


def split_image(image: str) -> tuple[str, str]:
    """An image reference's repository and the rest: `("docker.io/library/python", ":3.12")`."""
    match = IMAGE.fullmatch(image)
    if match is None:
        raise ValueError(f"not an image reference: {image!r}")
    return match["repository"], (match["tag"] or "") + (match["digest"] or "")


def _violation(path: str, code: str, message: str, observed: object = None, **more: str) -> Violation:
    return Violation(path, code, message, _show(observed), more.get("limit"), more.get("hint"))


def _show(observed: object) -> str | None:
    """A caller's value as it may stand in a problem document: scalars shortened, containers only named."""
    if observed is None:
        return None
    if isinstance(observed, str):
        return _shorten(observed)
    if isinstance(observed, Mapping):
        return f"an object of {len(observed)} members"
    if isinstance(observed, list):
        return f"a list of {len(observed)} entries"
    return json.dumps(observed)


def _shorten(text: str, limit: int = 80) -> str:
    """Text of a caller made fit for a problem document: printable, and not longer than `limit`."""
    shown = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text[: limit + 1])
    return (shown if len(shown) <= limit else shown[:limit] + "…") or '""'


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {_shorten(twice)!r} stands twice in an object")
    return document


def _no_constant(name: str) -> object:
    raise ValueError(f"the body is not JSON: {name} is not a JSON number")


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("the body is not acceptable JSON: a number has more than 20 digits")
    return int(digits)


_decoder: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_short_int)
