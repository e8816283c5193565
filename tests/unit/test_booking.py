"""What a job is observed to hold: never less than Kubernetes may still be running, and nothing once all has ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runway.admission.booking import booking_of
from runway.admission.quota import NOTHING, Amounts, Booking
from runway.objects import Job, Pod
from tests.support.builders import Json, ended, job, pod, running, waiting

GPU_JOB: Json = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
ONE = Amounts(gpu=1, cpu=2000, memory=4 << 30, jobs=1)
TWO = ONE + ONE
EARLIER = "uid-of-an-earlier-job"


def gpu_job(**changes: object) -> Job:
    return job(limits=GPU_JOB, **changes)  # type: ignore[arg-type]


def gpu_pod(name: str = "first", **changes: object) -> Pod:
    return pod(name, limits=GPU_JOB, **changes)  # type: ignore[arg-type]


CASES: dict[str, tuple[Job | None, Sequence[Pod], Booking | None]] = {
    "a job whose pod is not created yet": (gpu_job(), [], Booking(ONE)),
    "a job and its waiting pod are one holding": (
        gpu_job(),
        [gpu_pod(state=waiting("ContainerCreating"))],
        Booking(ONE),
    ),
    "a job and its running pod are one holding": (gpu_job(), [gpu_pod(state=running())], Booking(ONE)),
    "between two attempts": (gpu_job(), [gpu_pod(state=ended(1))], Booking(ONE)),
    "a second attempt": (gpu_job(), [gpu_pod(state=ended(1)), gpu_pod("second", state=running())], Booking(ONE)),
    "an unfinished job with a terminating pod": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50)],
        Booking(ONE, ONE),
    ),
    "a finished job with a terminating pod": (
        gpu_job(verdict="Failed", reason="DeadlineExceeded"),
        [gpu_pod(state=running(), deleted=50)],
        Booking(ONE, ONE),
    ),
    "a finished job whose pod has not ended": (gpu_job(verdict="Complete"), [gpu_pod(state=running())], Booking(ONE)),
    "a verdict that is only announced": (
        gpu_job(conditions=[{"type": "FailureTarget", "status": "True"}]),
        [gpu_pod(state=ended(1))],
        Booking(ONE),
    ),
    "a deleted job with a live pod": (None, [gpu_pod(state=running())], Booking(ONE)),
    "a deleted job with a terminating pod": (None, [gpu_pod(state=running(), deleted=50)], Booking(ONE, ONE)),
    "a deleted job with a pod no controller claims": (None, [gpu_pod(state=running(), controller=None)], Booking(ONE)),
    "two pods at once both count": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50), gpu_pod("second", state=running())],
        Booking(TWO, ONE),
    ),
    "a pod of an earlier job of the same name counts beside the new job": (
        gpu_job(),
        [gpu_pod(state=running(), deleted=50, controller=EARLIER)],
        Booking(TWO, ONE),
    ),
    "pods of the earlier and the new job": (
        gpu_job(),
        [gpu_pod(state=running(), controller=EARLIER), gpu_pod("second", state=running())],
        Booking(TWO),
    ),
    "a pod of an earlier job that has ended": (gpu_job(), [gpu_pod(state=ended(1), controller=EARLIER)], Booking(ONE)),
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
    assert booking_of(held_by, pods) == booking


@pytest.mark.parametrize(
    ("limits", "amounts"),
    [
        ({"cpu": "500m", "memory": "64Mi"}, Amounts(0, 500, 64 << 20, 1)),
        ({"cpu": "1500u", "memory": "1500m", "nvidia.com/gpu": "1"}, Amounts(1, 2, 2, 1)),
        ({}, Amounts(0, 0, 0, 1)),
    ],
)
def test_amounts_are_read_as_kubernetes_wrote_them_and_rounded_up(limits: Json, amounts: Amounts) -> None:
    assert booking_of(job(limits=limits), []) == Booking(amounts, NOTHING)
