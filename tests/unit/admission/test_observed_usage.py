"""What a job is observed to hold: never less than Kubernetes may still be running, and nothing once all has ended."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from runway.admission.observed_usage import finished_at, observed_usage
from runway.admission.quota import ZERO, Amounts, ObservedUsage
from runway.kube.objects import Job, Pod, ResourceRequirements
from tests.support.builders import NAMESPACE, Json, ended, job, moment, pod, running, waiting

GPU_JOB: Json = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
ONE = Amounts(gpu=1, cpu=2000, memory=4 << 30, jobs=1)
TWO = ONE + ONE
TWO_AT_ONCE = Amounts(2 * ONE.gpu, 2 * ONE.cpu, 2 * ONE.memory, 1)
EARLIER = "uid-of-an-earlier-job"


def gpu_job(**changes: object) -> Job:
    return job(requests=GPU_JOB, **changes)  # type: ignore[arg-type]


def gpu_pod(name: str = "first", **changes: object) -> Pod:
    return pod(name, requests=GPU_JOB, **changes)  # type: ignore[arg-type]


def own(amounts: Amounts, terminating: Amounts = ZERO) -> ObservedUsage:
    """All of it is held by the Job that has the name."""
    return ObservedUsage(amounts, terminating, own=amounts)


CASES: dict[str, tuple[Job | None, Sequence[Pod], ObservedUsage | None]] = {
    "a job whose pod is not created yet": (gpu_job(), [], own(ONE)),
    "a job and its waiting pod are one holding": (
        gpu_job(),
        [gpu_pod(state=waiting("ContainerCreating"))],
        own(ONE),
    ),
    "a job and its running pod are one holding": (gpu_job(), [gpu_pod(state=running())], own(ONE)),
    "between two attempts": (gpu_job(), [gpu_pod(state=ended(1))], own(ONE)),
    "a second attempt": (gpu_job(), [gpu_pod(state=ended(1)), gpu_pod("second", state=running())], own(ONE)),
    "an unfinished job with a terminating pod": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50)],
        own(ONE, ONE),
    ),
    "a finished job with a terminating pod": (
        gpu_job(verdict="Failed", reason="DeadlineExceeded"),
        [gpu_pod(state=running(), deleted=50)],
        own(ONE, ONE),
    ),
    "a finished job whose pod has not ended": (gpu_job(verdict="Complete"), [gpu_pod(state=running())], own(ONE)),
    "a verdict that is only announced": (
        gpu_job(conditions=[{"type": "FailureTarget", "status": "True"}]),
        [gpu_pod(state=ended(1))],
        own(ONE),
    ),
    "a deleted job with a live pod": (None, [gpu_pod(state=running())], ObservedUsage(ONE)),
    "a deleted job with a terminating pod": (None, [gpu_pod(state=running(), deleted=50)], ObservedUsage(ONE, ONE)),
    "a deleted job with a pod no controller claims": (
        None,
        [gpu_pod(state=running(), controller=None)],
        ObservedUsage(ONE),
    ),
    "two pods at once both count": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50), gpu_pod("second", state=running())],
        own(TWO_AT_ONCE, ONE),
    ),
    "a pod of an earlier job of the same name counts beside the new job": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50, controller=EARLIER)],
        ObservedUsage(TWO, ONE, own=ONE),
    ),
    "pods of the earlier and the new job": (
        gpu_job(),
        [gpu_pod(state=running(), controller=EARLIER), gpu_pod("second", state=running())],
        ObservedUsage(TWO, own=ONE),
    ),
    "a pod of an earlier job that has ended": (gpu_job(), [gpu_pod(state=ended(1), controller=EARLIER)], own(ONE)),
    "a job whose only needed success has ended, before the verdict": (gpu_job(), [gpu_pod(state=ended())], None),
    "a success that was told to end proves nothing": (gpu_job(), [gpu_pod(state=ended(), deleted=50)], own(ONE)),
    "a disrupted success proves nothing": (
        gpu_job(),
        [gpu_pod(state=ended(), conditions=[{"type": "DisruptionTarget", "status": "True"}])],
        own(ONE),
    ),
    "a success of an earlier job proves nothing": (
        gpu_job(),
        [gpu_pod(state=ended(), controller=EARLIER)],
        own(ONE),
    ),
    "one success of a job made past Runway that needs two": (
        gpu_job(completions=2),
        [gpu_pod(state=ended())],
        own(ONE),
    ),
    "a job made past Runway that wants two pods at once": (
        gpu_job(parallelism=2, completions=2),
        [],
        own(TWO_AT_ONCE),
    ),
    "a suspended job made past Runway": (gpu_job(suspend=True), [], None),
    "a finished job without pods": (gpu_job(verdict="Complete"), [], None),
    "a finished job whose pod ended": (gpu_job(verdict="Complete"), [gpu_pod(state=ended())], None),
    "a finished job whose pod ended and is being deleted": (
        gpu_job(verdict="Failed"),
        [gpu_pod(state=ended(143), deleted=50)],
        None,
    ),
    "a deleted job whose pod ended": (None, [gpu_pod(state=ended(1))], None),
    "nothing": (None, [], None),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_held(case: str) -> None:
    held_by, pods, booking = CASES[case]
    assert observed_usage(held_by, pods) == booking


@pytest.mark.parametrize(
    ("pods", "amounts"),
    [
        ([], ONE),
        ([gpu_pod(state=running())], ONE),
        ([gpu_pod(state=ended(1))], ONE),
        ([gpu_pod(state=running(), controller=EARLIER)], TWO),
    ],
    ids=["no pod is known", "its pod is known", "a second attempt may be on its way", "another's pod"],
)
def test_a_deleted_job_holds_its_amounts_until_its_pods_are_certainly_known(pods: list[Pod], amounts: Amounts) -> None:
    assert observed_usage(None, pods, [gpu_job()]) == ObservedUsage(amounts)


def test_a_deleted_job_counts_beside_its_successor() -> None:
    assert observed_usage(gpu_job(), [], [job(uid=EARLIER, requests=GPU_JOB)]) == ObservedUsage(TWO, own=ONE)


def test_a_deleted_job_that_had_succeeded_holds_nothing() -> None:
    assert observed_usage(None, [gpu_pod(state=ended())], [gpu_job()]) is None


@pytest.mark.parametrize(
    ("requests", "amounts"),
    [
        ({"cpu": "500m", "memory": "64Mi"}, Amounts(0, 500, 64 << 20, 1)),
        ({"cpu": "1500u", "memory": "1500m", "nvidia.com/gpu": "1"}, Amounts(1, 2, 2, 1)),
        ({}, Amounts(0, 0, 0, 1)),
    ],
)
def test_amounts_are_read_as_kubernetes_wrote_them_and_rounded_up(requests: Json, amounts: Amounts) -> None:
    assert observed_usage(job(requests=requests), []) == own(amounts)


def test_a_pod_holds_what_runs_together_or_its_largest_init_step() -> None:
    containers = [{"name": "main", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]
    init = [
        {"name": "fetch", "resources": {"requests": {"cpu": "3", "memory": "512Mi"}}},
        {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
    ]
    found = msgspec.convert(
        {
            "metadata": {"name": "by-hand", "namespace": NAMESPACE},
            "spec": {"containers": containers, "initContainers": init},
            "status": {"phase": "Running"},
        },
        Pod,
    )
    assert observed_usage(None, [found]) == ObservedUsage(Amounts(0, 3000, 2 << 30, 1))


ENDS: dict[str, tuple[Job, Sequence[Pod], float | None]] = {
    "a success releases before the verdict": (job(), [pod(state=ended(0, finished=90))], 90),
    "a success after a failed attempt": (
        job(),
        [pod(state=ended(1, finished=95)), pod("second", state=ended(0, finished=120))],
        120,
    ),
    "a failure is over with its verdict": (
        job(verdict="Failed", finished=100),
        [pod(state=ended(1, finished=90))],
        100,
    ),
    "a pod that ended after the verdict": (
        job(verdict="Failed", finished=100),
        [pod(state=ended(143, finished=130), deleted=130)],
        130,
    ),
    "a success that was told to end is one by the verdict only": (
        job(verdict="Complete", finished=100),
        [pod(state=ended(0, finished=90), deleted=95)],
        100,
    ),
    "a verdict without any pod": (job(verdict="Failed", finished=100), [], 100),
    "a pod of an earlier job": (job(), [pod(controller=EARLIER, state=ended(0, finished=90))], None),
}


@pytest.mark.parametrize("case", ENDS, ids=str)
def test_when_the_last_of_a_job_ended(case: str) -> None:
    of, pods, seconds = ENDS[case]
    assert finished_at(of, pods) == (None if seconds is None else moment(seconds))


def test_requests_of_a_pod_as_a_whole_take_the_place_of_its_containers() -> None:
    whole = pod(state=running(5), requests={"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"})
    spec = msgspec.structs.replace(whole.spec, resources=ResourceRequirements({"cpu": "6", "memory": "8Gi"}))
    booking = observed_usage(None, [msgspec.structs.replace(whole, spec=spec)])
    assert booking is not None
    assert (booking.amounts.cpu, booking.amounts.memory, booking.amounts.gpu) == (6000, 8 << 30, 1)
