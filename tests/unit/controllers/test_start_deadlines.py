"""When a job that cannot start is ended, and when not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from runway.backoff import Timing
from runway.controllers.leadership import Leadership
from runway.controllers.start_deadlines import MAX_ENDS_PER_TICK, StartDeadlines
from runway.controllers.sync import ClusterSync, DiagnosticsSync
from runway.errors import AmbiguousOutcome, NotExecuted
from runway.jobs.annotations import ANNOTATION_SPEC, ANNOTATION_START_TIMEOUT, LABEL_MANAGED_BY, MANAGED_BY
from runway.jobs.diagnosis.start_timeout import StartLimit
from runway.jobs.manifest import Placement, job_manifest
from runway.kube.client import KubeClient
from runway.kube.leader_election import DURATION_SECONDS, LeaderElector, LeaseLock
from runway.kube.transport import Response
from runway.state.cluster_state import ClusterState
from runway.telemetry import Metrics
from tests.support.builders import COST, START, Json, policy, spec
from tests.support.fake_cluster import FakeKubernetes, copy_of
from tests.support.virtual_time import VirtualLoop

NAMESPACE = "runway-vision"
LIMITS = ("retries: {max: 3}", "retries: {max: 3}\n  start_timeout_seconds: {image: 300, registry: 700, config: 600}")
NOT_FOUND = ("ErrImagePull", "failed to resolve reference: x: not found")
BACK_OFF = ("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {NOT_FOUND[1]}')
UNAVAILABLE = ("ErrImagePull", "dial tcp: i/o timeout")
NO_CONFIG = ("CreateContainerConfigError", 'configmap "x" not found')
RESYNC_SECONDS = 300
SLACK = 3.0
"""Seconds for the watch, the tick and the calls."""


class Process:
    """One Runway process. `jump` is added to its wall clock."""

    def __init__(self, world: World, identity: str) -> None:
        self.loop, self.jump, self.metrics = world.loop, timedelta(), Metrics()
        kubernetes = KubeClient(world.server, 2.5)
        cluster = ClusterState(world.policy, self.metrics, clock=self.loop.time)
        timing = Timing(self.loop.time, lambda: world.now() + self.jump, asyncio.sleep, lambda: 0.5)
        sync = ClusterSync(kubernetes, cluster, self.metrics, timing, resync_seconds=RESYNC_SECONDS)
        diagnostics = DiagnosticsSync(kubernetes, cluster, self.metrics, timing)
        election = LeaderElector(kubernetes, LeaseLock("default", "runway-writer", identity), timing)
        leadership = Leadership(election, cluster, sync, 2.5, timing)
        limits = world.policy.limits.start_timeout_seconds
        self.starts = StartDeadlines(kubernetes, cluster, leadership, self.metrics, limits, timing)
        runs = (sync.run, diagnostics.run, election.run, leadership.run, self.starts.run)
        self._tasks = [self.loop.create_task(run()) for run in runs]
        self.loop.wait(1)

    def kill(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def ended(self) -> float:
        """The number of jobs that this process has counted as ended."""
        return sum(self.value("runway_start_timeouts_total", cause=limit) for limit in StartLimit)


class World:
    """A cluster with a ready node, one Runway process, and a pod that cannot start."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.policy = policy(LIMITS)
        self.server = FakeKubernetes({NAMESPACE})
        self.server.now = lambda: self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self.node("True")
        self.process = Process(self, "one")

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    def node(self, ready: str) -> None:
        """Set the status of the node's condition Ready."""
        status = {"conditions": [{"type": "Ready", "status": ready}]}
        known = ("", "node-1") in self.server.objects["nodes"]
        self.server.put("nodes", {"metadata": {"name": "node-1"}, "status": status}, "MODIFIED" if known else "ADDED")

    def create(self, name: str = "rw-1", tenant: str = "vision", **fields: Any) -> str:
        """Create a Job as a submission does."""
        placement = Placement(name, tenant, f"runway-{tenant}", "0" * 64, self.policy.pools["cpu"], COST)
        manifest: Json = dict(job_manifest(spec(**fields), placement, self.policy.limits))
        manifest["metadata"]["labels"][LABEL_MANAGED_BY] = MANAGED_BY
        self.server.add("jobs", {**manifest, "status": {}})
        return name

    def start_pod(self, job: str = "rw-1", node: str | None = "node-1") -> str:
        return self.server.start_pod(job, running=False, node=node)

    def waits(self, pod: str, reason: str, message: str) -> None:
        """Set the pod's container to waiting, as the kubelet does."""
        waiting = {"reason": reason, "message": message}
        self.server.set_status(
            pod, {"phase": "Pending", "containerStatuses": [{"name": "job", "state": {"waiting": waiting}}]}
        )

    def runs(self, pod: str) -> None:
        running = {"startedAt": self.server.now()}
        status = {"phase": "Running", "containerStatuses": [{"name": "job", "state": {"running": running}}]}
        self.server.set_status(pod, status)

    def stuck(self, job: str = "rw-1", why: tuple[str, str] = NOT_FOUND, **fields: Any) -> str:
        """Create a job whose pod waits for this reason."""
        pod = self.start_pod(self.create(job, **fields))
        self.waits(pod, *why)
        return pod

    def unmute(self) -> None:
        """Let the watches report what they have held back."""
        self.server.mute = False
        self.node("True")

    def wait(self, seconds: float) -> None:
        while seconds > 0:
            self.loop.wait(min(seconds, 600))
            seconds -= 600

    def timeout(self, job: str = "rw-1") -> Json | None:
        """Return the annotation of an ended job; None for one that still waits."""
        found = self.server.job(job)
        text = found["metadata"]["annotations"].get(ANNOTATION_START_TIMEOUT)
        assert (text is None) == (found["spec"]["activeDeadlineSeconds"] != 0)
        return None if text is None else dict(json.loads(text))


