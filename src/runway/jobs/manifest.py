"""Build the Kubernetes Job of an admitted specification: its name and manifest.

The caller sets nothing of a pod's security. Every manifest satisfies Pod Security "restricted":
https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec

from runway.jobs.annotations import (
    ANNOTATION_COST,
    ANNOTATION_SPEC,
    ANNOTATION_SPEC_HASH,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_TENANT,
    MANAGED_BY,
)
from runway.jobs.models import CostView
from runway.jobs.spec import AdmittedSpec
from runway.kube.objects import CONTAINER, GPU_RESOURCE
from runway.policy import Limits, Pool
from runway.quantity import format_bytes, format_cpu

DO_NOT_EVICT_ANNOTATIONS: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""An autoscaler that removes a node to save money would restart its jobs, so it must not. The job's deadline bounds the
protection. `kubectl drain` and spot interruptions ignore it.

https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md#what-types-of-pods-can-prevent-ca-from-removing-a-node
https://karpenter.sh/docs/concepts/disruption/#pod-level-controls
"""
USER_ID: Final = 1000  # The user and group of every job: not root, which is the default of images that set none.


_canonical = msgspec.json.Encoder(order="sorted")


def job_id(tenant: str, key: str) -> str:
    """Return the Job's name: `rw-` and 100 bits of a hash of tenant and key, as 20 letters of base32.

    The same tenant and key give the same name, so Kubernetes itself rejects the second create. A pod's name adds six
    characters and stays within the 63 of a DNS label.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
    """
    digest = hashlib.sha256(f"{tenant}\0{key}".encode()).digest()
    return "rw-" + base64.b32encode(digest[:15]).decode().lower()[:20]


def spec_hash(spec: AdmittedSpec) -> str:
    """Hash an admitted specification. Equal specifications have equal hashes, `2.5` and `2.50` USD included."""
    cap = None if spec.max_cost_usd is None else f"{spec.max_cost_usd.normalize():f}"
    return hashlib.sha256(canonical_json({**spec.to_json(), "max_cost_usd": cap}).encode()).hexdigest()


def canonical_json(document: object) -> str:
    """Encode JSON with sorted keys and no spaces: equal values give equal texts."""
    return _canonical.encode(document).decode()


@dataclass(frozen=True, slots=True)
class Placement:
    """The parts of a manifest that are not in the specification: name, tenant, pool and price."""

    job_id: str
    tenant: str
    namespace: str
    pool: Pool
    cost: CostView
    """The price at admission, stored on the Job because the policy may change."""


def job_manifest(spec: AdmittedSpec, placement: Placement, limits: Limits) -> dict[str, object]:
    """Build the `batch/v1` Job to create.

    - `activeDeadlineSeconds` bounds the whole life of the Job, retries and waiting included, and beats `backoffLimit`:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
    - `podFailurePolicy` does not count disruptions (eviction, preemption, drain) against the retries:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    - `podReplacementPolicy: Failed` starts the next attempt only after the last pod is terminal, so a job never uses
      more than it was admitted for:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-replacement-policy
    """
    labels = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_JOB: placement.job_id, LABEL_TENANT: placement.tenant}
    if spec.name is not None:
        labels[LABEL_NAME] = spec.name
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


def _pod_spec(spec: AdmittedSpec, placement: Placement, limits: Limits) -> dict[str, object]:
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


def _container(spec: AdmittedSpec, placement: Placement, limits: Limits) -> dict[str, object]:
    resources = {
        "cpu": format_cpu(spec.resources.cpu),
        "memory": format_bytes(spec.resources.memory),
        "ephemeral-storage": format_bytes(limits.ephemeral_storage.per_job),
    }
    if spec.resources.gpu:
        resources[GPU_RESOURCE] = str(spec.resources.gpu)
    env = [*spec.env, ("RUNWAY_JOB_ID", placement.job_id), ("RUNWAY_TENANT", placement.tenant)]
    container: dict[str, object] = {
        "name": CONTAINER,
        "image": spec.image,
        "env": [{"name": name, "value": escape_expansion(value)} for name, value in env],
        "resources": {"requests": resources, "limits": resources},
        # The pod's status then has the last lines of the log, so a diagnosis can quote them without the log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]}},
    }
    if spec.command:
        container["command"] = [escape_expansion(part) for part in spec.command]
    if spec.args:
        container["args"] = [escape_expansion(part) for part in spec.args]
    return container


def escape_expansion(text: str) -> str:
    """Escape text that must reach the process unchanged: Kubernetes expands `$(VAR)` and reads `$$` as `$`.

    https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    """
    return text.replace("$", "$$")
