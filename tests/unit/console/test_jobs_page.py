"""The address of the list keeps its filters, and the orders of the list."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.console.jobs_page import SORTS, ListAddress, in_order
from runway.console.templating import sentence, show_cores, show_quantity
from runway.jobs.models import CostView, JobState, JobView, KubernetesRef
from runway.quantity import parse_cpu
from tests.support.builders import JOB, NAMESPACE, moment


def view(name: str | None, state: JobState = JobState.RUNNING, ceiling: str | None = None) -> JobView:
    plain: dict[str, Any] = {
        "id": JOB, "tenant": "vision", "name": name, "state": state, "spec": None, "created_at": moment(0),
        "started_at": None, "finished_at": None, "conditions": [], "attempts": [], "attempts_left_out": 0,
        "disruptions": 0, "failure": None, "kubernetes": KubernetesRef(NAMESPACE, JOB), "excerpt": None, "usage": None,
        "cost": None if ceiling is None else CostView("USD", "cpu", ceiling, ceiling, None, []),
    }  # fmt: skip
    return JobView(**plain)


@given(st.builds(ListAddress, *[st.text(st.characters(exclude_categories=["Cs"]), max_size=63)] * 5))
def test_address_keeps_every_filter_and_stays_on_this_origin(place: ListAddress) -> None:
    for url, path in ((place.url(), "/jobs"), (f"/jobs/{JOB}{place.query()}", f"/jobs/{JOB}")):
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == ("", "", path, "")
        assert ListAddress(**dict(parse_qsl(parts.query, keep_blank_values=True))) == place


def test_another_order_begins_with_the_first_page() -> None:
    place = ListAddress(tenant="vision", q="a b", cursor="x")
    assert place.sorted_by("name") == "/jobs?tenant=vision&q=a+b&sort=name"
    assert place.in_words() == 'vision, "a b"'
    assert ListAddress().url() == "/jobs"


@pytest.mark.parametrize(("sort", "expected"), [("", "cab"), ("name", "abc"), ("state", "bac"), ("cost", "bca")])
def test_jobs_are_sorted_and_equal_ones_stay_newest_first(sort: str, expected: str) -> None:
    views = [view("c", JobState.FAILED, "1"), view("a"), view("b", JobState.PENDING, "2")]
    assert "".join(str(one.name) for one in in_order(views, sort)) == expected


@given(st.permutations(["a", "B", None, "c"]), st.sampled_from(sorted(SORTS)))
def test_every_order_keeps_every_job(names: list[str | None], sort: str) -> None:
    assert sorted(str(one.name) for one in in_order(map(view, names), sort)) == ["B", "None", "a", "c"]


def test_stored_quantity_has_one_form_and_other_text_is_escaped() -> None:
    assert [show_quantity(text, parse_cpu, show_cores) for text in ("100m", "0.1", "2", "two\x1b")] == [
        "0.1", "0.1", "2", "two\\x1b",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), [("no job", "No job."), ("Known?", "Known?"), ("élan.", "Élan.")])
def test_problem_reads_as_a_sentence(text: str, shown: str) -> None:
    assert sentence(text) == shown
