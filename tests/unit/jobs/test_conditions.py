"""The conditions of an unfinished job."""

from __future__ import annotations

import pytest

from runway.jobs.diagnosis.codes import ConditionCode
from runway.jobs.diagnosis.container_start import parse_fit_error
from runway.jobs.models import ConditionView
from runway.jobs.snapshot import FreeCapacity, JobSnapshot
from runway.jobs.view import job_view
from runway.kube.objects import Event, Job, Node, Pod
from runway.policy import StartTimeouts
from tests.support.builders import (
    Json,
    condition,
    disrupted,
    ended,
    job,
    moment,
    node,
    pod,
    running,
    spec,
    unschedulable,
    waiting,
    warning,
)

GPU_JOB: Json = {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "4"}
GI = 1 << 30


def conditions(
    *pods: Pod,
    of: Job | None = None,
    events: tuple[Event, ...] = (),
    nodes: tuple[Node, ...] = (),
    room: FreeCapacity | None = None,
    gone: frozenset[str] = frozenset(),
) -> list[ConditionView]:
    by_name = {item.metadata.name: item for item in nodes}
    return job_view(JobSnapshot("vision", of or job(), pods, gone, events, by_name, room)).conditions


def only(found: list[ConditionView]) -> ConditionView:
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("waits", "code", "message"),
    [
        (pod(state=waiting("ErrImagePull", "x: not found")), "image_pull_failing", "ErrImagePull: x: not found"),
        (pod(state=waiting("ImagePullBackOff")), "image_pull_failing", "ImagePullBackOff"),
        (pod(state=waiting("InvalidImageName", "bad")), "image_pull_failing", "InvalidImageName: bad"),
        (pod(state=waiting("CreateContainerConfigError", "gone")), "container_not_starting", "gone"),
        (
            pod(state=waiting("CreateContainerConfigError", 'secret "other" not found')),
            "container_not_starting",
            "other",
        ),
        (pod(state=waiting("RunContainerError", "no shim")), "container_not_starting", "no shim"),
    ],
)
def test_waiting_container_has_condition(waits: Pod, code: str, message: str) -> None:
    found = only(conditions(waits))
    assert found.code == code
    assert message in found.message
    assert found.since is not None


REFERRING = job(
    admitted=spec(volumes=("datasets",), secrets=(("HF_TOKEN", "huggingface/token"),)),
    claims={"datasets": "datasets-v2"},
)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ('persistentvolumeclaim "datasets-v2" not found', "claim datasets-v2 of volume datasets does not exist"),
        ("pod has unbound immediate PersistentVolumeClaims", "datasets (claim datasets-v2)"),
        ("1 node(s) didn't match PersistentVolume's node affinity", "datasets (claim datasets-v2)"),
    ],
)
def test_pod_that_waits_for_a_volume_names_volume_and_claim(says: str, message: str) -> None:
    waits = pod(
        node=None, conditions=[unschedulable(f"0/1 nodes are available: {says}. preemption: 0/1 nodes are ...")]
    )
    found = only(conditions(waits, of=REFERRING))
    assert (found.code, found.since) == ("volume_not_ready", moment(2))
    assert message in found.message


def test_failed_mount_is_a_condition_until_the_volume_is_mounted() -> None:
    starting = pod(state=waiting("ContainerCreating"))
    event = warning(starting, "FailedMount", 'MountVolume.SetUp failed for volume "pv-7" : no such host')
    assert only(conditions(starting, of=REFERRING, events=(event,))).code == "volume_not_ready"
    assert only(conditions(starting, events=(event,))).code == "container_not_starting"
    ready = pod(state=waiting("ContainerCreating"), conditions=[condition("PodReadyToStartContainers")])
    assert conditions(ready, of=REFERRING, events=(event,)) == []


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ('secret "huggingface" not found', "Secret huggingface does not exist in namespace runway-vision"),
        (
            "couldn't find key token in Secret runway-vision/huggingface",
            "Secret huggingface in namespace runway-vision",
        ),
    ],
)
def test_missing_secret_or_key_is_a_condition_with_its_name(says: str, message: str) -> None:
    found = only(conditions(pod(state=waiting("CreateContainerConfigError", says)), of=REFERRING))
    assert found.code == "secret_missing"
    assert message in found.message


def test_missing_service_account_tells_to_render_the_tenants() -> None:
    refusal = 'error looking up service account runway-vision/runway-job: serviceaccount "runway-job" not found'
    event = warning(job(), "FailedCreate", f'Error creating: pods "rw-a-x7k2p" is forbidden: {refusal}')
    found = only(conditions(events=(event,)))
    assert found.code == "pod_creation_refused"
    assert "`runway tenants render`" in found.message


