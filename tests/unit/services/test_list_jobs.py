"""A page that is hard to fill holds up nobody, and is as full as one that is filled in one go."""

from __future__ import annotations

import asyncio

import pytest

from runway.controllers.sync import Observer
from runway.jobs.identity import LABEL_MANAGED_BY, MANAGED_BY
from runway.jobs.view import JobState
from runway.kube.client import KubeClient
from runway.services.list_jobs import full_page
from runway.telemetry.metrics import Metrics
from tests.support.builders import NAMESPACE, job, policy
from tests.support.fake_cluster import FakeKubernetes


@pytest.fixture
def observer() -> Observer:
    """It knows 40 jobs, of which every tenth has failed."""
    seen = Observer(KubeClient(FakeKubernetes({NAMESPACE}), 1.0), policy(), Metrics(), resync_seconds=300)
    for number in range(40):
        made = job(f"rw-{number}", created=number, verdict="Complete" if number % 10 else "Failed")
        made.metadata.labels[LABEL_MANAGED_BY] = MANAGED_BY
        seen.store.upsert_job(made)
    return seen


@pytest.mark.parametrize(
    ("states", "most", "found"),
    [
        ((JobState.FAILED,), 9, ["rw-30", "rw-20", "rw-10", "rw-0"]),
        ((JobState.FAILED,), 2, ["rw-30", "rw-20"]),
        ((JobState.CANCELLED,), 2, []),
        ((), 3, ["rw-39", "rw-38", "rw-37"]),
    ],
)
async def test_a_page_is_filled_over_several_turns(
    observer: Observer, states: tuple[JobState, ...], most: int, found: list[str]
) -> None:
    places = await full_page(observer, NAMESPACE, states, None, most, look=4)
    assert [key.name for _, key in places] == found


async def test_others_have_their_turn_while_no_job_matches(observer: Observer) -> None:
    looking = asyncio.create_task(full_page(observer, NAMESPACE, (JobState.CANCELLED,), None, 50, look=4))
    turns = 0
    while not looking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 40 / 4
    assert await looking == []


async def test_a_job_that_is_made_or_deleted_meanwhile_moves_no_other_out_of_the_page(observer: Observer) -> None:
    looking = asyncio.create_task(full_page(observer, NAMESPACE, (JobState.FAILED,), None, 9, look=4))
    await asyncio.sleep(0)
    observer.store.upsert_job(job("rw-new", version=50, created=100))
    observer.store.delete_job(job("rw-38", version=51, created=38, verdict="Complete"))
    assert [key.name for _, key in await looking] == ["rw-30", "rw-20", "rw-10", "rw-0"]
