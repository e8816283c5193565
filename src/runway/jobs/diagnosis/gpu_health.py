"""Diagnosis of faulty GPUs from the conditions that health monitors set on nodes. Pure.

The EKS node monitoring agent sets AcceleratedHardwareReady to False; NVIDIA's NVSentinel sets conditions of its own to
True, and only for fatal faults. Repair is theirs.
https://docs.aws.amazon.com/eks/latest/userguide/node-health.html
https://github.com/NVIDIA/NVSentinel/blob/main/docs/INTEGRATIONS.md

A fault explains the end of an attempt if something in the infrastructure ended it, or if the fault began during the
attempt and its process failed in a way that a faulty GPU can cause. The job's own errors stay its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Category, Diagnosis, FailureCode
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Condition, Node, Pod
from runway.text import one_line

EKS_CONDITION: Final = "AcceleratedHardwareReady"
NVSENTINEL_CONDITIONS: Final = frozenset(
    {
        "GpuDriverWatch", "GpuInforomWatch", "GpuMcuWatch", "GpuMemWatch", "GpuNvlinkWatch", "GpuPcieWatch",
        "GpuPmuWatch", "GpuPowerWatch", "GpuSmWatch", "GpuThermalWatch", "NVSwitchDown", "NVSwitchFatalError",
        "SysLogsGPUFallenOff", "SysLogsSXIDError", "SysLogsXIDError",
    }
)  # fmt: skip
_MONITOR_FAILED: Final = "DCGMError"
"""The reason of the EKS agent if it cannot measure: no fault of a GPU."""
_BEFORE: Final = timedelta(seconds=60)
_AFTER: Final = timedelta(minutes=5)
"""How much before the start, and after the end, of an attempt a monitor may report a fault that ended it."""
_BY_A_FAULT: Final = frozenset(
    {
        FailureCode.EXIT_NONZERO, FailureCode.SIGKILL_UNEXPLAINED, FailureCode.TERMINATED,
        FailureCode.SEGMENTATION_FAULT, FailureCode.ABORTED, FailureCode.BUS_ERROR, FailureCode.KILLED_BY_SIGNAL,
    }
)  # fmt: skip
"""Ends of a process that a faulty GPU can cause."""


def gpu_fault(node: Node | None) -> Condition | None:
    """Return the condition with which a monitor reports faulty GPUs of the node; None without one."""
    for condition in () if node is None else node.status.conditions:
        if condition.type == EKS_CONDITION and condition.status == "False" and condition.reason != _MONITOR_FAILED:
            return condition
        if condition.type in NVSENTINEL_CONDITIONS and condition.status == "True":
            return condition
    return None


def gpu_fault_of(snapshot: JobSnapshot, pod: Pod) -> Condition | None:
    """Return the fault of the GPUs of a GPU job's node; None without one."""
    spec = spec_of(snapshot.job)
    return gpu_fault(snapshot.node_of(pod)) if spec is not None and spec.resources.gpu else None


def describe_fault(pod: Pod, fault: Condition) -> str:
    """Return the fault in words."""
    words = one_line(": ".join(part for part in (fault.reason, fault.message) if part), 200)
    return f"node {pod.spec.node_name} reports faulty GPUs ({one_line(fault.type, 80)}{f', {words}' if words else ''})"


def with_gpu_fault(
    snapshot: JobSnapshot, pod: Pod, finding: Diagnosis, started: datetime | None, ended: datetime | None
) -> Diagnosis:
    """Blame a fault of the node's GPUs for the end of an attempt, if it explains that end."""
    fault = gpu_fault_of(snapshot, pod)
    since = fault.last_transition_time if fault is not None else None
    if fault is None or since is None or (ended is not None and since > ended + _AFTER):
        return finding
    began_during = started is not None and since >= started - _BEFORE
    if finding.code.category is not Category.INFRA and not (began_during and finding.code in _BY_A_FAULT):
        return finding
    evidence = {
        **finding.evidence,
        "gpu_condition": one_line(fault.type, 80),
        "gpu_reason": one_line(fault.reason, 80),
        "gpu_message": one_line(fault.message),
        "gpu_since": since.isoformat(timespec="seconds"),
        "without_fault": finding.code.value,
    }
    return Diagnosis(FailureCode.GPU_HARDWARE, f"{describe_fault(pod, fault)}; {finding.message}", evidence)
