"""The tables of failures and conditions in docs/features.md are current."""

from __future__ import annotations

from pathlib import Path

import pytest

from runway.jobs.diagnosis.codes import ConditionCode, FailureCode
from scripts.generate_failure_tables import main, with_tables

FEATURES = Path(__file__).parents[3] / "docs" / "features.md"


def test_features_document_has_the_current_tables() -> None:
    """After an intended change: `python scripts/generate_failure_tables.py docs/features.md`"""
    assert FEATURES.read_text(encoding="utf-8") == with_tables(FEATURES.read_text(encoding="utf-8"))


def test_generator_restores_a_missing_row(tmp_path: Path) -> None:
    text = FEATURES.read_text(encoding="utf-8")
    stale = tmp_path / "features.md"
    stale.write_text(
        "\n".join(line for line in text.splitlines() if "`oom_killed`" not in line) + "\n", encoding="utf-8"
    )
    assert "`oom_killed`" not in stale.read_text(encoding="utf-8")
    main(str(stale))
    assert stale.read_text(encoding="utf-8") == text
    assert all(f"| `{code}` |" in text for code in [*FailureCode, *ConditionCode])


def test_generator_rejects_a_document_without_marks() -> None:
    with pytest.raises(ValueError, match="0 tables of failures"):
        with_tables("# Features")
