"""`python -m tests.support.summary REPORT...`: list the slowest tests, and each test that failed.

It reads JUnit XML reports. The time of a test includes setup and teardown, so its first test has the time of a module's
fixture. The failures come last: a log of CI may keep its end only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

SHOWN: Final = 10
"""Slowest tests that are listed, and failed ones."""

MESSAGE_CHARACTERS: Final = 300
"""Of the message of a failed test."""


def cases_of(reports: Iterable[Path]) -> list[ET.Element]:
    """Return all test cases of the reports."""
    return [case for report in reports for case in ET.parse(report).iter("testcase")]  # noqa: S314 (our own)


def slowest(cases: Iterable[ET.Element], number: int = SHOWN) -> list[str]:
    """Return a line for each of the slowest tests, and one with the number of tests and their sum."""
    timed = sorted(((float(case.attrib["time"]), _name(case)) for case in cases), reverse=True)
    total = sum(seconds for seconds, _ in timed)
    return [
        "slowest tests:",
        *(f"{seconds:7.1f} s  {name}" for seconds, name in timed[:number]),
        f"{total:7.1f} s  all {len(timed)} tests, concurrent ones added up",
    ]


def failed(cases: Sequence[ET.Element], number: int = SHOWN) -> list[str]:
    """Return the name of each failed test, where it failed and the beginning of why. Empty if all passed."""
    failures = [(case, failure) for case in cases for kind in ("failure", "error") for failure in case.iterfind(kind)]
    if not failures:
        return []
    lines = [f"failed tests: {len(failures)}"]
    for case, failure in failures[:number]:
        where = (failure.text or "").strip().rpartition("\n")[2]
        lines += [f"  {_name(case)}", f"    {where}", f"    {failure.attrib['message'][:MESSAGE_CHARACTERS]}"]
    return lines


def _name(case: ET.Element) -> str:
    return f"{case.attrib['classname']}::{case.attrib['name']}"


if __name__ == "__main__":
    all_cases = cases_of(Path(name) for name in sys.argv[1:])
    print(*slowest(all_cases), *failed(all_cases), sep="\n")
