"""The list of slowest tests at the end of `make test`."""

from __future__ import annotations

from pathlib import Path

from tests.support.slowest import slowest

REPORT = "<testsuites><testsuite>{}</testsuite></testsuites>"
CASE = '<testcase classname="tests.{}" name="test_it" time="{}"/>'


def test_slowest_tests_come_first_and_total_last(tmp_path: Path) -> None:
    first, second = tmp_path / "first.xml", tmp_path / "second.xml"
    first.write_text(REPORT.format(CASE.format("a", "1.5") + CASE.format("b", "0.5")))
    second.write_text(REPORT.format(CASE.format("c", "12.0")))

    assert slowest([first, second], 2) == [
        "   12.0 s  tests.c::test_it",
        "    1.5 s  tests.a::test_it",
        "   14.0 s  all 3 tests, concurrent ones added up",
    ]
