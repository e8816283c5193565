"""Tables and lines that fit the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from runway.cli.output import wrapped
from runway.cli.views.job_views import rows_of, short_ids
from runway.cli.views.tables import Column, columns, lay_out, show_quantity
from runway.jobs.models import JobView
from tests.support.cli import NOW, failure, job

HEADS = [
    Column(title="ID"),
    Column(title="NAME", shrink=True),
    Column(title="AGE", drop_priority=1, right=True),
    Column(title="GPU", drop_priority=2, right=True),
]
ROW = ("rw-4f2a", "a-name-of-twenty-two-x", "10m", 1)


def shown(width: int | None) -> list[str]:
    return [line.plain for line in lay_out(HEADS, [ROW], width=width)]


@given(st.lists(st.from_regex(r"rw-[ab]{20}", fullmatch=True), unique=True, max_size=20))
def test_short_ids_name_the_same_jobs(ids: list[str]) -> None:
    short = short_ids(ids)
    assert len(set(short)) == len(ids)
    assert all(job_id.startswith(start) and len(start) >= 9 for job_id, start in zip(ids, short, strict=True))


def test_list_fits_80_columns_with_gpus_and_cost() -> None:
    own = {"id": "rw-agkyxsiunucc5lqpeogd", "name": "train-large-batch-2", "failure": failure("command_not_found")}
    views = [job("failed", **own), job("cancelling", id="rw-bgkyxsiunucc5lqpeogd")]
    views_of = TypeAdapter(list[JobView]).validate_python
    heads, rows = rows_of(views_of(views), NOW, width=80, wide=False, tenants=False)
    head, line, _ = (text.plain for text in lay_out(heads, rows, width=80))
    assert head.split() == ["ID", "NAME", "STATE", "WHY", "AGE", "GPU", "COST", "USD"]
    assert line.startswith("rw-agkyxs  train-large-batc…  failed      command_not_found  ")
    assert len(line) <= 80


def test_wide_terminal_shows_everything() -> None:
    whole = ["ID       NAME                    AGE  GPU", "rw-4f2a  a-name-of-twenty-two-x  10m    1"]
    assert shown(None) == shown(41) == whole


def test_narrow_terminal_cuts_cells_and_drops_columns() -> None:
    assert shown(36)[1] == "rw-4f2a  a-name-of-twenty…  10m    1"
    assert shown(32)[0].split() == ["ID", "NAME", "AGE"]
    assert shown(25)[0].split() == ["ID", "NAME"]
    assert shown(18) == ["ID       NAME", "rw-4f2a  a-name-o…"]
    assert shown(5) == ["ID       NAME", "rw-4f2a  a-name-…"]


@given(st.integers(17, 200))
def test_no_line_exceeds_the_width(width: int) -> None:
    assert all(len(line) <= width for line in shown(width))


def test_table_that_may_not_lose_a_cell_becomes_a_block_for_each_row() -> None:
    heads, row = columns("POOL", "INSTANCE", "GPU TYPE", "SPOT"), ("cpu", "m6i.large", None, "no")
    assert [line.plain for line in lay_out(heads, [row], width=38, indent=2)] == [
        "  POOL  INSTANCE   GPU TYPE  SPOT",
        "  cpu   m6i.large            no",
    ]
    assert [line.plain for line in lay_out(heads, [row], width=30, indent=2)] == [
        "  cpu",
        "    INSTANCE  m6i.large",
        "    SPOT      no",
    ]


def test_wide_characters_count_as_two_cells() -> None:
    lines = lay_out(columns("NAME", "STATE"), [("日本", "ok"), ("x", None)], width=None)
    assert [line.plain for line in lines] == ["NAME  STATE", "日本  ok", "x"]


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=30), st.integers(30, 80))
def test_long_line_wraps_between_words(words: list[str], width: int) -> None:
    lines = wrapped(Console(), Text("  " + " ".join(words)), 6, width)
    assert " ".join(line.plain for line in lines).split() == words
    assert all(line.cell_len <= width for line in lines)
    assert all(line.plain.startswith(" " * 6) for line in lines[1:])


def test_very_narrow_text_is_not_wrapped() -> None:
    assert len(wrapped(Console(), Text("word " * 20), 6, 25)) == 1


@pytest.mark.parametrize(
    ("resource", "quantity", "text"),
    [
        ("cpu", "8100m", "8.1"),
        ("cpu", "32", "32"),
        ("memory", "32832Mi", "32Gi"),
        ("disk", "1536Mi", "1.5Gi"),
        ("jobs", 1_000_000, "1000000"),
        ("gpu", 0, "0"),
        ("gpu_types", {"a10g": 2, "l4": 1}, "2 a10g, 1 l4"),
        ("usd_per_hour", "12.345678", "12.35"),
        ("memory", "much", "much"),
        ("disk", None, ""),
    ],
)
def test_quota_has_one_unit_per_resource(resource: str, quantity: object, text: str) -> None:
    assert show_quantity(resource, quantity) == text
