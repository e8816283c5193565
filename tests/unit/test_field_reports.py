"""The table of field reports names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
TABLE: Final = TESTS / "field_reports.md"


def rows() -> list[list[str]]:
    """Return the cells of each row."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [cells for cells in found if cells[-1] != "tests" and not cells[0].startswith("---")]


def test_every_report_names_tests_that_exist() -> None:
    assert len(rows()) >= 37
    for cells in rows():
        named = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", cells[-1])
        assert named, cells[0]
        for file, name in named:
            source = (TESTS.parent / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"