@pytest.fixture
def world() -> Iterator[World]:
    loop = VirtualLoop()
    world = World(loop)
    yield world
    world.process.kill()
    loop.close()


@pytest.mark.parametrize(
    ("why", "limit", "seconds", "cause"),
    [
        (NOT_FOUND, "image", 300, "image_not_found"),
        (("InvalidImageName", "bad"), "image", 300, "image_name_invalid"),
        (("ErrImagePull", "pull access denied"), "image", 300, "image_access_denied"),
        (UNAVAILABLE, "registry", 700, "registry_unavailable"),
        (("ErrImagePull", "failed to extract layer"), "registry", 700, "image_pull_failed"),
        (NO_CONFIG, "config", 600, "container_config_error"),
        (("CreateContainerError", "no command specified"), "config", 600, "start_failed"),
    ],
)
def test_job_is_ended_at_the_limit_of_its_cause(
    world: World, why: tuple[str, str], limit: str, seconds: int, cause: str
) -> None:
    world.stuck(why=why)
    world.wait(seconds - 1)
    assert world.timeout() is None
    world.wait(1 + SLACK)
    found = world.timeout()
    assert found is not None
    assert (found["limit"], found["limit_seconds"], found["cause"]) == (limit, seconds, cause)
    assert why[1] in found["message"]
    assert world.process.value("runway_start_timeouts_total", cause=limit) == 1
    world.wait(600)
    assert len(world.server.patches) == 1


def test_unschedulable_job_has_no_limit_by_default(world: World) -> None:
    pod = world.start_pod(world.create(), node=None)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    world.server.set_status(pod, {"phase": "Pending", "conditions": [condition]})
    world.wait(3000)
    assert world.timeout() is None


def test_pull_without_an_error_has_no_limit(world: World) -> None:
    world.stuck(why=("ContainerCreating", ""))
    world.wait(3000)
    assert world.timeout() is None


