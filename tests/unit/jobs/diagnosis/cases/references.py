"""Diagnosis cases: volumes and Secrets that keep a job from starting until its deadline."""

from __future__ import annotations

from tests.support.builders import condition, job, spec, unschedulable, waiting, warning
from tests.support.diagnosis_case import INFRA, POLICY, USER, C, DiagnosisCase, overdue

SECRETS = (("HF_TOKEN", "huggingface/token"), ("HF_USER", "huggingface/user"), ("WANDB_API_KEY", "wandb/key"))
LATE = job(
    outcome="Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline",
    conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)],
    admitted=spec(timeout_seconds=60, volumes=("datasets", "checkpoints"), secrets=SECRETS), started=10, deadline=60,
    claims={"datasets": "datasets-v2", "checkpoints": "checkpoints"},
)  # fmt: skip
_PREEMPTION = " preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
_CREATING = [condition("PodReadyToStartContainers", "False")]


def _of_scheduler(
    code: C, category: object, message: str, says: str, *, retryable: bool = True, **more: object
) -> DiagnosisCase:
    unplaced = overdue(node=None, conditions=[unschedulable(says + _PREEMPTION)])
    return DiagnosisCase(code, category, retryable, message, [unplaced], job=LATE, **more)  # type: ignore[arg-type]


