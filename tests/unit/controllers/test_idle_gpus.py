"""Idle GPUs: measured, shown, and ended only when they are known to be idle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from runway.backoff import Timing
from runway.controllers.idle_gpus import MAX_ENDS_PER_CHECK, PODS_PER_QUERY, IdleGpuController, figures_by_pod
from runway.controllers.job_ender import MAX_ENDS_PER_SWEEP, MAX_SPOT_DISRUPTIONS, JobEnder
from runway.controllers.leadership import ANNOTATION_SUBMISSIONS_STOPPED, Leadership
from runway.controllers.sync import ClusterSync, DiagnosticsSync
from runway.errors import PrometheusUnavailable
from runway.fair_share import Owner
from runway.jobs.annotations import ANNOTATION_ENDED, ANNOTATION_SPEC, LABEL_MANAGED_BY, MANAGED_BY
from runway.jobs.gpu_idle import GpuFigure
from runway.jobs.manifest import Placement, job_manifest
from runway.jobs.models import JobView
from runway.kube.client import KubeClient
from runway.kube.leader_election import LeaderElector, LeaseLock
from runway.kube.transport import Response
from runway.policy import Policy
from runway.prometheus import SeriesValue
from runway.state.capacity_samples import capacity_samples
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics
from tests.support.builders import COST, START, Json, policy, spec
from tests.support.fake_cluster import FakeKubernetes, copy_of
from tests.support.virtual_time import VirtualLoop

NAMESPACE = "runway-vision"
IDLE = {"peak": 0.0, "slots": 60.0, "early_peak": 0.0, "early_slots": 15.0, "age": 10.0}


def limits(action: str) -> Policy:
    return policy(
        (
            "retries: {max: 3}",
            f"retries: {{max: 3}}\n  idle_gpu: {{below_percent: 5, for_seconds: 3600, action: {action}}}",
        ),
        ("gpu_type: a10g}", "gpu_type: a10g, spot: true}"),
    )


class World:
    """A cluster, a Prometheus of figures by pod and GPU, and a Runway that leads."""

    def __init__(self, action: str) -> None:
        self.loop, self.policy, self.metrics = VirtualLoop(), limits(action), Metrics()
        self.server = FakeKubernetes({NAMESPACE})
        self.server.now = lambda: (START + timedelta(seconds=self.loop.time())).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.figures: dict[tuple[str, str], dict[str, float]] = {}
        self.queries: list[str] = []
        self.problem: str | None = None
        self.busy: set[Owner] = set()
        """Those whose share of the queries is used up."""
        kubernetes = KubeClient(self.server, 2.5)
        self.cluster = ClusterState(self.policy, self.metrics, clock=self.loop.time)
        now = lambda: START + timedelta(seconds=self.loop.time())  # noqa: E731
        timing = Timing(self.loop.time, now, asyncio.sleep, lambda: 0.5)
        sync = ClusterSync(kubernetes, self.cluster, self.metrics, timing, resync_seconds=300)
        diagnostics = DiagnosticsSync(kubernetes, self.cluster, self.metrics, timing)
        election = LeaderElector(kubernetes, LeaseLock("default", "runway-writer", "one"), timing)
        leadership = Leadership(election, self.cluster, sync, 2.5, timing)
        ender = JobEnder(kubernetes, self.cluster, leadership, self.metrics, self.policy, timing)
        assert self.policy.limits.idle_gpu is not None
        controller = IdleGpuController(self.cluster, self.query, ender, self.policy.limits.idle_gpu, timing)
        runs = (sync.run, diagnostics.run, election.run, leadership.run, ender.run, controller.run)
        self._tasks = [self.loop.create_task(run()) for run in runs]
        self.wait(2)

    async def query(self, promql: str, owner: Owner = None) -> Sequence[SeriesValue]:
        self.queries.append(promql)
        if owner in self.busy:
            raise PrometheusUnavailable("32 queries to Prometheus are pending, the share of one tenant")
        if self.problem is not None:
            raise PrometheusUnavailable(self.problem)
        return [
            SeriesValue({"pod": pod, "UUID": gpu, "figure": figure}, value)
            for (pod, gpu), figures in self.figures.items()
            for figure, value in figures.items()
        ]

    def run_job(self, name: str = "rw-1", gpu: int = 1, tenant: str = "vision") -> str:
        """Create a job with a running pod, and return the pod's name."""
        made = spec(gpu=gpu, gpu_type="a10g" if gpu else None)
        placement = Placement(name, tenant, f"runway-{tenant}", "0" * 64, self.policy.pools["a10g"], COST)
        manifest: Json = dict(job_manifest(made, placement, self.policy.limits))
        manifest["metadata"]["labels"][LABEL_MANAGED_BY] = MANAGED_BY
        self.server.add("jobs", {**manifest, "status": {}})
        return self.server.start_pod(name)

    def wait(self, seconds: float) -> None:
        while seconds > 0:
            self.loop.wait(min(seconds, 600))
            seconds -= 600

    def view(self, name: str = "rw-1") -> JobView:
        found = self.cluster.view(JobKey(NAMESPACE, name))
        assert found is not None
        return found

    def conditions(self, name: str = "rw-1") -> dict[str, str]:
        return {found.code: found.message for found in self.view(name).conditions}

    def ended(self, name: str = "rw-1") -> Json | None:
        """Return the annotation of an ended job."""
        job = self.server.job(name)
        text = job["metadata"]["annotations"].get(ANNOTATION_ENDED)
        assert (text is None) == (job["spec"]["activeDeadlineSeconds"] != 0)
        return None if text is None else dict(json.loads(text))

    def gauges(self) -> dict[str, float]:
        samples = capacity_samples(self.policy, self.cluster)
        return {sample.metric: sample.value for sample in samples if "idle" in sample.metric}

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self.loop.close()