NOT_FOUND = waiting("ErrImagePull", "failed to resolve reference: x: not found")


@pytest.mark.parametrize(
    ("pods", "ready", "seconds"),
    [
        ((pod(state=NOT_FOUND),), "True", 300),
        ((pod(state=waiting("ErrImagePull", "dial tcp: i/o timeout")),), "True", 1800),
        ((pod(state=waiting("CreateContainerConfigError", 'configmap "x" not found')),), "True", 600),
        ((pod(node=None, conditions=[unschedulable()]),), "True", None),  # The policy has no limit for this cause.
        ((pod(state=NOT_FOUND),), "False", None),  # The status of the pod may be old.
        ((pod("ran", state=ended(143), conditions=[disrupted()]), pod(created=20, state=NOT_FOUND)), "True", None),
    ],
)
def test_condition_that_keeps_a_job_from_its_first_start_has_the_policys_limit(
    pods: tuple[Pod, ...], ready: str, seconds: int | None
) -> None:
    limits = StartTimeouts(image=300, registry=1800, config=600)
    snapshot = JobSnapshot("vision", job(), pods, nodes={"node-1": node(ready=ready)})
    found = job_view(snapshot, start_timeouts=limits).conditions
    assert [each.start_timeout_seconds for each in found if each.code != "node_unreachable"] == [seconds]


def test_unschedulable_since_is_transition_time() -> None:
    assert only(conditions(pod(created=1, conditions=[unschedulable()]))).since == moment(2)


@pytest.mark.parametrize(
    "found",
    [
        pod(),
        pod(conditions=[condition("PodScheduled")]),
        pod(state=waiting("ContainerCreating")),
        pod(state=waiting("PodInitializing")),
        pod(state=running()),
    ],
)
def test_progressing_pod_has_no_condition(found: Pod) -> None:
    assert conditions(found) == []


def test_job_whose_pod_ended_waits_for_the_job_controller_since_that_end() -> None:
    found = only(conditions(pod(state=ended(finished=40))))
    assert (found.code, found.since) == ("outcome_pending", moment(40))
    assert "kube-controller-manager" in found.message


# Texts of `FitError` of pkg/scheduler/framework/types.go and the plugins' reasons, Kubernetes 1.35 and before.
SCHEDULER: dict[str, tuple[int | None, list[str]]] = {
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: "
    "1 Preemption is not helpful for scheduling.": (1, ["1 has too little free CPU"]),
    "0/5 nodes are available: 1 Insufficient memory, 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node "
    "affinity/selector, 2 node(s) had taints that the pod didn't tolerate. preemption: 0/5 nodes are available: "
    "5 Preemption is not helpful for scheduling.": (
        5,
        [
            "1 has too little free memory",
            "1 has too few free GPUs",
            "2 do not match the node selector",
            "2 have a taint that the pod does not tolerate",
        ],
    ),
    "0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 2 node(s) were "
    "unschedulable.": (
        3,
        ["1 has a taint {node.kubernetes.io/unreachable: } that the pod does not tolerate", "2 are cordoned"],
    ),
    "0/2 nodes are available: 2 Too many pods.": (2, ["2 have the maximum number of pods"]),
    "0/2 nodes are available: 2 Insufficient vendor.example/fpga.": (2, ["2 have too little free vendor.example/fpga"]),
    "0/1 nodes are available: 1 Insufficient ephemeral-storage.": (1, ["1 has too little free disk"]),
    "0/4 nodes are available: 1 node(s) had no available volume zone, 3 node(s) did not have enough free storage.": (
        4,
        ["1 cannot reach a volume", "3 cannot get a volume for a claim"],
    ),
    "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.": (
        1,
        ["1: node(s) didn't have free ports for the requested pod ports"],
    ),
    "0/0 nodes are available: .": (0, []),
    "no nodes available to schedule pods": (None, []),
    "": (None, []),
    "0/9999999999 nodes are available: 1 Insufficient cpu.": (None, []),
    "0/1 nodes are available: " + ", ".join(["1 node(s) were odd"] * 9999): (1, ["1: node(s) were odd"] * 8),
}


@pytest.mark.parametrize("message", SCHEDULER)
def test_scheduler_message_is_translated(message: str) -> None:
    nodes, reasons = parse_fit_error(message)
    assert (nodes, [reason.text for reason in reasons]) == SCHEDULER[message]


