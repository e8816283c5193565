"""The Kubernetes Job of an admitted specification: harmless by construction.

Nothing of a pod's security is the caller's to say. Every manifest keeps Pod Security "restricted":
https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runway.jobs.identity import (
    ANNOTATION_COST,
    ANNOTATION_SPEC,
    ANNOTATION_SPEC_HASH,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_TENANT,
    MANAGED_BY,
    canonical_json,
    spec_hash,
)
from runway.jobs.spec import JobSpec
from runway.kube.objects import CONTAINER
from runway.policy import Limits, Pool
from runway.quantity import format_bytes, format_cpu

GPU_RESOURCE: Final = "nvidia.com/gpu"
DO_NOT_EVICT_ANNOTATIONS: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""No node is taken away to save money while a job runs on it, which would have to begin again; the job's deadline
bounds how long it can object. A drain with kubectl is not held up, nor a spot interruption.

https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md#what-types-of-pods-can-prevent-ca-from-removing-a-node
https://karpenter.sh/docs/concepts/disruption/#pod-level-controls
"""
USER_ID: Final = 1000
"""The user and group a job runs as: any but root; images that set none would run as root otherwise."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job goes and under what name: everything of the manifest that is not in its specification."""

    job_id: str
    tenant: str
    namespace: str
    pool: Pool
    cost: dict[str, object]
    """The price as it was when the job was admitted, kept on the Job since the policy may change."""


def job_manifest(spec: JobSpec, placement: Placement, limits: Limits) -> dict[str, object]:
    """The `batch/v1` Job to create.

    - `activeDeadlineSeconds` bounds the whole life of the Job, retries and waiting included, and beats `backoffLimit`:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
    - `podFailurePolicy` does not count disruptions (eviction, preemption, drain) against the retries:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    - `podReplacementPolicy: Failed` starts the next attempt only when the last pod has really ended, so that a job
      never holds twice what it was admitted for:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-replacement-policy
    """
    labels = _labels(spec, placement)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": placement.job_id,
            "namespace": placement.namespace,
            "labels": labels,
            "annotations": {
                ANNOTATION_SPEC: canonical_json(spec.to_json()),
                ANNOTATION_SPEC_HASH: spec_hash(spec),
                ANNOTATION_COST: canonical_json(placement.cost),
            },
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": spec.retries,
            "activeDeadlineSeconds": spec.timeout_seconds,
            "ttlSecondsAfterFinished": limits.retention_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": dict(DO_NOT_EVICT_ANNOTATIONS)},
                "spec": _pod_spec(spec, placement, limits),
            },
        },
    }


def _labels(spec: JobSpec, placement: Placement) -> dict[str, str]:
    labels = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_JOB: placement.job_id, LABEL_TENANT: placement.tenant}
    return labels if spec.name is None else {**labels, LABEL_NAME: spec.name}


def _pod_spec(spec: JobSpec, placement: Placement, limits: Limits) -> dict[str, object]:
    pod: dict[str, object] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": spec.grace_period_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, placement, limits)],
    }
    if placement.pool.node_selector:
        pod["nodeSelector"] = dict(placement.pool.node_selector)
    if placement.pool.tolerations:
        pod["tolerations"] = [item.model_dump(exclude_none=True) for item in placement.pool.tolerations]
    return pod


def _container(spec: JobSpec, placement: Placement, limits: Limits) -> dict[str, object]:
    resources = _resources(spec, limits)
    env = [*spec.env, ("RUNWAY_JOB_ID", placement.job_id), ("RUNWAY_TENANT", placement.tenant)]
    container: dict[str, object] = {
        "name": CONTAINER,
        "image": spec.image,
        "env": [{"name": name, "value": escape_expansion(value)} for name, value in env],
        "resources": {"requests": resources, "limits": resources},
        # The last lines of the log stand in the pod's status, so a verdict can quote them when the log is gone.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]}},
    }
    if spec.command:
        container["command"] = [escape_expansion(part) for part in spec.command]
    if spec.args:
        container["args"] = [escape_expansion(part) for part in spec.args]
    return container


def _resources(spec: JobSpec, limits: Limits) -> dict[str, str]:
    amounts = {
        "cpu": format_cpu(spec.resources.cpu),
        "memory": format_bytes(spec.resources.memory),
        "ephemeral-storage": format_bytes(limits.ephemeral_storage.per_job),
    }
    return {**amounts, GPU_RESOURCE: str(spec.resources.gpu)} if spec.resources.gpu else amounts


def escape_expansion(text: str) -> str:
    """Text that reaches the process as it is: Kubernetes expands `$(VAR)`, and reads `$$` as one dollar sign.

    https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    """
    return text.replace("$", "$$")