@pytest.fixture
def reporting() -> Iterator[World]:
    world = World("report")
    yield world
    world.close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World("cancel")
    yield world
    world.close()


def test_idle_job_is_reported_and_runs_on(reporting: World) -> None:
    pod = reporting.run_job(gpu=2)
    reporting.figures = {(pod, "GPU-a"): IDLE, (pod, "GPU-b"): IDLE | {"peak": 90.0, "early_peak": 90.0}}
    reporting.wait(3700)
    assert reporting.conditions() == {
        "gpu_idle": "1 of 2 GPUs of the job had a utilisation of at most 0 % for 1h (the limit is 5 %)"
    }
    assert reporting.gauges() == {"runway_idle_gpus": 1.0, "runway_idle_gpu_hourly_usd": float(COST.hourly) / 2}
    assert reporting.ended() is None
    reporting.figures[pod, "GPU-a"] = IDLE | {"peak": 50.0, "early_peak": 50.0}
    reporting.wait(61)
    assert reporting.conditions() == {}
    assert reporting.gauges() == {}


def test_idle_job_is_warned_then_ended_with_its_figures(world: World) -> None:
    pod = world.run_job(gpu=2)
    world.figures = {(pod, gpu): IDLE | {"slots": 15.0} for gpu in ("GPU-a", "GPU-b")}
    world.wait(1000)
    assert "Runway ends the job after 1h" in world.conditions()["gpu_idle"]
    assert world.ended() is None
    world.figures = {(pod, gpu): IDLE for gpu in ("GPU-a", "GPU-b")}
    world.wait(61)
    ended = world.ended()
    assert ended is not None
    assert (ended["code"], ended["evidence"]["for_seconds"], ended["evidence"]["gpus"]) == ("gpu_idle", "3600", "2")
    world.server.terminate_pod(pod)
    world.server.remove_pod(pod)
    world.server.fail("rw-1", "DeadlineExceeded")
    world.wait(1)
    failure, (attempt,) = world.view().failure, world.view().attempts
    assert failure is not None
    assert (failure.code, failure.category, failure.evidence["peak_percent"]) == ("gpu_idle", "user", "0")
    assert failure.message.startswith("Runway ended the job: all 2 GPUs of the job had a utilisation of at most 0 %")
    assert attempt.cause == "gpu_idle"
    assert world.metrics.registry.get_sample_value("runway_jobs_ended_total", {"code": "gpu_idle"}) == 1


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"GPU-a": IDLE},  # The second GPU has no series.
        {"GPU-a": IDLE, "GPU-b": IDLE, "GPU-c": IDLE},
        {"GPU-a": IDLE, "GPU-b": IDLE | {"slots": 50.0, "early_slots": 10.0}},
        {"GPU-a": IDLE, "GPU-b": IDLE | {"age": 400.0}},
        {"GPU-a": IDLE, "GPU-b": IDLE | {"peak": -7.0, "early_peak": 1e9}},
        {"GPU-a": IDLE, "GPU-b": IDLE | {"peak": 5.0, "early_peak": 5.0}},
    ],
)
def test_job_with_an_unknown_or_busy_gpu_is_never_ended(world: World, figures: dict[str, dict[str, float]]) -> None:
    pod = world.run_job(gpu=2)
    world.figures = {(pod, gpu): values for gpu, values in figures.items()}
    world.wait(3700)
    assert world.ended() is None


