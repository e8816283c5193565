"""Observed usage: at least what Kubernetes may run, zero after the last pod."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from runway.admission.quota import ObservedUsage, finished_at, observed_usage
from runway.jobs.resources import ZERO, ResourceVector
from runway.kube.objects import Job, Pod, ResourceRequirements
from tests.support.builders import NAMESPACE, Json, ended, job, moment, pod, policy, running, waiting

GPU_JOB: Json = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
ONE = ResourceVector(gpu=1, cpu=2000, memory=4 << 30, jobs=1)
TWO = ONE + ONE
TWO_AT_ONCE = ResourceVector(2 * ONE.gpu, 2 * ONE.cpu, 2 * ONE.memory, 1)
EARLIER = "uid-of-an-earlier-job"


def gpu_job(**changes: object) -> Job:
    return job(requests=GPU_JOB, **changes)  # type: ignore[arg-type]


def gpu_pod(name: str = "first", **changes: object) -> Pod:
    return pod(name, requests=GPU_JOB, **changes)  # type: ignore[arg-type]


def own(amounts: ResourceVector, terminating: ResourceVector = ZERO) -> ObservedUsage:
    """Return usage that belongs to the current Job of the name only."""
    return ObservedUsage(amounts, terminating, own=amounts)


CASES: dict[str, tuple[Job | None, Sequence[Pod], ObservedUsage | None]] = {
    "a job whose pod is not created yet": (gpu_job(), [], own(ONE)),
    "a job and its pending pod count once": (
        gpu_job(),
        [gpu_pod(state=waiting("ContainerCreating"))],
        own(ONE),
    ),
    "a job and its running pod count once": (gpu_job(), [gpu_pod(state=running())], own(ONE)),
    "between two attempts": (gpu_job(), [gpu_pod(state=ended(1))], own(ONE)),
    "a second attempt": (gpu_job(), [gpu_pod(state=ended(1)), gpu_pod("second", state=running())], own(ONE)),
    "an unfinished job with a terminating pod": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50)],
        own(ONE, ONE),
    ),
    "a finished job with a terminating pod": (
        gpu_job(outcome="Failed", reason="DeadlineExceeded"),
        [gpu_pod(state=running(), deleted=50)],
        own(ONE, ONE),
    ),
    "a finished job whose pod is not terminal": (gpu_job(outcome="Complete"), [gpu_pod(state=running())], own(ONE)),
    "an announced outcome": (
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
    "a job whose pod succeeded before its condition": (gpu_job(), [gpu_pod(state=ended())], None),
    "a terminating success proves nothing": (gpu_job(), [gpu_pod(state=ended(), deleted=50)], own(ONE)),
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
    "one success of a job created outside Runway that needs two": (
        gpu_job(completions=2),
        [gpu_pod(state=ended())],
        own(ONE),
    ),
    "a job created outside Runway with parallelism two": (
        gpu_job(parallelism=2, completions=2),
        [],
        own(TWO_AT_ONCE),
    ),
    "a suspended job created outside Runway": (gpu_job(suspend=True), [], None),
    "a finished job without pods": (gpu_job(outcome="Complete"), [], None),
    "a finished job whose pod ended": (gpu_job(outcome="Complete"), [gpu_pod(state=ended())], None),
    "a finished job whose pod ended and is being deleted": (
        gpu_job(outcome="Failed"),
        [gpu_pod(state=ended(143), deleted=50)],
        None,
    ),
    "a deleted job whose pod ended": (None, [gpu_pod(state=ended(1))], None),
    "nothing": (None, [], None),
}


@pytest.mark.parametrize("case", CASES)
def test_observed_usage(case: str) -> None:
    held_by, pods, usage = CASES[case]
    assert observed_usage(held_by, pods) == usage


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
def test_deleted_job_counts_until_all_its_pods_are_known(pods: list[Pod], amounts: ResourceVector) -> None:
    assert observed_usage(None, pods, [gpu_job()]) == ObservedUsage(amounts)


def test_deleted_job_counts_beside_its_successor() -> None:
    assert observed_usage(gpu_job(), [], [job(uid=EARLIER, requests=GPU_JOB)]) == ObservedUsage(TWO, own=ONE)


PRICE = {"hourly": 36_706, "ceiling": 36_706}
"""The price in the annotation of the builders, in micro-USD."""


def test_budget_holds_the_ceiling_until_kubernetes_finishes_the_job() -> None:
    """The success of the pod releases the quota about a second before."""
    unfinished = observed_usage(job(managed=True), [pod(state=running())])
    assert unfinished is not None
    assert (unfinished.amounts.ceiling, unfinished.own) == (PRICE["ceiling"], unfinished.amounts)
    only_ceiling = ResourceVector(ceiling=PRICE["ceiling"])
    assert observed_usage(job(managed=True), [pod(state=ended())]) == ObservedUsage(only_ceiling, own=only_ceiling)
    assert observed_usage(job(managed=True, outcome="Complete"), [pod(state=ended())]) is None


def test_job_whose_end_has_no_time_keeps_its_ceiling() -> None:
    found = observed_usage(job(managed=True, conditions=[{"type": "Failed", "status": "True"}]), [])
    only_ceiling = ResourceVector(ceiling=PRICE["ceiling"])
    assert found == ObservedUsage(only_ceiling, own=only_ceiling)


def test_deleted_job_keeps_its_price_and_leaves_the_budget() -> None:
    found = observed_usage(None, [pod(state=running())], [job(managed=True)])
    assert found is not None
    assert (found.amounts.usd_per_hour, found.amounts.ceiling) == (PRICE["hourly"], 0)


def test_job_created_outside_runway_has_no_ceiling_and_the_price_of_its_pool() -> None:
    found = observed_usage(job(), [], (), policy().pools)
    assert found is not None
    assert (found.amounts.ceiling, found.amounts.usd_per_hour) == (0, round(768_000 * (9 + 1) / (16 * 9 + 64)))


def test_deleted_job_that_succeeded_uses_no_quota() -> None:
    assert observed_usage(None, [gpu_pod(state=ended())], [gpu_job()]) is None


@pytest.mark.parametrize(
    ("requests", "amounts"),
    [
        ({"cpu": "500m", "memory": "64Mi"}, ResourceVector(0, 500, 64 << 20, 1)),
        ({"cpu": "1500u", "memory": "1500m", "nvidia.com/gpu": "1"}, ResourceVector(1, 2, 2, 1)),
        ({"ephemeral-storage": "1.5Gi"}, ResourceVector(0, 0, 0, 1, 3 << 29)),
        ({}, ResourceVector(0, 0, 0, 1)),
    ],
)
def test_quantities_are_decoded_and_rounded_up(requests: Json, amounts: ResourceVector) -> None:
    assert observed_usage(job(requests=requests), []) == own(amounts)


def test_pod_usage_is_the_sum_of_containers_or_the_largest_init_step() -> None:
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
    assert observed_usage(None, [found]) == ObservedUsage(ResourceVector(0, 3000, 2 << 30, 1))


ENDS: dict[str, tuple[Job, Sequence[Pod], float | None]] = {
    "a success releases before the condition": (job(), [pod(state=ended(0, finished=90))], 90),
    "a success after a failed attempt": (
        job(),
        [pod(state=ended(1, finished=95)), pod("second", state=ended(0, finished=120))],
        120,
    ),
    "a failure ends with its condition": (
        job(outcome="Failed", finished=100),
        [pod(state=ended(1, finished=90))],
        100,
    ),
    "a pod that ended after the condition": (
        job(outcome="Failed", finished=100),
        [pod(state=ended(143, finished=130), deleted=130)],
        130,
    ),
    "a terminating success counts with the condition only": (
        job(outcome="Complete", finished=100),
        [pod(state=ended(0, finished=90), deleted=95)],
        100,
    ),
    "a condition without a pod": (job(outcome="Failed", finished=100), [], 100),
    "a pod of an earlier job": (job(), [pod(controller=EARLIER, state=ended(0, finished=90))], None),
}


@pytest.mark.parametrize("case", ENDS, ids=str)
def test_end_of_usage(case: str) -> None:
    of, pods, seconds = ENDS[case]
    assert finished_at(of, pods) == (None if seconds is None else moment(seconds))


def test_pod_level_requests_replace_those_of_containers() -> None:
    whole = pod(state=running(5), requests={"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"})
    spec = msgspec.structs.replace(whole.spec, resources=ResourceRequirements({"cpu": "6", "memory": "8Gi"}))
    usage = observed_usage(None, [msgspec.structs.replace(whole, spec=spec)])
    assert usage is not None
    assert (usage.amounts.cpu, usage.amounts.memory, usage.amounts.gpu) == (6000, 8 << 30, 1)
