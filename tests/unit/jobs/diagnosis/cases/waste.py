"""Diagnosis cases: idle GPUs, endless disruptions, faulty GPUs."""

from __future__ import annotations

from runway.jobs.annotations import ANNOTATION_ENDED
from runway.jobs.manifest import canonical_json
from runway.kube.objects import Job
from tests.support.builders import Json, condition, disrupted, ended, job, moment, node, pod, spec, unschedulable
from tests.support.diagnosis_case import EXITED, INFRA, USER, C, DiagnosisCase, rejected

GPU_SPEC = spec(gpu=1, gpu_type="a10g")


def ended_by_runway(code: str, message: str, *, at: float = 70, deadline: int = 0, **evidence: str) -> Job:
    """Build a Job that Runway ended: its deadline is zero."""
    ending: Json = {"code": code, "at": moment(at).isoformat(), "message": message, "evidence": evidence}
    return job(
        outcome="Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline",
        conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=at)],
        admitted=GPU_SPEC, started=10, deadline=deadline, annotations={ANNOTATION_ENDED: canonical_json(ending)},
    )  # fmt: skip


EXITED_GPU_JOB = job(outcome="Failed", reason=EXITED.status.conditions[0].reason, admitted=GPU_SPEC)
IDLE = ended_by_runway("gpu_idle", "Runway ended the job: the GPU had a utilisation of at most 0 % for 1h", gpus="1")
# pkg/reasons of https://github.com/aws/eks-node-monitoring-agent.
XID = condition(
    "AcceleratedHardwareReady", "False", reason="NvidiaXID79Error", message="XID error code: 79, GPU fell off", since=80
)
OLD_XID = condition("AcceleratedHardwareReady", "False", reason="NvidiaXID79Error", message="XID 79", since=1)
LATE_XID = condition("AcceleratedHardwareReady", "False", reason="NvidiaXID79Error", message="XID 79", since=500)
# https://github.com/NVIDIA/NVSentinel/blob/main/docs/INTEGRATIONS.md
NVSENTINEL = condition(
    "GpuMemWatch", reason="GpuMemWatchIsNotHealthy", since=80,
    message="[DCGM_FR_FAULTY_MEMORY] GPU memory failure detected on GPU 0 - RecommendedAction: RESTART_VM",
)  # fmt: skip

WASTE: dict[str, DiagnosisCase] = {
    "ended for idle GPUs": DiagnosisCase(
        C.GPU_IDLE, USER, False, "at most 0 % for 1h; the process ended on SIGTERM",
        [pod(state=ended(143, started=20, finished=75), deleted=100, grace=30)], job=IDLE,
        hint="does not use its GPUs", evidence={"gpus": "1", "job_reason": "DeadlineExceeded"},
    ),
    "ended for idle GPUs, pod gone": DiagnosisCase(C.GPU_IDLE, USER, False, "for 1h", job=IDLE),
    "ended after disruptions": DiagnosisCase(
        C.DISRUPTED_TOO_OFTEN, INFRA, True, "after 11 disruptions",
        [pod("a", state=ended(143, finished=41), deleted=60, grace=30, conditions=[disrupted()]),
         pod("b", node=None, conditions=[unschedulable()], deleted=100, grace=30)],
        job=ended_by_runway("disrupted_too_often", "Runway ended the job after 11 disruptions in a spot pool"),
        hint="in a pool that is not spot",
    ),
    "annotation without the deadline of zero": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "reached its timeout",
        [pod(state=ended(143, started=20, finished=75), deleted=100, grace=30)],
        job=ended_by_runway("gpu_idle", "idle", deadline=60),
    ),
    "annotation with a code of another failure": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "reached its timeout",
        [pod(state=ended(143, started=20, finished=75), deleted=100, grace=30)],
        job=ended_by_runway("oom_killed", "idle"),
    ),
    "GPU fell off the bus": DiagnosisCase(
        C.GPU_HARDWARE, INFRA, True, "node node-1 reports faulty GPUs (AcceleratedHardwareReady, NvidiaXID79Error: XID",
        [pod(state=ended(1, started=20, finished=75))], job=EXITED_GPU_JOB, nodes=[node(conditions=[XID])],
        evidence={"gpu_condition": "AcceleratedHardwareReady", "without_fault": "exit_nonzero", "exit_code": "1"},
    ),
    "faulty GPU memory": DiagnosisCase(
        C.GPU_HARDWARE, INFRA, True, "DCGM_FR_FAULTY_MEMORY",
        [pod(state=ended(134, started=20, finished=75))], job=EXITED_GPU_JOB, nodes=[node(conditions=[NVSENTINEL])],
        evidence={"gpu_condition": "GpuMemWatch", "without_fault": "aborted"},
    ),
    "drained for a faulty GPU": DiagnosisCase(
        C.GPU_HARDWARE, INFRA, True, "faulty GPUs",
        [pod(state=ended(143, started=20), deleted=100, grace=30, conditions=[disrupted(message="evicting")])],
        job=EXITED_GPU_JOB, nodes=[node(conditions=[OLD_XID])], evidence={"without_fault": "drained"},
    ),
    "device rejected on a node with a faulty GPU": DiagnosisCase(
        C.GPU_HARDWARE, INFRA, True, "faulty GPUs",
        [rejected("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present")],
        job=EXITED_GPU_JOB, nodes=[node(conditions=[OLD_XID])], evidence={"without_fault": "admission_rejected"},
    ),
    "own error on a node whose GPU was faulty before": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1, started=100, finished=175))], job=EXITED_GPU_JOB, nodes=[node(conditions=[OLD_XID])],
    ),
    "own error long before the fault": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1, started=20, finished=75))], job=EXITED_GPU_JOB, nodes=[node(conditions=[LATE_XID])],
    ),
    "out of memory during a fault": DiagnosisCase(
        C.OOM_KILLED, USER, False, "memory limit",
        [pod(state=ended(137, "OOMKilled", started=20, finished=75))], job=EXITED_GPU_JOB,
        nodes=[node(conditions=[XID])],
    ),
    "job without GPUs on a node with a faulty GPU": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1, started=20, finished=75))], job=EXITED, nodes=[node(conditions=[XID])],
    ),
    "monitor that cannot measure": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1, started=20, finished=75))], job=EXITED_GPU_JOB,
        nodes=[node(conditions=[condition("AcceleratedHardwareReady", "False", reason="DCGMError", since=80)])],
    ),
}  # fmt: skip
