"""The error tree: public attributes."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest

from runway import errors
from runway.errors import InvalidSpec, PolicyError, PolicyFault, PublicError, Unavailable, Violation


def _public(root: type[PublicError] = PublicError) -> list[type[PublicError]]:
    below = [
        error for child in root.__subclasses__() if child.__module__ == errors.__name__ for error in _public(child)
    ]
    return ([root] if "code" in root.__dict__ else []) + below


def test_every_public_error_has_unique_code_title_hint_and_status() -> None:
    found = _public()
    assert len({error.code for error in found}) == len(found)
    for error in found:
        assert re.fullmatch(r"[a-z][a-z_]*", error.code)
        assert error.title
        assert re.fullmatch(r"[a-z].*[^.]", error.hint)
        assert HTTPStatus(error.status) >= HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("error", [error for error in _public() if issubclass(error, Unavailable)], ids=str)
def test_unavailable_errors_have_retry_after(error: type[Unavailable]) -> None:
    assert (error("not now").retry_after or 0) >= 1


def test_invalid_spec_counts_its_violations() -> None:
    one, two = Violation("image", "required", "is required"), Violation("name", "malformed", "must be a name")
    assert InvalidSpec((one,)).detail == "1 violation, listed below"
    assert InvalidSpec((one, two)).detail == "2 violations, listed below"
    assert InvalidSpec((one, two)).violations == (one, two)


def test_policy_error_has_a_line_for_each_fault() -> None:
    error = PolicyError(
        [
            PolicyFault("file", "is too large"),
            PolicyFault("file", "tags are not allowed", 2),
            PolicyFault("limits.gpu.max", "must be at most 64", 3, observed="65", limit="64", hint="set less"),
        ]
    )
    assert str(error).splitlines() == [
        "file: is too large",
        "line 2: tags are not allowed",
        "line 3: limits.gpu.max: must be at most 64 (observed 65); set less",
    ]
