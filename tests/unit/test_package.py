"""The files of the package, and the names in it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

from testbed.waiting import GUARD_SECONDS

CHECKOUT = Path(__file__).parents[2]
CONSOLE = CHECKOUT / "src" / "runway" / "console"


def test_wheel_contains_console_templates_and_static_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, timeout=GUARD_SECONDS)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for folder in ("templates", "static") for path in (CONSOLE / folder).iterdir()]
    assert {path.parent.name for path in files} == {"templates", "static"}
    assert "runway/py.typed" in names
    assert {str(path.relative_to(CHECKOUT / "src")) for path in files} <= names


def test_no_two_classes_have_the_same_name() -> None:
    files = (CHECKOUT / "src" / "runway").rglob("*.py")
    names = Counter(
        name for file in files for name in re.findall(r"^class (\w+)", file.read_text("utf-8"), re.MULTILINE)
    )
    assert len(names) > 100
    assert [name for name, count in names.items() if count > 1] == []