REFERENCES: dict[str, DiagnosisCase] = {
    # K8S pkg/scheduler/framework/plugins/volumebinding/volume_binding.go: podHasPVCs.
    "claim does not exist": _of_scheduler(
        C.VOLUME_MISSING, POLICY, "claim datasets-v2 of volume datasets does not exist",
        '0/3 nodes are available: persistentvolumeclaim "datasets-v2" not found.', retryable=False,
        evidence={"claim": "datasets-v2", "volumes": "datasets", "scheduler_reason": "Unschedulable"},
    ),
    "claim is being deleted": _of_scheduler(
        C.VOLUME_MISSING, POLICY, "claim checkpoints of volume checkpoints does not exist, or is being deleted",
        '0/3 nodes are available: persistentvolumeclaim "checkpoints" is being deleted.', retryable=False,
    ),
    "claim of another webhook does not exist": _of_scheduler(
        C.VOLUME_MISSING, POLICY, "claim injected does not exist",
        '0/3 nodes are available: persistentvolumeclaim "injected" not found.', retryable=False,
    ),
    "claim has lost its volume": _of_scheduler(
        C.VOLUME_NOT_BOUND, INFRA, "claim datasets-v2 of volume datasets has lost its PersistentVolume",
        '0/3 nodes are available: persistentvolumeclaim "datasets-v2" bound to non-existent persistentvolume "pv-7".',
    ),
    "claim is not bound": _of_scheduler(
        C.VOLUME_NOT_BOUND, INFRA,
        "has no PersistentVolume: datasets (claim datasets-v2), checkpoints (claim checkpoints)",
        "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", hint="why the claim is not bound",
    ),
    # K8S pkg/scheduler/framework/plugins/volumebinding/binder.go.
    "no volume for a claim that waits for its consumer": _of_scheduler(
        C.VOLUME_NOT_BOUND, INFRA, "has no PersistentVolume",
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't find available persistent "
        "volumes to bind.",
    ),
    "volume in another zone": _of_scheduler(
        C.VOLUME_ZONE_CONFLICT, INFRA, "no suitable node can reach the job's volumes: datasets (claim datasets-v2)",
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't match "
        "PersistentVolume's node affinity.",
        evidence={"volumes": "datasets (claim datasets-v2), checkpoints (claim checkpoints)"}, hint="zone",
    ),
    # The reason of earlier versions.
    "volume in another zone, earlier version": _of_scheduler(
        C.VOLUME_ZONE_CONFLICT, INFRA, "no suitable node can reach",
        "0/3 nodes are available: 1 node(s) had volume node affinity conflict, 2 node(s) were unschedulable.",
    ),
    "no GPU in the zone of the volume": _of_scheduler(
        C.UNSCHEDULABLE, INFRA, "1 cannot reach a volume, 2 have too few free GPUs",
        "0/3 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, "
        "2 Insufficient nvidia.com/gpu.",
    ),
    # K8S pkg/scheduler/framework/plugins/volumerestrictions/volume_restrictions.go.
    "volume in use by another job": _of_scheduler(
        C.UNSCHEDULABLE, INFRA, "3 cannot mount a volume that another pod uses",
        "0/3 nodes are available: 3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
        "already in-use by another pod.",
        hint="when no other job uses the volume",
    ),
    # K8S pkg/volume/util/operationexecutor/operation_generator.go.
    "volume not mounted": DiagnosisCase(
        C.VOLUME_MOUNT_FAILED, INFRA, True, "node node-1 cannot mount the job's volumes (datasets (claim datasets-v2)",
        [overdue(waiting("ContainerCreating"), conditions=_CREATING)], job=LATE,
        events=[warning(overdue(), "FailedMount", 'MountVolume.SetUp failed for volume "pv-7" : mount failed: exit '
            "status 32")],
        evidence={"event_reason": "FailedMount"},
    ),
    # K8S pkg/controller/volume/attachdetach/reconciler/reconciler.go: reportMultiAttachError.
    "volume attached to another node": DiagnosisCase(
        C.VOLUME_MOUNT_FAILED, INFRA, True, "Multi-Attach error",
        [overdue(waiting("ContainerCreating"), conditions=_CREATING)], job=LATE,
        events=[warning(overdue(), "FailedAttachVolume", 'Multi-Attach error for volume "pvc-1f" Volume is already '
            "used by pod(s) rw-bbbbbbbbbbbbbbbbbbbb-x7k2p")],
        hint="when no job on another node uses the volume",
    ),
    # K8S pkg/kubelet/kubelet_pods.go: makeEnvironmentVariables.
    "Secret does not exist": DiagnosisCase(
        C.SECRET_MISSING, USER, False, "Secret huggingface does not exist in namespace runway-vision",
        [overdue(waiting("CreateContainerConfigError", 'secret "huggingface" not found'))], job=LATE,
        evidence={"secret": "huggingface", "variables": "HF_TOKEN, HF_USER"},  # pragma: allowlist secret
        hint="create the Secret",
    ),
    "Secret has no such key": DiagnosisCase(
        C.SECRET_MISSING, USER, False, "Secret wandb in namespace runway-vision has no key key",
        [overdue(waiting("CreateContainerConfigError", "couldn't find key key in Secret runway-vision/wandb"))],
        job=LATE, evidence={"secret": "wandb", "key": "key"},  # pragma: allowlist secret
    ),
    "Secret does not exist, pod terminating": DiagnosisCase(
        C.SECRET_MISSING, USER, False, "Secret wandb does not exist",
        [overdue(waiting("ContainerCreating"))], job=LATE,
        events=[warning(overdue(), "Failed", 'Error: secret "wandb" not found')], evidence={"event_reason": "Failed"},
    ),
    "Secret that the job does not name": DiagnosisCase(
        C.CONTAINER_CONFIG_ERROR, INFRA, True, 'secret "injected" not found',
        [overdue(waiting("CreateContainerConfigError", 'secret "injected" not found'))], job=LATE,
    ),
    # K8S plugin/pkg/admission/serviceaccount/admission.go.
    "no service account": DiagnosisCase(
        C.POD_CREATION_REFUSED, POLICY, False, "the output of `runway tenants render` is not applied", job=LATE,
        events=[warning(LATE, "FailedCreate", 'Error creating: pods "rw-aaaaaaaaaaaaaaaaaaaa-" is forbidden: error '
            'looking up service account runway-vision/runway-job: serviceaccount "runway-job" not found')],
        hint="render and apply the tenants",
    ),
}  # fmt: skip
