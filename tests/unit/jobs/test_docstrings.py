"""Descriptions of fields in OpenAPI."""

from __future__ import annotations

from dataclasses import dataclass

from runway.jobs.docstrings import field_docstrings
from runway.jobs.models import CostView


@dataclass(frozen=True)
class Extended(CostView):
    """A class of another package: only the fields that it inherits have a description."""

    own: int = 0
    """Not of Runway."""


def test_description_is_the_docstring_after_the_field() -> None:
    assert field_docstrings(CostView)["currency"] == "Always USD."
    assert field_docstrings(CostView).keys() == CostView.__dataclass_fields__.keys()


def test_inherited_fields_keep_their_description() -> None:
    assert field_docstrings(Extended) == field_docstrings(CostView)
