"""The summary at the end of `make test`."""

from __future__ import annotations

from pathlib import Path

from tests.support.summary import cases_of, failed, slowest

REPORT = "<testsuites><testsuite>{}</testsuite></testsuites>"
CASE = '<testcase classname="tests.{}" name="test_it" time="{}"/>'
FAILED = (
    '<testcase classname="tests.{}" name="test_it" time="1.0">'
    '<{kind} message="AssertionError: 1 is not 2">def test_it():\n\ntests/{}.py:7: AssertionError</{kind}></testcase>'
)


def test_slowest_tests_come_first_and_total_last(tmp_path: Path) -> None:
    first, second = tmp_path / "first.xml", tmp_path / "second.xml"
    first.write_text(REPORT.format(CASE.format("a", "1.5") + CASE.format("b", "0.5")))
    second.write_text(REPORT.format(CASE.format("c", "12.0")))

    assert slowest(cases_of([first, second]), 2) == [
        "slowest tests:",
        "   12.0 s  tests.c::test_it",
        "    1.5 s  tests.a::test_it",
        "   14.0 s  all 3 tests, concurrent ones added up",
    ]


def test_failed_tests_are_listed_with_place_and_reason(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    test, fixture = FAILED.format("a", "a", kind="failure"), FAILED.format("b", "b", kind="error")
    report.write_text(REPORT.format(test + CASE.format("c", "1.0") + fixture))

    assert failed(cases_of([report])) == [
        "failed tests: 2",
        "  tests.a::test_it",
        "    tests/a.py:7: AssertionError",
        "    AssertionError: 1 is not 2",
        "  tests.b::test_it",
        "    tests/b.py:7: AssertionError",
        "    AssertionError: 1 is not 2",
    ]


def test_list_of_failed_tests_is_bounded(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(FAILED.format("a", "a", kind="failure").replace("1 is", "1" * 1000) * 3))

    header, *shown = failed(cases_of([report]), number=2)

    assert header == "failed tests: 3"
    assert len(shown) == 6
    assert max(map(len, shown)) < 320


def test_nothing_is_listed_when_all_passed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(CASE.format("a", "1.5")))

    assert failed(cases_of([report])) == []
