"""Faults of a policy file in plain words, each with its line, the value as written, and a hint. Pure."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runway.errors import PolicyError, PolicyFault
from runway.text import did_you_mean, shorten
from runway.yaml_loader import Source, YamlPath, sanitize_message

MAX_FAULTS: Final = 20  # Faults in an error message, so that they fit on one screen.
UNQUOTED: Final = "unquoted"
"""The error type of a value that must be in quotes; its context has a hint with an example."""
_DECIMAL: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_KEY: Final = "[key]"  # The last part of a path if the name itself is at fault.
_HIDDEN: Final = ("secrets", "image_pull_secrets", "url_template", "annotations")
"""Fields whose values may hold a password by mistake."""
_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "int_type": ("must be a whole number", "write it in decimal digits, without quotes"),
    "bool_type": ("must be true or false", "write true or false, without quotes"),
    "string_type": ("must be text", "put the value in quotes"),
    "dict_type": ("must be a mapping", "write `name: value` pairs below it"),
    "model_type": ("must be a mapping", "write its fields below it"),
    "tuple_type": ("must be a list", "write it as [first, second]"),
}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_SIZES: Final[Mapping[str, tuple[str, str, str]]] = {
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
    "too_short": ("at least", "min_length", "entries"),
    "too_long": ("at most", "max_length", "entries"),
}


class FaultFinder:
    """Describes what pydantic found in a document. `patterns` puts the regular expressions of fields into words."""

    def __init__(self, model: type[BaseModel], patterns: Mapping[str, str], source: Source) -> None:
        self._model, self._patterns, self._source = model, patterns, source

    def faults(self, error: ValidationError) -> list[PolicyFault]:
        """Return a fault for each error; those above `MAX_FAULTS` are only counted, so they have no words."""
        details = [each for each in error.errors(include_url=False) if not _follows(each)]
        found = [self._fault(each) for each in details[:MAX_FAULTS]]
        return [*found, *found[-1:] * (len(details) - len(found))]

    def fault(
        self,
        path: YamlPath,
        message: str,
        *,
        shows_value: bool = True,
        limit: str | None = None,
        hint: str | None = None,
    ) -> PolicyFault:
        """Return a fault at a path, with its line and the value in the file."""
        place = tuple(part for part in path if part != _KEY)
        text = None if not shows_value or set(_HIDDEN) & set(path) else self._source.text(place)
        observed = None if text is None else shorten(text).replace("…", "...")  # Messages are ASCII.
        return PolicyFault(field_of(place), message, self._source.line(place), observed, limit, hint)

    def _fault(self, details: ErrorDetails) -> PolicyFault:
        path, kind = details["loc"], details["type"]
        context: Mapping[str, Any] = details.get("ctx", {})
        if kind == "extra_forbidden":
            return self._unknown(path)
        if kind == "missing":
            hint = f"add it to {field_of(path[:-1])}" if len(path) > 1 else "add this section"
            return self.fault(path, "is required", hint=hint)
        if kind in _TYPES:
            message, hint = _TYPES[kind]
            is_trap = kind == "int_type" and isinstance(details["input"], bool)
            return self.fault(
                path, message, hint="YAML reads this word as a boolean: write digits" if is_trap else hint
            )
        if kind in _BOUNDS:
            words, name = _BOUNDS[kind]
            return self.fault(path, f"must be {words} {context[name]}", limit=str(context[name]))
        if kind in _SIZES:
            words, name, unit = _SIZES[kind]
            found = self.fault(path, f"must have {words} {context[name]} {unit}", limit=str(context[name]))
            return replace(found, observed=f"{len(details['input'])} {unit}")
        if kind == "string_pattern_mismatch":
            words = "the name must be" if path[-1] == _KEY else "must be"
            form = self._patterns.get(context["pattern"], f"of the form {context['pattern']}")
            return self.fault(path, f"{words} {form}", shows_value=path[-1] != _KEY)
        if kind == "literal_error":
            return self.fault(path, f"must be {context['expected'].replace(chr(39), '')}")
        fault = self.fault(path, details["msg"].removeprefix("Value error, "), hint=context.get("hint"))
        if kind == UNQUOTED and fault.observed and _DECIMAL.fullmatch(fault.observed):
            return replace(fault, hint=f'write it as "{fault.observed}"')
        return fault

    def _unknown(self, path: YamlPath) -> PolicyFault:
        owner = model_at(self._model, path[:-1])
        fields = list(owner.model_fields)
        hint = f"{did_you_mean(str(path[-1]), fields)}fields here: {', '.join(fields)}"
        # The value of a misspelt field may be secret.
        noun = owner.model_config.get("title") or field_of(path[:-1])
        return self.fault(path, f"is not a field of {noun}", shows_value=False, hint=hint)


def _follows(details: ErrorDetails) -> bool:
    """Return whether this fault follows from others: pydantic counts only the valid entries of a list."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def policy_error(faults: Sequence[PolicyFault]) -> PolicyError:
    """Return the error of these faults, sorted by line, without control characters."""
    shown = sorted(faults[:MAX_FAULTS], key=lambda fault: fault.line or 0)
    if len(faults) > MAX_FAULTS:
        shown.append(PolicyFault("file", f"{len(faults) - MAX_FAULTS} more faults are not shown"))
    return PolicyError([_sanitized(fault) for fault in shown])


def field_of(path: YamlPath) -> str:
    return ".".join(map(str, path)) or "file"


def model_at(model: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel]:
    """Return the model of the mapping at a path that pydantic names."""
    found: Any = model
    for step in path:
        found = _without_none(found)
        arguments = typing.get_args(found)
        if not arguments:
            found = found.model_fields[str(step)].annotation
        else:  # A mapping of names to models, or a list of models.
            found = arguments[-1] if typing.get_origin(found) is dict else arguments[0]
    owner: type[BaseModel] = _without_none(found)
    return owner


def _without_none(annotation: Any) -> Any:
    """Return the type of an optional value."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return next(each for each in typing.get_args(annotation) if each is not types.NoneType) if is_union else annotation


def _sanitized(fault: PolicyFault) -> PolicyFault:
    return PolicyFault(
        sanitize_message(fault.field),
        sanitize_message(fault.message),
        fault.line,
        fault.observed and sanitize_message(fault.observed),
        fault.limit and sanitize_message(fault.limit),
        fault.hint and sanitize_message(fault.hint),
    )