def test_back_off_of_a_pull_is_the_same_cause(world: World) -> None:
    pod = world.stuck()
    for number in range(29):
        world.wait(10)
        world.waits(pod, *(NOT_FOUND if number % 2 else BACK_OFF))
    world.wait(10 + SLACK)
    assert world.timeout() is not None


def test_another_cause_restarts_the_timer(world: World) -> None:
    pod = world.stuck()
    world.wait(290)
    world.waits(pod, *UNAVAILABLE)
    world.wait(20)
    world.waits(pod, *NOT_FOUND)
    world.wait(299)
    assert world.timeout() is None
    world.wait(1 + SLACK)
    assert world.timeout() is not None


def test_replaced_pod_restarts_the_timer(world: World) -> None:
    """The node rejected the first pod."""
    pod = world.stuck()
    world.wait(200)
    world.server.set_status(pod, {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: no CPU"})
    world.waits(world.start_pod(), *NOT_FOUND)
    world.wait(299)
    assert world.timeout() is None
    world.wait(1 + SLACK)
    assert world.timeout() is not None


def test_job_that_ran_before_keeps_its_own_deadline(world: World) -> None:
    pod = world.start_pod(world.create())
    world.runs(pod)
    world.wait(5)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    world.server.set_status(pod, {**world.server.pod(pod)["status"], "conditions": [condition]})
    world.server.terminate_pod(pod)
    world.server.end_pod(pod, 143)
    world.server.remove_pod(pod)
    world.waits(world.start_pod(), *NOT_FOUND)
    world.wait(2000)
    assert world.timeout() is None


def test_container_that_starts_while_the_watch_is_silent_runs_on(world: World) -> None:
    """The watch is open and reports nothing, but the read before the patch shows the container."""
    pod = world.stuck()
    world.wait(290)
    world.server.mute = True
    world.runs(pod)
    world.wait(600)
    assert world.timeout() is None


def test_pod_version_that_the_watch_has_not_reported_restarts_the_timer(world: World) -> None:
    pod = world.stuck()
    world.wait(290)
    world.server.mute = True
    world.waits(pod, "ContainerCreating", "")  # The image was there for a moment.
    world.waits(pod, *NOT_FOUND)
    world.wait(20)
    assert world.timeout() is None
    world.unmute()
    world.wait(290)
    assert world.timeout() is None
    world.wait(20)
    assert world.timeout() is not None


def test_cause_that_changes_for_a_moment_restarts_the_timer(world: World) -> None:
    """The watch reports both changes at once."""
    pod = world.stuck()
    world.wait(290)
    world.waits(pod, *UNAVAILABLE)
    world.waits(pod, *NOT_FOUND)
    world.wait(299)
    assert world.timeout() is None
    world.wait(1 + SLACK)
    assert world.timeout() is not None


def test_change_of_the_cause_that_a_list_hides_restarts_the_timer(world: World) -> None:
    """A resync shows the newest version of the pod before the delayed watch reports the change."""
    pod = world.stuck(why=UNAVAILABLE)
    world.wait(2 * RESYNC_SECONDS - 5)
    world.server.mute = True
    world.waits(pod, *NOT_FOUND)
    world.waits(pod, *UNAVAILABLE)
    world.wait(120)
    assert world.timeout() is None
    world.unmute()
    world.wait(695)
    assert world.timeout() is None
    world.wait(5 + SLACK)
    assert world.timeout() is not None


def test_list_that_shows_a_back_off_before_the_watch_does_not_lengthen_the_wait(world: World) -> None:
    pod = world.stuck(why=UNAVAILABLE)
    world.wait(2 * RESYNC_SECONDS - 5)
    world.server.mute = True
    world.waits(pod, "ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {UNAVAILABLE[1]}')
    world.waits(pod, *UNAVAILABLE)
    world.wait(50)
    world.unmute()
    world.wait(700 - 2 * RESYNC_SECONDS - 45 + SLACK)
    assert world.timeout() is not None


@pytest.mark.parametrize("start_timeout", [None, 295])
def test_pod_deleted_while_the_watch_is_silent_ends_no_job(world: World, start_timeout: int | None) -> None:
    """Its container may have started before the deletion."""
    pod = world.stuck(start_timeout_seconds=start_timeout)
    world.wait(290)
    world.server.mute = True
    world.server.remove_pod(pod)
    world.wait(250)
    assert world.timeout() is None


def test_pod_created_outside_runway_under_the_name_of_a_job_changes_nothing(world: World) -> None:
    world.stuck()
    container = {"name": "c", "resources": {"requests": {"cpu": "100m"}}}
    metadata = {"namespace": NAMESPACE, "name": "rw-1", "uid": "uid-other"}
    world.server.add("pods", {"metadata": metadata, "spec": {"containers": [container]}, "status": {}})
    world.wait(300 + SLACK)
    assert world.timeout() is not None


def test_container_that_starts_between_read_and_patch_is_ended(world: World) -> None:
    pod = world.stuck()
    world.server.before_patch.append(lambda: world.runs(pod))
    world.wait(300 + SLACK)
    assert world.timeout() is not None


def test_job_that_changes_between_read_and_patch_is_read_again(world: World) -> None:
    """The Job controller reports the pod as ready, so the container has started."""
    pod = world.stuck()

    def started() -> None:
        world.runs(pod)
        world.server.put("jobs", world.server.job("rw-1"), "MODIFIED")

    world.server.before_patch.append(started)
    world.wait(600)
    assert world.timeout() is None
    assert world.process.value("runway_start_timeout_errors_total", outcome="conflict") == 1
    assert world.process.starts.lag == 0


def test_cancelled_or_finished_job_is_left_alone(world: World) -> None:
    world.stuck()
    world.wait(290)
    cancelled = copy_of(world.server.job("rw-1"))
    cancelled["metadata"]["annotations"]["runway.internal/cancelled-at"] = world.server.now()
    world.server.put("jobs", cancelled, "MODIFIED")
    world.stuck("rw-2")
    world.wait(290)
    world.server.announce_failure("rw-2", "DeadlineExceeded")
    world.stuck("rw-3")
    world.wait(290)
    world.server.delete_job("rw-3")
    world.wait(100)
    assert world.server.patches == []


def test_node_that_does_not_respond_restarts_the_timer(world: World) -> None:
    """The pod's status is old: its container may run."""
    world.stuck()
    world.wait(200)
    world.node("Unknown")
    world.wait(2000)
    assert world.timeout() is None
    world.node("True")
    world.wait(299)
    assert world.timeout() is None
    world.wait(1 + SLACK)
    assert world.timeout() is not None


@pytest.mark.parametrize("outage", [5, 1000])
def test_lost_watch_restarts_the_timer(world: World, outage: int) -> None:
    world.stuck()
    world.wait(290)
    world.server.go_down()
    world.wait(outage)
    assert world.server.patches == []
    world.server.come_back()
    world.wait(295)
    assert world.timeout() is None
    world.wait(80)
    assert world.timeout() is not None


def test_emergency_stop_ends_no_job_and_restarts_the_timer(world: World) -> None:
    """During a stop operators may repair the cause; nobody could use the free GPUs."""
    world.stuck(start_timeout_seconds=400)
    world.wait(290)
    world.server.annotate_lease(submissions_stopped="the registry moves")
    world.wait(1000)
    assert world.timeout() is None
    world.server.annotate_lease(submissions_stopped=None)
    world.wait(5 + SLACK + 5)
    found = world.timeout()
    assert found is not None
    assert (found["limit"], found["cause"]) == ("job", "image_not_found")


def test_timer_of_a_cause_restarts_after_an_emergency_stop(world: World) -> None:
    world.stuck()
    world.wait(290)
    world.server.annotate_lease(submissions_stopped="the registry moves")
    world.wait(100)
    world.server.annotate_lease(submissions_stopped=None)
    world.wait(299)
    assert world.timeout() is None
    world.wait(10)
    assert world.timeout() is not None


def test_restart_lengthens_the_wait(world: World) -> None:
    world.stuck()
    world.wait(290)
    world.process.kill()
    world.wait(100)
    world.process = Process(world, "one")
    world.wait(298)
    assert world.timeout() is None
    world.wait(2 + SLACK)
    assert world.timeout() is not None


def test_only_the_leader_ends_jobs_and_a_standby_knows_their_wait(world: World) -> None:
    standby = Process(world, "two")
    world.stuck()
    world.wait(200)
    world.process.kill()
    world.wait(100 - SLACK)
    assert world.timeout() is None
    world.wait(DURATION_SECONDS + 5)
    assert world.timeout() is not None
    assert (standby.ended, len(world.server.patches)) == (1, 1)
    world.process = standby


def test_process_without_the_lease_ends_nothing(world: World) -> None:
    world.server.lease["spec"]["holderIdentity"] = "another"
    world.stuck()
    for _ in range(400):
        world.server.version += 1
        world.server.lease["metadata"]["resourceVersion"] = str(world.server.version)  # The other one renews it.
        world.wait(5)
    assert world.timeout() is None


@pytest.mark.parametrize("jump", [timedelta(days=400), -timedelta(days=400)], ids=["ahead", "back"])
def test_wall_clock_that_jumps_ends_no_job_early(world: World, jump: timedelta) -> None:
    world.stuck()
    world.stuck("rw-2", ("ContainerCreating", ""), start_timeout_seconds=300)
    world.wait(10)
    world.process.jump = jump
    world.wait(285)
    assert (world.timeout("rw-1"), world.timeout("rw-2")) == (None, None)
    world.wait(10)
    assert world.timeout("rw-1") is not None
    assert world.timeout("rw-2") is not None


def refused() -> Response:
    raise NotExecuted("no connection to the Kubernetes API: refused")


def ambiguous() -> Response:
    raise AmbiguousOutcome("the Kubernetes API did not answer within 2.5 s")


@pytest.mark.parametrize("fault", [refused, ambiguous])
def test_failed_patch_is_repeated_with_back_off(world: World, fault: Callable[[], Response]) -> None:
    world.stuck()
    world.server.before_patch += [fault] * 4
    world.wait(300 + SLACK)
    assert world.process.starts.lag > 0
    world.wait(60)
    assert world.timeout() is not None
    assert world.process.value("runway_start_timeout_errors_total", outcome="failed") == 4
    assert (world.process.ended, world.process.starts.lag) == (1, 0)
    assert len(world.server.patches) == 5


def test_patch_with_a_lost_response_is_counted_once(world: World) -> None:
    world.stuck()
    world.server.after_patch.append(ambiguous)
    world.wait(400)
    assert world.timeout() is not None
    assert (world.process.ended, len(world.server.patches)) == (1, 1)


def test_many_jobs_are_ended_at_a_bounded_rate_and_waiting_makes_no_call(world: World) -> None:
    jobs = [f"rw-{number}" for number in range(300)]
    for name in jobs:
        world.stuck(name)
    world.wait(2)
    before = len(world.server.calls)
    world.wait(200)
    assert {path for _, path in world.server.calls[before:] if "lease" not in path} == set()
    assert world.process.starts.waiting() == {("vision", StartLimit.IMAGE): 300}
    world.wait(98)
    calls = len(world.server.calls)
    world.wait(10)
    assert 0 < sum(world.timeout(name) is not None for name in jobs) <= 11 * MAX_ENDS_PER_TICK
    assert len(world.server.calls) - calls <= 11 * (2 * MAX_ENDS_PER_TICK + 2)
    world.wait(60)
    assert all(world.timeout(name) is not None for name in jobs)
    assert world.process.starts.waiting() == {}


def test_jobs_of_one_tenant_that_cannot_be_ended_hold_up_no_job_of_another(world: World) -> None:
    world.server.without_role = {NAMESPACE}
    for number in range(300):
        world.stuck(f"rw-{number}")
    world.wait(10)
    world.stuck("rw-other", tenant="speech")
    world.wait(300 + SLACK)
    assert world.timeout("rw-other") is not None


@pytest.mark.parametrize("why", [NOT_FOUND, UNAVAILABLE, ("ContainerCreating", "")])
def test_start_timeout_of_the_job_counts_from_its_acceptance(world: World, why: tuple[str, str]) -> None:
    pod = world.start_pod(world.create(start_timeout_seconds=100))
    world.waits(pod, "ContainerCreating", "")
    world.wait(60)
    world.waits(pod, *why)
    world.wait(39)
    assert world.timeout() is None
    world.wait(1 + SLACK)
    found = world.timeout()
    assert found is not None
    assert (found["limit"], found["limit_seconds"], found["since"]) == ("job", 100, "2026-11-24T08:00:01Z")
    assert found["cause"] == ("start_timeout" if why[0] == "ContainerCreating" else found["cause"])


def test_start_timeout_of_a_job_without_a_pod(world: World) -> None:
    world.create(start_timeout_seconds=100)
    world.wait(100 + SLACK)
    found = world.timeout()
    assert found is not None
    assert found["cause"] == "start_timeout"


def test_job_whose_pod_was_created_late_is_ended_at_the_limit_of_its_cause(world: World) -> None:
    """Such as after an hour without the service account. This process knows that no attempt preceded the pod."""
    world.create()
    world.wait(3600)
    world.waits(world.start_pod(), *NOT_FOUND)
    world.wait(300 - SLACK)
    assert world.timeout() is None
    world.wait(2 * SLACK)
    assert world.timeout() is not None


def restart(world: World) -> None:
    world.process.kill()
    world.wait(90)
    world.process = Process(world, "one")


def lose_contact(world: World) -> None:
    world.server.go_down()
    world.wait(90)
    world.server.come_back()
    world.wait(60)


@pytest.mark.parametrize("gap", [restart, lose_contact])
def test_job_whose_pod_was_created_late_and_that_may_have_run_is_left_alone(
    world: World, gap: Callable[[World], None]
) -> None:
    world.create()
    world.wait(90)
    gap(world)
    world.waits(world.start_pod(), *NOT_FOUND)
    world.wait(1000)
    assert world.timeout() is None


def test_job_without_a_pod_that_may_have_run_is_left_alone(world: World) -> None:
    """Its pod may have run and been evicted while no Runway watched."""
    world.process.kill()
    world.create(start_timeout_seconds=100)
    world.wait(90)
    world.process = Process(world, "one")
    world.wait(500)
    assert world.timeout() is None


def test_start_timeout_of_a_job_whose_specification_left_the_memory(world: World) -> None:
    world.stuck(why=("ContainerCreating", ""), start_timeout_seconds=100)
    world.wait(10)
    job = copy_of(world.server.job("rw-1"))
    del job["metadata"]["annotations"][ANNOTATION_SPEC]
    world.server.put("jobs", job, "MODIFIED")
    world.wait(100 + SLACK)
    assert world.timeout() is not None


def test_start_timeout_does_not_apply_once_a_container_started(world: World) -> None:
    world.runs(world.start_pod(world.create(start_timeout_seconds=100)))
    world.wait(500)
    assert world.timeout() is None


def test_start_timeout_waits_for_a_node_that_does_not_respond(world: World) -> None:
    world.stuck(why=("ContainerCreating", ""), start_timeout_seconds=100)
    world.wait(50)
    world.node("Unknown")
    world.wait(300)
    assert world.timeout() is None
    world.node("True")
    world.wait(5 + SLACK)
    assert world.timeout() is not None


def test_suspended_job_is_resumed_to_end(world: World) -> None:
    world.create(start_timeout_seconds=100)
    job = copy_of(world.server.job("rw-1"))
    job["spec"]["suspend"] = True
    world.server.put("jobs", job, "MODIFIED")
    world.wait(100 + SLACK)
    assert world.timeout() is not None
    assert world.server.job("rw-1")["spec"]["suspend"] is False
