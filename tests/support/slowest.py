"""`python -m tests.support.slowest REPORT...`: list the slowest tests.

It reads JUnit XML reports. The time of a test includes setup and teardown, so its first test has the time of a module's
fixture.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

SHOWN: Final = 10
"""Tests that are listed."""


def slowest(reports: Iterable[Path], number: int = SHOWN) -> list[str]:
    """Return a line for each of the slowest tests, and one with the number of tests and their sum."""
    cases = [case for report in reports for case in ET.parse(report).iter("testcase")]  # noqa: S314 (our own)
    timed = sorted(((float(case.attrib["time"]), _name(case)) for case in cases), reverse=True)
    total = sum(seconds for seconds, _ in timed)
    return [f"{seconds:7.1f} s  {name}" for seconds, name in timed[:number]] + [
        f"{total:7.1f} s  all {len(timed)} tests, concurrent ones added up"
    ]


def _name(case: ET.Element) -> str:
    return f"{case.attrib['classname']}::{case.attrib['name']}"


if __name__ == "__main__":
    print("slowest tests:", *slowest([Path(name) for name in sys.argv[1:]]), sep="\n")