def test_unschedulable_message_has_requests_and_free_capacity() -> None:
    room = FreeCapacity(nodes=2, cpu=3500, memory=10 * GI + 12345, gpu=1, gpu_in_all=2)
    starved = pod(node=None, conditions=[unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")],
                  requests=GPU_JOB)  # fmt: skip
    assert only(conditions(starved, room=room)).message == (
        "no node fits the pod: of 2 nodes, 2 have too few free GPUs; the pod requests 4 GPU, 2 CPU and 8Gi of memory; "
        "the most free on one node is 1 GPU, 3.5 CPU and 10Gi of memory (2 GPU on 2 nodes in total)"
    )


@pytest.mark.parametrize(
    ("without", "words"),
    [(0, None), (1, "; 1 of 2 nodes has no GPUs registered"), (2, "; 2 of 2 nodes have no GPUs registered")],
)
def test_nodes_without_registered_gpus_are_named_to_a_job_that_needs_gpus(without: int, words: str | None) -> None:
    room = FreeCapacity(nodes=2, cpu=3500, memory=10 * GI, gpu=0, gpu_in_all=0, without_gpus=without)
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    waits = [pod(node=None, conditions=[unschedulable(message)], requests=asked) for asked in (GPU_JOB, {"cpu": "1"})]
    of_gpu_job, of_cpu_job = (only(conditions(each, room=room)) for each in waits)
    assert of_gpu_job.code == "unschedulable"
    assert of_gpu_job.message.endswith(words) if words else "registered" not in of_gpu_job.message
    assert "registered" not in of_cpu_job.message


def test_free_capacity_omits_gpus_for_job_without_gpus() -> None:
    room = FreeCapacity(nodes=2, cpu=100, memory=GI // 2, gpu=8, gpu_in_all=8)
    starved = pod(node=None, conditions=[unschedulable("0/1 nodes are available: 1 Insufficient cpu.")])
    assert "GPU" not in only(conditions(starved, room=room)).message


def test_message_for_pool_without_ready_node() -> None:
    starved = pod(node=None, conditions=[unschedulable()])
    found = only(conditions(starved, room=FreeCapacity(nodes=0, cpu=0, memory=0, gpu=0, gpu_in_all=0)))
    assert "no node of the pool is ready and schedulable" in found.message


@pytest.mark.parametrize(("ready", "words"), [("Unknown", "does not respond"), ("False", "is not ready")])
@pytest.mark.parametrize("deleted", [None, 90])
def test_lost_node_is_condition_not_failure(ready: str, words: str, deleted: float | None) -> None:
    lost = node(ready=ready, since=40, message="Kubelet stopped posting node status.")
    view = job_view(JobSnapshot("vision", job(), (pod(state=running(), deleted=deleted),), nodes={"node-1": lost}))
    assert (view.state, view.failure) == ("running", None)
    found = view.conditions[0]
    assert (found.code, found.since) == ("node_unreachable", moment(40))
    assert words in found.message
    assert "Kubelet stopped posting" in found.message
    assert [item.code for item in view.conditions[1:]] == ([] if deleted is None else ["terminating"])


@pytest.mark.parametrize("nodes", [(), (node(),), (node("node-2", "Unknown"),)])
def test_ready_or_unknown_node_is_no_condition(nodes: tuple[Node, ...]) -> None:
    assert conditions(pod(state=running()), nodes=nodes) == []


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ("exceeded quota: runway, requested: pods=1, used: pods=9, limited: pods=9", "quota_backstop"),
        ('violates PodSecurity "restricted:latest": privileged', "pod_security_refused"),
        # Recorded on Kubernetes 1.35.4: a LimitRange.
        ("minimum cpu usage per Container is 100m, but request is 50m", "pod_creation_refused"),
    ],
)
def test_rejected_pod_creation_names_the_rejecter(refusal: str, code: str) -> None:
    said = f'Error creating: pods "rw-a-x7k2p" is forbidden: {refusal}'
    found = only(conditions(events=(warning(job(), "FailedCreate", said),)))
    assert found.code == code
    assert found.message.endswith(f": {refusal}")


@pytest.mark.parametrize(
    "failure",
    [
        'Operation cannot be fulfilled on resourcequotas "runway": the object has been modified; please try again',
        'Internal error occurred: failed calling webhook "a.example.com": dial tcp 10.0.0.1:443: connect: refused',
        "etcdserver: request timed out",
        "the server was unable to return a response in the time allotted, but may still be processing the request",
        "the server has received too many requests and has asked us to try again later (post pods)",
    ],
)
def test_failed_pod_creation_is_no_rejection(failure: str) -> None:
    """https://github.com/kubernetes/kubernetes/issues/67761: the Job controller creates the pod a moment later."""
    found = only(conditions(events=(warning(job(), "FailedCreate", f"Error creating: {failure}"),)))
    assert found.code == "pod_creation_failed"
    assert found.message == f"the API server fails to create the pod: {failure}"


