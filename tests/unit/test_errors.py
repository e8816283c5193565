"""The error tree: what callers can rely on, and that its drawing is true."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest

from runway import errors
from runway.errors import InvalidSpec, PolicyError, PublicError, Unavailable, Violation


def _public(root: type[PublicError] = PublicError) -> list[type[PublicError]]:
    below = [
        error for child in root.__subclasses__() if child.__module__ == errors.__name__ for error in _public(child)
    ]
    return ([root] if "code" in root.__dict__ else []) + below


def test_every_public_error_has_its_own_code_a_title_a_hint_and_an_error_status() -> None:
    found = _public()
    assert len({error.code for error in found}) == len(found)
    for error in found:
        assert re.fullmatch(r"[a-z][a-z_]*", error.code)
        assert error.title
        assert re.fullmatch(r"[a-z].*[^.]", error.hint)
        assert HTTPStatus(error.status) >= HTTPStatus.BAD_REQUEST


def test_the_drawing_names_every_public_error_with_its_status_and_code() -> None:
    lines = (errors.__doc__ or "").splitlines()
    for error in _public():
        line = next((line for line in lines if re.search(rf"── {error.__name__}\s", line)), "")
        shown = f"{error.status} {error.code}" if not issubclass(error, Unavailable) else error.code
        assert shown in line, f"{error.__name__} is not drawn as {shown}"


@pytest.mark.parametrize("error", [error for error in _public() if issubclass(error, Unavailable)], ids=str)
def test_what_is_unavailable_always_says_when_to_come_back(error: type[Unavailable]) -> None:
    assert (error("not now").retry_after or 0) >= 1


def test_an_invalid_specification_counts_its_violations() -> None:
    one, two = Violation("image", "required", "is required"), Violation("name", "malformed", "must be a name")
    assert InvalidSpec((one,)).detail == "1 violation, listed below"
    assert InvalidSpec((one, two)).detail == "2 violations, listed below"
    assert InvalidSpec((one, two)).violations == (one, two)


def test_a_policy_error_has_a_line_for_each_faulty_field() -> None:
    error = PolicyError([("limits.cpu", "is wrong"), ("tenants", "are missing")])
    assert str(error).splitlines() == ["limits.cpu: is wrong", "tenants: are missing"]
