"""Pages of jobs: bounded steps that fill a page completely."""

from __future__ import annotations

import asyncio

import pytest

from runway.jobs.annotations import LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY
from runway.jobs.models import JobState
from runway.services.list_jobs import JobFilter, full_page
from runway.state.cluster_state import ClusterState
from runway.telemetry import Metrics
from tests.support.builders import NAMESPACE, job, policy


@pytest.fixture
def cluster() -> ClusterState:
    """Return a cluster state with 40 jobs; every tenth has failed, every second is named train."""
    cluster = ClusterState(policy(), Metrics())
    for number in range(40):
        made = job(f"rw-{number}", created=number, outcome="Complete" if number % 10 else "Failed")
        made.metadata.labels.update({LABEL_MANAGED_BY: MANAGED_BY, LABEL_NAME: ("eval", "train")[number % 2]})
        cluster.apply_job(made)
    return cluster


@pytest.mark.parametrize(
    ("states", "most", "found"),
    [
        ((JobState.FAILED,), 9, ["rw-30", "rw-20", "rw-10", "rw-0"]),
        ((JobState.FAILED,), 2, ["rw-30", "rw-20"]),
        ((JobState.CANCELLED,), 2, []),
        ((), 3, ["rw-39", "rw-38", "rw-37"]),
    ],
)
async def test_page_is_filled_over_several_steps(
    cluster: ClusterState, states: tuple[JobState, ...], most: int, found: list[str]
) -> None:
    places = await full_page(cluster, JobFilter(NAMESPACE, states), None, most, max_scanned=4)
    assert [key.name for _, key in places] == found


async def test_scan_without_matches_yields_to_other_tasks(cluster: ClusterState) -> None:
    looking = asyncio.create_task(
        full_page(cluster, JobFilter(NAMESPACE, (JobState.CANCELLED,)), None, 50, max_scanned=4)
    )
    turns = 0
    while not looking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 40 / 4
    assert await looking == []


async def test_created_or_deleted_job_moves_no_other_out_of_the_page(cluster: ClusterState) -> None:
    looking = asyncio.create_task(full_page(cluster, JobFilter(NAMESPACE, (JobState.FAILED,)), None, 9, max_scanned=4))
    await asyncio.sleep(0)
    cluster.apply_job(job("rw-new", version=50, created=100))
    cluster.refresh(cluster.store.delete_job(job("rw-38", version=51, created=38, outcome="Complete")))
    assert [key.name for _, key in await looking] == ["rw-30", "rw-20", "rw-10", "rw-0"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (JobFilter(name="train"), ["rw-39", "rw-37", "rw-35"]),
        (JobFilter(name="eval", states=(JobState.FAILED,)), ["rw-30", "rw-20", "rw-10"]),
        (JobFilter(name="train", states=(JobState.FAILED,)), []),
        (JobFilter(name="trai"), []),
        (JobFilter(search="TRAI"), ["rw-39", "rw-37", "rw-35"]),
        (JobFilter(search="rw-3", name="eval"), ["rw-38", "rw-36", "rw-34"]),
        (JobFilter(search="39"), ["rw-39"]),
        (JobFilter(search="RW-39"), ["rw-39"]),
        (JobFilter(search="9"), ["rw-9"]),
        (JobFilter(id_prefix="rw-2"), ["rw-29", "rw-28", "rw-27"]),
        (JobFilter(id_prefix="rw-2", name="eval"), ["rw-28", "rw-26", "rw-24"]),
        (JobFilter("runway-research", name="train"), []),
    ],
)
async def test_name_is_exact_and_filters_add_up(cluster: ClusterState, wanted: JobFilter, found: list[str]) -> None:
    assert [key.name for _, key in await full_page(cluster, wanted, None, 3, max_scanned=4)] == found