def test_unavailable_prometheus_ends_nothing_and_clears_conditions(world: World) -> None:
    pod = world.run_job()
    world.figures = {(pod, "GPU-a"): IDLE | {"slots": 20.0}}
    world.wait(1000)
    assert "gpu_idle" in world.conditions()
    world.problem = "no answer"
    world.figures = {(pod, "GPU-a"): IDLE}
    world.wait(4000)
    assert world.conditions() == {}
    assert world.ended() is None


def test_emergency_stop_and_standby_end_nothing(world: World) -> None:
    pod = world.run_job()
    world.wait(3500)
    stop = copy_of(world.server.lease)
    stop["metadata"]["annotations"] = {ANNOTATION_SUBMISSIONS_STOPPED: "drivers"}
    world.server.lease = stop
    world.figures = {(pod, "GPU-a"): IDLE}
    world.wait(300)
    assert "gpu_idle" in world.conditions()
    assert world.ended() is None


def test_only_running_gpu_jobs_of_that_age_are_measured(world: World) -> None:
    world.run_job("rw-cpu", gpu=0)
    done = world.run_job("rw-done")
    world.server.end_pod(done)
    for number in range(PODS_PER_QUERY + 1):
        world.run_job(f"rw-{number}")
    world.wait(650)
    assert world.queries == []
    world.wait(120)
    measured = world.queries[-2:]
    assert sum(query.count("max_over_time") for query in measured) == 8
    assert all("rw-cpu" not in query and done not in query for query in measured)


def test_figures_of_unknown_series_are_ignored() -> None:
    good = {"pod": "a", "UUID": "GPU-a", "figure": "peak"}
    samples = [good, {**good, "figure": "evil"}, {**good, "pod": ""}, {"figure": "peak", "pod": "a"}, {}]
    found = figures_by_pod([SeriesValue(labels, 1.0) for labels in samples])
    assert found == {"a": {("GPU-a", "", ""): {GpuFigure.PEAK: 1.0}}}


def disrupt(world: World, pod: str, phase: str = "Failed") -> None:
    """Evict a pod through the API."""
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    status: dict[str, Any] = copy_of(world.server.pod(pod))["status"]
    status |= {"phase": phase, "conditions": [target]}
    world.server.set_status(pod, status)


def test_job_in_a_spot_pool_ends_after_too_many_disruptions(world: World) -> None:
    pod = world.run_job()
    for _ in range(MAX_SPOT_DISRUPTIONS):
        disrupt(world, pod)
        pod = world.server.start_pod("rw-1")
        world.wait(10)
    assert world.ended() is None
    disrupt(world, pod)
    world.wait(10)
    ended = world.ended()
    assert ended is not None
    assert (ended["code"], ended["evidence"]) == ("disrupted_too_often", {"disruptions": "11", "limit": "10"})
    world.server.fail("rw-1", "DeadlineExceeded")
    world.wait(1)
    failure = world.view().failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("disrupted_too_often", True)
    assert {attempt.cause for attempt in world.view().attempts} == {"drained"}


def test_idle_job_without_a_readable_specification_is_ended(world: World) -> None:
    pod = world.run_job()
    job = copy_of(world.server.job("rw-1"))
    del job["metadata"]["annotations"][ANNOTATION_SPEC]
    world.server.put("jobs", job, "MODIFIED")
    world.figures = {(pod, "GPU-a"): IDLE}
    world.wait(3700)
    assert world.ended() is not None


