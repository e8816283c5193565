"""A page of jobs is bounded in bytes and in jobs, and omits no job."""

from __future__ import annotations

from typing import Any

import pytest

from runway.api.jobs import PAGE_BYTES
from tests.api.conftest import Runway

LARGE = 30_000
"""Characters of an argument."""


async def test_page_of_large_specs_ends_early_with_a_cursor(runway: Runway) -> None:
    ids = [(await runway.submit(args=[f"{number:05}" * (LARGE // 5)])).json()["id"] for number in range(60)]
    found: list[str] = []
    sizes: list[int] = []
    cursor: str | None = None
    while True:
        query: dict[str, Any] = {"limit": 500} | ({"cursor": cursor} if cursor else {})
        answer = await runway.client.get("/v1/jobs", params=query)
        assert answer.status_code == 200
        found += [view["id"] for view in answer.json()["jobs"]]
        sizes.append(len(answer.content))
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == sorted(ids)
    assert len(sizes) == 2
    assert all(size > PAGE_BYTES - 2 * LARGE for size in sizes[:-1])
    assert all(size < PAGE_BYTES + 200 for size in sizes)


async def test_page_of_small_jobs_reaches_its_limit(runway: Runway) -> None:
    for _ in range(5):
        await runway.submit()
    answer = (await runway.client.get("/v1/jobs?limit=4")).json()
    assert (len(answer["jobs"]), answer["next_cursor"] is None) == (4, False)
    answer = (await runway.client.get("/v1/jobs?limit=5")).json()
    assert (len(answer["jobs"]), answer["next_cursor"]) == (5, None)


async def test_jobs_are_found_by_name_and_by_id_prefix(runway: Runway) -> None:
    named = [(await runway.submit(name="train")).json()["id"] for _ in range(3)]
    other = (await runway.submit(name="train-2")).json()["id"]

    async def found(query: str) -> list[str]:
        answer = await runway.client.get(f"/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [view["id"] for view in answer.json()["jobs"]]

    assert sorted(await found("name=train")) == sorted(named)
    assert sorted(await found("name=train&state=pending&tenant=vision")) == sorted(named)
    assert await found("name=train&state=succeeded") == []
    assert await found(f"id_prefix={other[:9]}") == [other]
    assert len(await found("id_prefix=rw-")) == 4
    assert await found("name=trai") == []


@pytest.mark.parametrize(
    "query",
    ["name=", "name=a%00b", "name=%1b[2J", "name=" + "a" * 64, "name=..", "id_prefix=", "id_prefix=train",
     "id_prefix=rw-" + "a" * 21, "id_prefix=rw-%0a", "id_prefix=RW-A"],
)  # fmt: skip
async def test_search_that_no_job_can_match_is_refused(runway: Runway, query: str) -> None:
    answer = await runway.client.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["violations"][0]["field"] == query.split("=")[0]
