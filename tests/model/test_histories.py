"""Random histories of a cluster with Runway: limits hold, and no job is lost, ended or charged wrongly.

Runway's real components run in virtual time on an API server in memory. The faults are those of the network, the API
server, Kubernetes and SIGKILL. `invariants.py` has the invariants, `World.end` the checks at the end of a history.

Every run plays different histories. A failure prints its steps, after at most five minutes of shrinking, and two ways
to reproduce it:

- a line `@reproduce_failure(...)` for the class that it names;
- the seed of the run, for `MODEL_SEED=... pytest tests/model` with the same number of histories.

`MODEL_HISTORIES=10000` sets the number of histories of each class.
"""

from __future__ import annotations

import os
import secrets
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from runway.jobs.annotations import LABEL_NAME
from runway.state.job_store import JobKey
from tests.model.controllers import Move
from tests.model.faults import FATES, Calls, Fate
from tests.model.oracle import Json, is_finished
from tests.model.policy import BUDGET_SECONDS, POLICY, SIZES, SKEW, document
from tests.model.process import Process
from tests.model.world import World

HISTORIES: Final = int(os.environ.get("MODEL_HISTORIES", "1000"))
"""Histories of each of the two classes: 2,000 in all, in about two minutes of one core."""

SETTINGS: Final = settings(
    max_examples=HISTORIES,
    database=None,
    stateful_step_count=30,
    deadline=None,
    derandomize=False,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

WHICH: Final = st.integers(0, 5)
"""An index into the available choices, modulo their number."""
TENANT: Final = st.sampled_from(["red", "red", "red", "blue", "green", "green", "slow"])
KEY: Final = st.sampled_from([None, None, "a", "b"])
SIZE: Final = st.sampled_from(sorted(SIZES))
TURNS: Final = st.sampled_from([0, 1, 2, 3, 4, 6, 12])
SECONDS: Final = st.sampled_from([0.1, 1.0, 2.6, 6.0, 11.0, 14.0, 20.0, 45.0, 61.0, 95.0])
SEED: Final = st.integers(0, 7)
MOVES: Final = st.lists(st.sampled_from(Move), min_size=1, max_size=3)
CREATED: Final = st.none() | FATES
"""The fate of the next create; None: no change."""
CONCURRENT_CALLS: Final = st.lists(st.tuples(KEY, CREATED), min_size=2, max_size=4)
"""Keys of concurrent submissions, some of them equal, and the fates of their creates."""
SPENDERS: Final = ["one gpu", "two gpus", "one large gpu"]
SPENT: Final = st.lists(st.sampled_from(SPENDERS), min_size=1, max_size=3)
FINISH_STEPS: Final = st.sampled_from([3, 6, 7])
KIND: Final = st.sampled_from(["jobs", "pods"])


class Histories(RuleBasedStateMachine):
    """One Runway process: submissions, pod lifecycle, kubectl users, API server faults, SIGKILL."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(seed=SEED, page=st.sampled_from([1, 2, 1000]))
    def begin(self, seed: int, page: int) -> None:
        self.world.api.server.page = page
        self.world.start("one", seed)
        self.world.loop.turns(20)

    def teardown(self) -> None:
        try:
            self.world.end()
        finally:
            self.world.close()

    # Callers

    @rule(
        which=WHICH,
        tenant=TENANT,
        key=KEY,
        size=SIZE,
        retries=st.integers(0, 1),
        start=st.sampled_from([None, None, 40]),
        fate=CREATED,
        turns=TURNS,
    )
    def submit(
        self,
        which: int,
        tenant: str,
        key: str | None,
        size: str,
        retries: int,
        start: int | None,
        fate: Fate | None,
        turns: int,
    ) -> None:
        self._submit(which, tenant, key, document(SIZES[size], key, retries, start), fate)
        self._run_turns(turns)

    @rule(which=WHICH, tenant=TENANT, calls=CONCURRENT_CALLS, size=SIZE, turns=TURNS)
    def submit_at_once(
        self, which: int, tenant: str, calls: list[tuple[str | None, Fate | None]], size: str, turns: int
    ) -> None:
        for key, fate in calls:
            self._submit(which, tenant, key, document(SIZES[size], key), fate)
        self._run_turns(turns)

    @precondition(lambda self: any(request.key for request in self.world.requests))
    @rule(back=WHICH, which=WHICH, size=st.none() | SIZE, fate=CREATED, turns=TURNS)
    def submit_again(self, back: int, which: int, size: str | None, fate: Fate | None, turns: int) -> None:
        """Repeat a submission under its key, possibly with another size."""
        keyed = [request for request in reversed(self.world.requests) if request.key]
        first = keyed[back % len(keyed)]
        spec = first.document if size is None else document(SIZES[size], first.key)
        self._submit(which, first.tenant, first.key, spec, fate)
        self._run_turns(turns)

    @precondition(lambda self: self._keyed_jobs())
    @rule(job=WHICH, sizes=st.lists(SIZE, min_size=1, max_size=3), fate=CREATED, moves=MOVES, turns=TURNS)
    def replace(self, job: int, sizes: list[str], fate: Fate | None, moves: list[Move], turns: int) -> None:
        """Delete a job whose pod terminates slowly, submit its key again, and submit other jobs."""
        jobs = self._keyed_jobs()
        place, tenant, key = jobs[-1 - job % len(jobs)]
        self.move_all([Move.START], turns)
        self.world.controllers.make(Move.DELETE_JOB, place)
        self._run_turns(turns)
        self._submit(0, tenant, key, document(SIZES[sizes[0]], key), fate)
        self._run_turns(turns)
        self.move_all(moves, turns)
        for size in sizes[1:]:
            self._submit(0, tenant, None, document(SIZES[size], None), None)
        self._run_turns(turns)

    @rule(which=WHICH, back=WHICH, turns=TURNS)
    def give_up(self, which: int, back: int, turns: int) -> None:
        """Close the connection of a caller, which cancels its request."""
        if process := self._process(which):
            process.give_up(back)
        self._run_turns(turns)

    @rule(which=WHICH, job=WHICH, turns=TURNS)
    def cancel(self, which: int, job: int, turns: int) -> None:
        jobs = list(self.world.api.server.objects["jobs"])
        if jobs and (process := self._process(which)):
            self.world.cancel(process, JobKey(*jobs[-1 - job % len(jobs)]))
        self._run_turns(turns)

    @rule(which=WHICH, tenant=TENANT, size=SIZE, turns=TURNS)
    def dry_run(self, which: int, tenant: str, size: str, turns: int) -> None:
        """Send a dry run."""
        if process := self._process(which):
            self.world.dry_run(process, tenant, document(SIZES[size], None))
        self._run_turns(turns)

    # Time

    @rule(turns=st.integers(1, 12))
    def run_turns(self, turns: int) -> None:
        self._run_turns(turns)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.world.loop.wait(seconds)
        self.world.check()

    @precondition(lambda self: self._has_charges())
    @rule(sixths=st.sampled_from([1, 3, 6]))
    def wait_for_a_budget(self, sixths: int) -> None:
        """Let charges leave the window."""
        for _ in range(sixths):
            self.world.loop.wait(BUDGET_SECONDS / 6)
            self.world.check()

    # Kubernetes and kubectl users

    @rule(move=st.sampled_from(Move), which=WHICH, turns=TURNS)
    def move(self, move: Move, which: int, turns: int) -> None:
        if places := self.world.controllers.moves(move):
            self.world.controllers.make(move, places[-1 - which % len(places)])
        self._run_turns(turns)

    @rule(moves=MOVES, turns=TURNS)
    def move_all(self, moves: list[Move], turns: int) -> None:
        """Apply each move to every object that allows it."""
        for move in moves:
            for place in self.world.controllers.moves(move):
                self.world.controllers.make(move, place)
        self._run_turns(turns)

    @rule(how=st.sampled_from([Move.SUCCEED, Move.FAIL, Move.DEADLINE]), steps=FINISH_STEPS, turns=TURNS)
    def finish_all(self, how: Move, steps: int, turns: int) -> None:
        """Run every job to the end of its pod, of its Job, or to its record."""
        moves = [Move.START, Move.RUN, how, Move.REMOVE_POD, Move.COMPLETE, Move.SET_FAILED, Move.RECORD]
        self.move_all(moves[:steps], turns)

    @rule(spent=SPENT, wanted=CONCURRENT_CALLS, size=st.sampled_from(SPENDERS), steps=FINISH_STEPS, turns=TURNS)
    def spend(
        self, spent: list[str], wanted: list[tuple[str | None, Fate | None]], size: str, steps: int, turns: int
    ) -> None:
        """Finish jobs of the tenant with a budget, and submit others at once."""
        for one in spent:
            self._submit(0, "green", None, document(SIZES[one], None), None)
            self._run_turns(12)
        self.finish_all(Move.SUCCEED, steps, turns)
        self.submit_at_once(0, "green", wanted, size, turns)

    @rule(
        tenant=TENANT,
        cause=st.sampled_from([Move.NO_IMAGE, Move.NO_IMAGE, Move.NO_REGISTRY]),
        start=st.sampled_from([None, None, 9]),
        seconds=st.sampled_from([5.0, 9.0, 9.5, 12.0, 24.5]),
        trouble=st.sampled_from([None, None, "node", "mute", "late", "expire", "break"]),
        moves=st.sampled_from([[], [Move.RUN], [Move.PULL, Move.NO_IMAGE], [Move.EVICT, Move.REMOVE_POD, Move.START]])
        | MOVES,
        rest=st.sampled_from([1.0, 5.0, 12.0]),
    )
    def cannot_start(
        self,
        tenant: str,
        cause: Move,
        start: int | None,
        seconds: float,
        trouble: str | None,
        moves: list[Move],
        rest: float,
    ) -> None:
        """Submit a job that cannot start. Before its start deadline, lose its node or watch, and make moves."""
        self._submit(0, tenant, None, document(SIZES["small"], None, start_timeout=start), None)
        self._run_turns(6)
        self.move_all([Move.START, cause], 2)
        self.wait(seconds)
        if trouble == "node":
            self.world.controllers.set_node(ready=False)
        elif trouble is not None and (process := self._process(0)):
            process.wire.trouble("pods", trouble, 3.0)
        self.move_all(moves, 0)
        self.wait(rest)

    @rule(
        tenant=TENANT,
        size=st.sampled_from(SPENDERS),
        seconds=st.sampled_from([2.0, 45.0]),
        late=st.sampled_from([0.0, 1.0, 20.0, 120.0]),
        how=st.sampled_from([Move.SUCCEED, Move.FAIL, Move.REMOVE_POD, Move.LOSE_NODE]),
        is_ended=st.booleans(),
        rest=st.sampled_from([0.0, 3.0]),
    )
    def end_late(
        self, tenant: str, size: str, seconds: float, late: float, how: Move, is_ended: bool, rest: float
    ) -> None:
        """Submit a job with a ceiling of 40 s. Its pod ends up to minutes later, or is lost with its node."""
        self._submit(0, tenant, None, document(SIZES[size], None, timeout=10), None)
        self._run_turns(6)
        for move in (Move.START, Move.RUN):
            self.move(move, 0, 2)
        self.wait(seconds)
        if is_ended:
            self.move(Move.DEADLINE, 0, 2)
        self.wait(late)
        for move in (how, Move.DEADLINE, Move.COMPLETE, Move.SET_FAILED):
            self.move(move, 0, 2)
        self.wait(rest)

    @rule(ready=st.booleans(), turns=TURNS)
    def node(self, ready: bool, turns: int) -> None:
        """Lose the node, or connect it again."""
        self.world.controllers.set_node(ready=ready)
        self._run_turns(turns)

    @rule(tenant=TENANT, kind=KIND, number=st.integers(1, 2), gpu=st.integers(0, 2), turns=TURNS)
    def create_outside_runway(self, tenant: str, kind: str, number: int, gpu: int, turns: int) -> None:
        key = JobKey(POLICY.tenants[tenant].namespace, f"by-hand-{tenant}-{number}")
        requests = {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "512Mi", "nvidia.com/gpu": str(gpu)}
        if kind == "jobs":
            self.world.controllers.add_job(key, requests, number)
        else:
            self.world.controllers.add_pod(key, requests)
        self._run_turns(turns)

    # Faults

    @rule(calls=st.sampled_from(Calls), fate=FATES, number=st.integers(1, 3))
    def inject_faults(self, calls: Calls, fate: Fate, number: int) -> None:
        """Give the next calls of a kind this fate."""
        self.world.api.network.fates[calls].extend([fate] * number)

    @rule(what=st.sampled_from(["down", "up", "stall", "resume", "compact"]), turns=TURNS)
    def api_server(self, what: str, turns: int) -> None:
        api = self.world.api
        {
            "down": api.go_down,
            "up": api.server.come_back,
            "stall": api.stall,
            "resume": api.resume,
            "compact": api.server.compact,
        }[what]()
        self._run_turns(turns)

    @rule(
        which=WHICH,
        kind=KIND,
        what=st.sampled_from(["late", "mute", "lose", "again", "twice", "break", "close", "expire"]),
        much=st.sampled_from([0.0, 0.5, 3.0, 20.0]),
        turns=TURNS,
    )
    def watch(self, which: int, kind: str, what: str, much: float, turns: int) -> None:
        if process := self._process(which):
            process.wire.trouble(kind, what, much)
        self._run_turns(turns)

    # Processes

    @rule(which=WHICH, how=st.sampled_from(["kill -9", "stop"]), seed=SEED, again=st.booleans(), turns=TURNS)
    def restart(self, which: int, how: str, seed: int, again: bool, turns: int) -> None:
        """Kill or stop a process and start another one, with the same identity if `again`."""
        if process := self._process(which):
            (self.world.kill if how == "kill -9" else self.world.stop)(process)
            self.world.start(process.identity if again else self._fresh_name(), seed)
        self._run_turns(turns)

    def _submit(self, which: int, tenant: str, key: str | None, spec: Json, fate: Fate | None) -> None:
        if fate is not None:
            self.world.api.network.fates[Calls.CREATE].append(fate)
        if process := self._process(which):
            self.world.submit(process, tenant, key, spec)

    def _keyed_jobs(self) -> list[tuple[tuple[str, str], str, str]]:
        """Return namespace and name, tenant, and key of each existing Job with a key."""
        jobs = self.world.api.server.objects["jobs"]
        names = {place: job["metadata"].get("labels", {}).get(LABEL_NAME) for place, job in jobs.items()}
        tenants = {tenant.namespace: name for name, tenant in POLICY.tenants.items()}
        return [(place, tenants[place[0]], name.removeprefix("key-")) for place, name in names.items() if name]

    def _has_charges(self) -> bool:
        jobs = self.world.api.server.objects["jobs"].items()
        return any(is_finished(job) for (space, _), job in jobs if space == POLICY.tenants["green"].namespace)

    def _process(self, which: int) -> Process | None:
        """Return one of the processes, the leader first."""
        processes = sorted(self.world.processes, key=lambda process: not process.is_leader)
        return processes[which % len(processes)] if processes else None

    def _fresh_name(self) -> str:
        self._names = getattr(self, "_names", 0) + 1
        return f"runway-{self._names}"

    def _run_turns(self, turns: int) -> None:
        self.world.loop.turns(turns)
        self.world.check()


class Takeovers(Histories):
    """Two processes: the Lease expires, is released, or becomes unreachable; clocks differ in speed."""

    @initialize(seed=SEED, skew=st.sampled_from([1.0, SKEW, 1 / SKEW]))
    def begin_second(self, seed: int, skew: float) -> None:
        self.world.start("two", seed, skew)
        self.world.loop.turns(20)

    @rule(which=WHICH, what=st.sampled_from(["freeze", "thaw", "cut off", "connect"]), turns=TURNS)
    def trouble(self, which: int, what: str, turns: int) -> None:
        if process := self._process(which):
            process.wire.isolate(what)
        self._run_turns(turns)

    @rule(seconds=st.sampled_from([11.0, 12.4, 14.0, 16.0]), fate=FATES)
    def lose_the_lease(self, seconds: float, fate: Fate) -> None:
        """Make all Lease calls fail for some time, while everything else works."""
        self.world.api.network.fates[Calls.LEASE].extend([fate] * 6)
        self.world.loop.wait(seconds)
        self.world.check()


@pytest.mark.parametrize("machine", [Histories, Takeovers], ids=["one process", "two processes"])
def test_random_history_keeps_invariants(machine: type[Histories]) -> None:
    number = int(os.environ.get("MODEL_SEED") or secrets.randbits(32))
    print(f"MODEL_SEED={number}")
    run_state_machine_as_test(seed(number)(machine), settings=SETTINGS)