def test_attempt_that_exited_with_0_on_a_disruption_protects_no_later_one(world: World) -> None:
    """Kubernetes may count such a pod as failed, and start another."""
    disrupt(world, world.run_job(), phase="Succeeded")
    pod = world.server.start_pod("rw-1")
    world.figures = {(pod, "GPU-a"): IDLE}
    world.wait(3700)
    assert world.ended() is not None


def test_defect_while_a_disrupted_job_is_ended_stops_no_later_attempt(world: World) -> None:
    def defect() -> None:
        raise RuntimeError("a defect")

    pod = world.run_job()
    world.server.before_patch.append(defect)
    for _ in range(MAX_SPOT_DISRUPTIONS + 1):
        disrupt(world, pod)
        pod = world.server.start_pod("rw-1")
        world.wait(1)
    world.wait(20)
    assert world.ended() is not None


def test_disrupted_job_that_finishes_while_others_are_ended_stops_no_later_attempt(world: World) -> None:
    names = [f"rw-{number}" for number in range(7)]
    pods = {name: world.run_job(name) for name in names}
    world.server.before_patch.append(lambda: world.server.fail("rw-5"))
    for number in range(MAX_SPOT_DISRUPTIONS + 1):
        for name in names[: 7 if number < MAX_SPOT_DISRUPTIONS else 6]:
            disrupt(world, pods[name])
            pods[name] = world.server.start_pod(name)
        world.wait(1)
    world.wait(10)
    disrupt(world, pods["rw-6"])
    world.server.start_pod("rw-6")
    world.wait(10)
    assert [name for name in names if world.ended(name) is None] == ["rw-5"]


def refuse_patches(world: World, allowed: str) -> None:
    """Refuse to patch every job but one, as in namespaces without Runway's Role."""
    denied = Response(403, b'{"kind": "Status", "reason": "Forbidden", "message": "no Role", "code": 403}')

    def answer() -> Response | None:
        return None if world.server.calls[-1][1].endswith(f"/{allowed}") else denied

    world.server.before_patch += [answer] * 1000


def test_idle_jobs_that_cannot_be_ended_hold_up_no_other(world: World) -> None:
    pods = {name: world.run_job(name) for name in (f"rw-{number:02}" for number in range(MAX_ENDS_PER_CHECK + 1))}
    world.figures = {(pod, "GPU-a"): IDLE for pod in pods.values()}
    refuse_patches(world, max(pods))
    world.wait(3700)
    assert world.ended(max(pods)) is not None


def test_tenant_cannot_hide_its_idle_gpus_by_reads_of_usage(world: World) -> None:
    pod = world.run_job()
    world.figures = {(pod, "GPU-a"): IDLE}
    world.busy = {NAMESPACE}
    world.wait(3600)
    assert world.ended() is not None


def test_idle_jobs_of_one_tenant_hold_up_no_job_of_another(world: World) -> None:
    names = [f"rw-{number:03}" for number in range(5 * MAX_ENDS_PER_CHECK)]
    pods = [world.run_job(name, tenant="speech") for name in names] + [world.run_job("rw-other")]
    world.figures = {(pod, "GPU-a"): IDLE for pod in pods}
    for _ in range(60):
        world.wait(60)
        if any(world.ended(name) for name in names):
            break
    assert world.ended("rw-other") is not None, "it is ended in the first check of all"
    assert world.ended(names[-1]) is None


def test_disrupted_jobs_that_cannot_be_ended_hold_up_no_other(world: World) -> None:
    names = [f"rw-{number}" for number in range(MAX_ENDS_PER_SWEEP + 1)]
    pods = {name: world.run_job(name) for name in names}
    refuse_patches(world, names[-1])
    for _ in range(MAX_SPOT_DISRUPTIONS + 1):
        for name in names:
            disrupt(world, pods[name])
            pods[name] = world.server.start_pod(name)
        world.wait(10)
    world.wait(10)
    assert world.ended(names[-1]) is not None
