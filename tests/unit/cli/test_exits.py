"""The exit codes, as documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from runway.cli.exits import Exit
from tests.support.cli import runway

FEATURES = Path(__file__).parents[3] / "docs" / "features.md"


def test_the_table_in_the_documents_is_the_one_in_force() -> None:
    rows = [line for line in FEATURES.read_text().split("**Exit codes.**")[1].splitlines() if line.startswith("| ")]
    assert rows[2:] == [f"| {code.value} | {code.doc} |" for code in Exit]


@pytest.mark.parametrize("command", [[], ["wait"], ["run"], ["submit"]])
def test_help_tells_every_exit_code(command: list[str]) -> None:
    told = runway(*command, "--help").stdout
    assert all(f"{code.value:>4}  {code.doc}" in told for code in Exit)
