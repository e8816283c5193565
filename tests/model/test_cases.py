"""Histories that random ones rarely produce, with the responses of their callers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.model.controllers import Move
from tests.model.faults import Answer, Calls, Fate
from tests.model.invariants import Request
from tests.model.policy import SIZES, document
from tests.model.process import Process, uncharged_usd
from tests.model.world import World

NEVER = Fate(lands=None, answer=Answer.NONE)
"""A create without execution and without a response."""


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
    """Submit a job that uses all GPUs of the tenant."""
    if fate:
        world.api.network.fates[Calls.CREATE].append(fate)
    request = world.submit(process, "red", key, document(SIZES["two gpus"], key))
    world.loop.turns(10)
    return request


def test_ambiguous_create_keeps_reservation_until_it_cannot_succeed(world: World) -> None:
    """Send a second create of a name shortly before the first one is resolved as not created."""
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
def test_pod_of_deleted_ambiguous_job_is_counted_without_watch_event(world: World, key: str | None) -> None:
    process = _start(world, "one")
    for kind in ("jobs", "pods"):
        process.wire.trouble(kind, "mute", 0.0)
    first = _submit(world, process, "a", Fate(lands=3.0, answer=Answer.NONE))
    world.loop.wait(3.1)
    (job,) = world.api.server.objects["jobs"]
    for move in (Move.START, Move.DELETE_JOB):
        world.controllers.make(move, job)
    # Runway resolves the first create in this time, and reopens both stalled watches only after it.
    for _ in range(80):
        assert _submit(world, process, key).outcome == "quota_exceeded"
        world.loop.wait(1.0)
    assert (first.outcome, first.landed) == ("outcome_unknown", True)
    world.end()


def test_leader_frozen_in_create_may_also_report_job_as_created(world: World) -> None:
    """Both responses name the same Job, which does not record its creator."""
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


@pytest.mark.parametrize(
    ("end", "reason"), [(Move.FAIL, "late_end"), (Move.LOSE_NODE, "node_lost")], ids=["late end", "lost node"]
)
def test_cost_beyond_the_ceiling_is_counted_once_and_not_charged(world: World, end: Move, reason: str) -> None:
    """A job with a ceiling of 40 s occupies its node for two minutes."""
    process, before = _start(world, "one"), uncharged_usd()
    world.submit(process, "green", None, document(SIZES["one gpu"], None, timeout=10))
    world.loop.turns(10)
    (job,) = world.api.server.objects["jobs"]
    for move in (Move.START, Move.RUN):
        world.controllers.make(move, world.controllers.moves(move)[0])
    world.loop.wait(120.0)
    for move in (end, Move.DEADLINE, Move.SET_FAILED):
        world.controllers.make(move, world.controllers.moves(move)[0])
    world.loop.wait(3.0)
    price = json.loads(world.api.server.objects["jobs"][job]["metadata"]["annotations"]["runway.internal/cost"])
    beyond = Decimal(price["hourly"]) * 120 / 3600 - Decimal(price["ceiling"])
    counted = {name: usd - before[name] for name, usd in uncharged_usd().items()}
    assert counted == pytest.approx({"late_end": 0, "node_lost": 0} | {reason: float(beyond)}, abs=2e-6)
    budget = process.cluster.ledger.accounts["green"].budget
    assert budget is not None
    assert budget.spent(world.api.now()) == Decimal(price["ceiling"]) * 1_000_000
    world.end()


def test_job_whose_pod_a_list_shows_first_is_ended_after_its_node_recovers(world: World) -> None:
    """The node recovers before the watch reports the pod, so the watch of nodes changes no known job."""
    process = _start(world, "one")
    world.controllers.set_node(ready=False)
    world.submit(process, "red", None, document(SIZES["small"], None))
    world.loop.turns(10)
    process.wire.trouble("pods", "mute", 0)
    for move in (Move.START, Move.NO_IMAGE):
        world.controllers.make(move, world.controllers.moves(move)[0])
    process.spawn(process.sync.ensure_listed_since(process.clock()))
    world.loop.wait(1.0)
    world.controllers.set_node(ready=True)
    world.loop.wait(1.0)
    world.end()


def test_pod_of_create_delayed_past_its_sender_may_exceed_quota(world: World) -> None:
    """A killed leader's create succeeds, and its Job is deleted, while a create of the next leader is in flight."""
    killed = _start(world, "one")
    _submit(world, killed, "a", Fate(lands=0.1))
    world.kill(killed)
    successor = _start(world, "one")
    in_flight = _submit(world, successor, None, Fate(lands=1.0))
    world.loop.wait(0.1)
    (job,) = world.api.server.objects["jobs"]
    for move in (Move.START, Move.DELETE_JOB):
        world.controllers.make(move, job)
    world.loop.wait(1.0)
    assert in_flight.outcome == "created"
    world.end()
