"""The version of the API server, read from any response."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runway.kube.server_version import MAX_NAME_CHARACTERS, read_version
from runway.kube.transport import Response
from tests.unit.strategies import JSON


@pytest.mark.parametrize(
    ("document", "number", "is_too_old"),
    [
        ({"major": "1", "minor": "35", "gitVersion": "v1.35.4"}, (1, 35), False),
        ({"major": "1", "minor": "30+", "gitVersion": "v1.30.14-eks-1"}, (1, 30), False),
        ({"major": "1", "minor": "29", "gitVersion": "v1.29.15+k3s1"}, (1, 29), True),
        ({"major": "2", "minor": "0"}, (2, 0), False),
        ({"major": 1, "minor": 9}, (1, 9), True),
        ({"major": "", "minor": "", "gitVersion": "v1.20.0"}, None, False),
    ],
)
def test_numbers_decide(document: dict[str, object], number: tuple[int, int] | None, *, is_too_old: bool) -> None:
    found = read_version(Response(200, json.dumps(document).encode(), date="Sun, 29 Nov 2026 08:00:00 GMT"))
    assert (found.number, found.is_too_old) == (number, is_too_old)
    assert found.date == datetime(2026, 11, 29, 8, tzinfo=UTC)


PARTS = st.fixed_dictionaries({}, optional=dict.fromkeys(("major", "minor", "gitVersion"), JSON))

DATES = st.lists(
    st.sampled_from(("Sun,", "29", "Nov", "2026", "08:00:00", "GMT", "+")) | st.integers().map(str), max_size=7
)


@pytest.mark.parametrize("year", [10_000, 1 << 31, 1 << 63])
def test_date_beyond_the_calendar_is_none(year: int) -> None:
    assert read_version(Response(200, b"{}", date=f"Sun, 29 Nov {year} 08:00:00 GMT")).date is None


@example(b'{"major": "\xff"}', None)
@given(
    st.binary() | (PARTS | JSON).map(lambda value: json.dumps(value).encode()),
    st.text() | DATES.map(" ".join) | st.none(),
)
def test_any_response_is_read(body: bytes, date: str | None) -> None:
    found = read_version(Response(200, body, date=date))
    assert len(found.name) <= MAX_NAME_CHARACTERS
    assert found.name.isprintable()
