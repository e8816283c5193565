"""Golden files: expected output under `golden/`, so that reviews show changes.

After an intended change, write them again and read the diff: `RUNWAY_WRITE_GOLDEN=1 .venv/bin/pytest tests/unit`
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, rendered: object) -> None:
    """Compare with `golden/<name>.json`, or write it where RUNWAY_WRITE_GOLDEN is set."""
    path = _FOLDER / f"{name}.json"
    text = json.dumps(rendered, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("RUNWAY_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert json.loads(text) == json.loads(path.read_text(encoding="utf-8"))
