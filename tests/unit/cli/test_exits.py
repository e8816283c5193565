"""The exit codes and their documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from runway.cli.context import Exit
from tests.support.cli import runway

FEATURES = Path(__file__).parents[3] / "docs" / "features.md"


def test_documented_exit_codes_match() -> None:
    rows = [line for line in FEATURES.read_text().split("**Exit codes.**")[1].splitlines() if line.startswith("| ")]
    assert rows[2:] == [f"| {code.value} | {code.doc} |" for code in Exit]


@pytest.mark.parametrize("command", [[], ["wait"], ["run"], ["submit"]])
def test_help_lists_every_exit_code(command: list[str]) -> None:
    text = runway(*command, "--help").stdout
    assert all(f"{code.value:>4}  {code.doc}" in text for code in Exit)
