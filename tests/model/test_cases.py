"""Single histories that random ones seldom meet, each with what its callers are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.controllers import Move
from tests.model.faults import Answer, Calls, Fate
from tests.model.invariants import Request
from tests.model.policy import SIZES, document
from tests.model.process import Process
from tests.model.world import World

NEVER = Fate(lands=None, answer=Answer.NONE)
"""A create that is never carried out, and never answered."""


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def _start(world: World, identity: str) -> Process:
    process = world.start(identity, seed=0)
    world.loop.turns(20)
    return process


def _submit(world: World, process: Process, key: str | None, fate: Fate | None = None) -> Request:
    """A job that takes all of the tenant's GPUs."""
    if fate:
        world.api.network.fates[Calls.CREATE].append(fate)
    request = world.submit(process, "red", key, document(SIZES["two gpus"], key))
    world.loop.turns(10)
    return request


def test_each_create_that_may_land_holds_its_quota_until_it_cannot(world: World) -> None:
    """A second create of a name is sent when the first has almost been denied for long enough."""
    process = _start(world, "one")
    first = _submit(world, process, "a", NEVER)
    world.loop.wait(90.0)
    second = _submit(world, process, "a", Fate(lands=59.0, answer=Answer.NONE))
    for _ in range(58):
        world.loop.wait(1.0)
        assert _submit(world, process, None).outcome == "quota_exceeded"
    world.loop.wait(2.0)
    assert (first.outcome, second.outcome, second.landed) == ("outcome_unknown", "outcome_unknown", True)
    world.end()


@pytest.mark.parametrize("key", ["a", None], ids=["under its key", "under another"])
def test_the_pod_of_an_unknown_create_whose_job_was_deleted_is_counted_though_no_watch_tells(
    world: World, key: str | None
) -> None:
    process = _start(world, "one")
    for kind in ("jobs", "pods"):
        process.wire.trouble(kind, "mute", 0.0)
    first = _submit(world, process, "a", Fate(lands=3.0, answer=Answer.NONE))
    world.loop.wait(3.1)
    (job,) = world.api.server.objects["jobs"]
    for move in (Move.START, Move.DELETE_JOB):
        world.controllers.make(move, job)
    # The first create is settled in here, and both watches are given up for dead only after it.
    for _ in range(80):
        assert _submit(world, process, key).outcome == "quota_exceeded"
        world.loop.wait(1.0)
    assert (first.outcome, first.landed) == ("outcome_unknown", True)
    world.end()


def test_a_writer_that_was_frozen_in_its_create_may_call_a_job_new_after_another_has(world: World) -> None:
    """Both are told of one Job, which is all that matters: nothing on it says whose create has made it."""
    frozen, other = _start(world, "one"), _start(world, "two")
    first = _submit(world, frozen, "a", Fate(lands=40.0))
    frozen.wire.isolate("freeze")
    world.loop.wait(38.5)
    second = _submit(world, other, "a", NEVER)
    world.loop.wait(4.0)
    frozen.wire.isolate("thaw")
    world.loop.wait(1.0)
    assert (first.outcome, second.outcome) == ("created", "created")
    assert len(world.api.server.objects["jobs"]) == 1
    world.end()
