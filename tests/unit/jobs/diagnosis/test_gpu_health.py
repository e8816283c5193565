"""Faulty GPUs of a running job, and hostile node conditions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.diagnosis.gpu_health import EKS_CONDITION, NVSENTINEL_CONDITIONS, gpu_fault
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.decode import READ_CONDITIONS
from tests.support.builders import condition, job, moment, node, pod, running, spec


def test_running_job_shows_the_fault_of_its_node() -> None:
    faulty = node(conditions=[condition("GpuPcieWatch", reason="Replay", message="PCIe link issues", since=30)])
    snapshot = JobSnapshot(
        "vision", job(admitted=spec(gpu=1, gpu_type="a10g")), (pod(state=running()),), nodes={"node-1": faulty}
    )
    (found,) = job_view(snapshot).conditions
    assert (found.code, found.since) == ("gpu_hardware", moment(30))
    assert found.message == "node node-1 reports faulty GPUs (GpuPcieWatch, Replay: PCIe link issues)"


def test_healthy_and_unknown_conditions_are_no_fault() -> None:
    healthy = [condition("GpuMemWatch", "False"), condition(EKS_CONDITION), condition("GpuMemWatch", "Unknown")]
    assert gpu_fault(node(conditions=healthy)) is None
    assert gpu_fault(node(conditions=[condition("SomethingElse")])) is None
    assert gpu_fault(None) is None


def test_conditions_of_monitors_are_read_among_any_number_of_others() -> None:
    assert {EKS_CONDITION, *NVSENTINEL_CONDITIONS} <= READ_CONDITIONS


@given(st.sampled_from([EKS_CONDITION, *sorted(NVSENTINEL_CONDITIONS)]), st.text(max_size=300), st.text(max_size=5000))
def test_hostile_condition_text_is_shown_on_one_bounded_line(type_: str, reason: str, message: str) -> None:
    status = "False" if type_ == EKS_CONDITION else "True"
    faulty = node(conditions=[condition(type_, status, reason=reason, message=message)])
    snapshot = JobSnapshot(
        "vision", job(admitted=spec(gpu=1, gpu_type="a10g")), (pod(state=running()),), nodes={"node-1": faulty}
    )
    for found in job_view(snapshot).conditions:
        assert found.message.isprintable()
        assert len(found.message) < 400
