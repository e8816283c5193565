"""The tables of the documents are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.diagnosis.conditions import ConditionCode
from runway.jobs.diagnosis.failure_table import main, with_tables

FEATURES = Path(__file__).parents[4] / "docs" / "features.md"


def test_the_committed_document_has_the_tables_of_the_code() -> None:
    """After a change that is meant: `python -m runway.jobs.diagnosis.failure_table docs/features.md`"""
    assert FEATURES.read_text(encoding="utf-8") == with_tables(FEATURES.read_text(encoding="utf-8"))


def test_a_document_that_has_fallen_behind_is_made_anew(tmp_path: Path) -> None:
    text = FEATURES.read_text(encoding="utf-8")
    stale = tmp_path / "features.md"
    stale.write_text(
        "\n".join(line for line in text.splitlines() if "`oom_killed`" not in line) + "\n", encoding="utf-8"
    )
    assert "`oom_killed`" not in stale.read_text(encoding="utf-8")
    main(str(stale))
    assert stale.read_text(encoding="utf-8") == text
    assert all(f"| `{code}` |" in text for code in [*FailureCode, *ConditionCode])


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times"):
        with_tables("# Features")