def test_rejected_pod_creation_is_reported_beside_retry() -> None:
    retried = job(admitted=spec(retries=1))
    refused = warning(retried, "FailedCreate", "Error creating: exceeded quota: runway", at=95)
    old = warning(retried, "FailedCreate", "Error creating: exceeded quota: runway", at=0)
    failed = pod(state=ended(1, finished=90))
    assert [item.code for item in conditions(failed, of=retried, events=(refused,))] == ["retrying", "quota_backstop"]
    assert [item.code for item in conditions(failed, of=retried, events=(old,))] == ["retrying"]
    assert [item.code for item in conditions(failed, pod("b"), of=retried, events=(refused,))] == []


def test_events_of_other_objects_are_ignored() -> None:
    other = replace_uid(warning(job(), "FailedCreate", "Error creating: exceeded quota: runway"))
    assert only(conditions(events=(other,))).code == "pod_not_created"


def test_sandbox_warning_is_ignored_once_sandbox_is_ready() -> None:
    failing = pod(state=waiting("ContainerCreating"), conditions=[condition("PodReadyToStartContainers", "False")])
    event = warning(failing, "FailedCreatePodSandBox", "no address")
    found = only(conditions(failing, events=(event,)))
    assert (found.code, found.message) == ("container_not_starting", "node node-1 cannot set up the pod: no address")
    ready = pod(state=waiting("ContainerCreating"), conditions=[condition("PodReadyToStartContainers")])
    assert conditions(ready, events=(event,)) == []


def test_old_pull_warning_is_ignored_once_image_is_pulled() -> None:
    pulled = pod(state=waiting("ContainerCreating"))
    assert conditions(pulled, events=(warning(pulled, "Failed", "Failed to pull image: not found"),)) == []


def test_retrying_message_has_cause_of_last_attempt() -> None:
    found = only(conditions(pod(state=ended(3, finished=50)), of=job(admitted=spec(retries=1))))
    assert (found.code, found.since) == ("retrying", moment(50))
    assert found.message == (
        "attempt 1 failed: the process exited with code 3; "
        "after a failed attempt Kubernetes waits 10s, so the next one is due at 08:01:00 UTC"
    )
    drained = only(conditions(pod(state=ended(143), conditions=[disrupted()])))
    assert "evicted from node node-1 through the eviction API" in drained.message


def test_suspended_job_has_condition() -> None:
    suspended = job(suspend=True, conditions=[condition("Suspended", since=7)])
    found = only(conditions(of=suspended))
    assert (found.code, found.since) == ("suspended", moment(7))


def test_hostile_text_is_bounded_and_escaped() -> None:
    bad = "\x1b[2J\u202e\r\n" * 50_000
    for found in (
        conditions(pod(state=waiting("ErrImagePull", bad))),
        conditions(pod(node=None, conditions=[unschedulable("0/1 nodes are available: 1 " + bad)])),
        conditions(events=(warning(job(), "FailedCreate", bad),)),
        conditions(pod(state=running()), nodes=(node(ready="Unknown", message=bad),)),
    ):
        assert only(found).message.isprintable()
        assert len(only(found).message) <= 1000


def test_every_condition_has_a_meaning() -> None:
    assert all(code.meaning for code in ConditionCode)


def replace_uid(event: Event) -> Event:
    return Event(
        event.metadata,
        type(event.involved_object)("Job", uid="uid-of-an-older-job"),
        reason=event.reason,
        message=event.message,
    )


@pytest.mark.parametrize(
    ("failures", "wait", "due"), [(2, "20s", "08:01:50"), (4, "1m20s", "08:02:50"), (9, "10m", "08:11:30")]
)
def test_next_attempt_is_due_after_a_back_off_that_doubles(failures: int, wait: str, due: str) -> None:
    pods = [pod(f"p{number}", created=number, state=ended(1)) for number in range(failures)]
    (found,) = conditions(*pods, of=job(admitted=spec(retries=10)))
    assert (
        f"after {failures} failed attempts Kubernetes waits {wait}, so the next one is due at {due} UTC"
        in found.message
    )
    assert "timeout" not in found.message


def test_next_attempt_that_is_due_after_the_deadline_says_so() -> None:
    (found,) = conditions(pod(state=ended(1)), of=job(admitted=spec(retries=1), started=10, deadline=85))
    assert found.message.endswith("is due at 08:01:40 UTC, past the job's timeout")
