"""Build the Kubernetes Job of an admitted specification: its name and manifest.

The caller sets nothing of a pod's security. Every manifest satisfies Pod Security "restricted":
https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from runway.jobs.annotations import (
    ANNOTATION_COST,
    ANNOTATION_REQUEST_HASH,
    ANNOTATION_SPEC,
    ANNOTATION_SPEC_HASH,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_POOL,
    LABEL_TENANT,
    MANAGED_BY,
)
from runway.jobs.models import CostView
from runway.jobs.spec import AdmittedSpec
from runway.kube.objects import CLAIM_VOLUME_PREFIX, CONTAINER, GPU_RESOURCE, VOLUME_SCRATCH, VOLUME_SHARED_MEMORY, Job
from runway.policy import Limits, Pool, TenantVolume
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
PACKING_WEIGHT: Final = 100  # Kubernetes' maximum. The scheduler scales the sums to 0 to 100 before it adds scores.
INFRASTRUCTURE_RETRIES: Final = 3
"""Attempts that replace a pod that never ran, in a job without retries, such as one that its node rejected."""
POD_DEADLINE_SECONDS: Final = 60
"""Time after which the kubelet ends a pod that has outlived the job's timeout and its grace period."""
SERVICE_ACCOUNT: Final = "runway-job"  # `runway tenants render` makes it in each tenant's namespace.
GROUP_ID: Final = 1000  # The group of every job's process and volumes, whatever its user.
SCRATCH: Final = "/scratch"
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 (a mount point of the container)
USER_NAME: Final = "job"
MIB: Final = 1024**2
MAX_NUMEXPR_THREADS: Final = 64  # The import of numexpr fails if its threads or those of OpenMP are more.


_canonical = msgspec.json.Encoder(order="sorted")


def job_id(tenant: str, key: str) -> str:
    """Return the Job's name: `rw-` and 100 bits of a hash of tenant and key, as 20 letters of base32.

    The same tenant and key give the same name, so Kubernetes itself rejects the second create. A pod's name adds six
    characters and stays within the 63 of a DNS label.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
    """
    digest = hashlib.sha256(f"{tenant}\0{key}".encode()).digest()
    return "rw-" + base64.b32encode(digest[:15]).decode().lower()[:20]


def keyed_job_id(tenant: str, idempotency_key: str) -> str:
    """Return the name of the Job under an idempotency key."""
    # A space separates keys from random tokens, which have none.
    return job_id(tenant, f"key {idempotency_key}")


def spec_hash_0_7(spec: AdmittedSpec) -> str:
    """Hash an admitted specification as version 0.7 does, so that 0.7 recognises the job after a roll back.

    It covers the fields that 0.7 knows and no later one. Later versions compare `request_hash`.
    """
    resources = spec.resources
    document = {
        "name": spec.name,
        "image": spec.image,
        "command": spec.command,
        "args": spec.args,
        "env": dict(spec.env),
        "resources": {
            "cpu": format_cpu(resources.cpu),
            "memory": format_bytes(resources.memory),
            "gpu": resources.gpu,
            "gpu_type": resources.gpu_type,
        },
        "timeout_seconds": spec.timeout_seconds,
        "retries": spec.retries,
        "grace_period_seconds": spec.grace_period_seconds,
        "max_cost_usd": None if spec.max_cost_usd is None else f"{spec.max_cost_usd.normalize():f}",
    }
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def canonical_json(document: object) -> str:
    """Encode JSON with sorted keys and no spaces: equal values give equal texts."""
    return _canonical.encode(document).decode()


@dataclass(frozen=True, slots=True)
class Placement:
    """The parts of a manifest that are not in the specification: name, tenant, request, pool, price and volumes."""

    job_id: str
    tenant: str
    namespace: str
    request_hash: str
    """The hash of the request as the caller sent it (`runway.jobs.idempotency`)."""
    pool: Pool
    cost: CostView
    """The price at admission, stored on the Job because the policy may change."""
    volumes: Mapping[str, TenantVolume] = field(default_factory=dict)


def job_manifest(spec: AdmittedSpec, placement: Placement, limits: Limits) -> dict[str, object]:
    """Build the `batch/v1` Job to create.

    - `activeDeadlineSeconds` bounds the whole life of the Job, retries and waiting included, and beats `backoffLimit`:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
    - That of the pod is later. The kubelet enforces it on a pod whose Job was deleted without it, or which no Job
      controller can reach, so that neither uses GPUs forever.
    - `podFailurePolicy` does not count disruptions (eviction, preemption, drain) against the retries. Without retries,
      a container that exits with another code than 0 fails the Job at once, and `backoffLimit` bounds the pods that
      never ran. With retries, both share `backoffLimit`:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    - `podReplacementPolicy: Failed` starts the next attempt only after the last pod is terminal, so a job never uses
      more than it was admitted for:
      https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-replacement-policy
    """
    labels = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_JOB: placement.job_id, LABEL_TENANT: placement.tenant}
    if spec.name is not None:
        labels[LABEL_NAME] = spec.name
    if spec.pool is not None:
        labels[LABEL_POOL] = spec.pool
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": placement.job_id,
            "namespace": placement.namespace,
            "labels": labels,
            "annotations": {
                ANNOTATION_SPEC: canonical_json(spec.to_json()),
                ANNOTATION_SPEC_HASH: spec_hash_0_7(spec),
                ANNOTATION_REQUEST_HASH: placement.request_hash,
                ANNOTATION_COST: canonical_json(placement.cost),
            },
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": spec.retries or INFRASTRUCTURE_RETRIES,
            "activeDeadlineSeconds": spec.timeout_seconds,
            "ttlSecondsAfterFinished": limits.retention_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [_IGNORE_DISRUPTIONS] if spec.retries else [_IGNORE_DISRUPTIONS, _FAIL_ON_EXIT]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": dict(DO_NOT_EVICT_ANNOTATIONS)},
                "spec": _pod_spec(spec, placement),
            },
        },
    }


_IGNORE_DISRUPTIONS: Final = {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}
_FAIL_ON_EXIT: Final = {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}}
"""Applies to all containers of the pod, because no container is named."""


def deadline_patch(job: Job, annotation: str, value: str) -> dict[str, object]:
    """Build the merge patch that ends this version of a Job now and records the reason in an annotation.

    docs/decisions/007-cancel-by-deadline.md explains the deadline of zero, and why a suspended Job is resumed.
    """
    metadata = {"resourceVersion": job.metadata.resource_version, "annotations": {annotation: value}}
    resume = {"suspend": False} if job.spec.suspend else {}
    return {"metadata": metadata, "spec": {"activeDeadlineSeconds": 0, **resume}}


def _pod_spec(spec: AdmittedSpec, placement: Placement) -> dict[str, object]:
    """Build the pod. Its main process is not PID 1, so that it ends on SIGTERM without a handler for it.

    The root file system stays writable: an image's programs write to /tmp and other places of their own, and the
    limit of local disk bounds that.
    https://kubernetes.io/docs/tasks/configure-pod-container/share-process-namespace/
    """
    pod: dict[str, object] = {
        "serviceAccountName": SERVICE_ACCOUNT,
        "restartPolicy": "Never",
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": spec.grace_period_seconds,
        "activeDeadlineSeconds": spec.timeout_seconds + spec.grace_period_seconds + POD_DEADLINE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": spec.user,
            "runAsGroup": GROUP_ID,
            "fsGroup": GROUP_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, placement)],
        "volumes": [
            {"name": VOLUME_SCRATCH, "emptyDir": {"sizeLimit": format_bytes(spec.resources.disk)}},
            {
                "name": VOLUME_SHARED_MEMORY,
                "emptyDir": {"medium": "Memory", "sizeLimit": format_bytes(_whole_mib(spec.resources.shared_memory))},
            },
            *_claims(spec.volumes, placement.volumes),
        ],
    }
    if placement.pool.node_selector:
        pod["nodeSelector"] = dict(placement.pool.node_selector)
    if placement.pool.tolerations:
        pod["tolerations"] = [item.model_dump(exclude_none=True) for item in placement.pool.tolerations]
    if placement.pool.gpu and spec.pool is not None:
        pod["affinity"] = _pack(spec.pool)
    return pod


def _pack(pool: str) -> dict[str, object]:
    """Prefer nodes with pods of the same GPU pool, so that whole nodes stay free for large jobs.

    The scheduler otherwise prefers the emptiest node, and EKS cannot configure its scoring. A preference never keeps
    a pod waiting. It costs the scheduler a look at every pod of the pool, so pools without GPUs have none.
    docs/decisions/012-packing.md has the effect.
    https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
    """
    term = {
        "labelSelector": {"matchLabels": {LABEL_POOL: pool}},
        "namespaceSelector": {"matchExpressions": [{"key": LABEL_TENANT, "operator": "Exists"}]},
        "topologyKey": "kubernetes.io/hostname",
    }
    preference = {"weight": PACKING_WEIGHT, "podAffinityTerm": term}
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}


def _container(spec: AdmittedSpec, placement: Placement) -> dict[str, object]:
    resources = {
        "cpu": format_cpu(spec.resources.cpu),
        "memory": format_bytes(spec.resources.memory),
        "ephemeral-storage": format_bytes(spec.resources.disk),
    }
    if spec.resources.gpu:
        resources[GPU_RESOURCE] = str(spec.resources.gpu)
    env = [*spec.env, *_default_env(spec), ("RUNWAY_JOB_ID", placement.job_id), ("RUNWAY_TENANT", placement.tenant)]
    container: dict[str, object] = {
        "name": CONTAINER,
        "image": spec.image,
        "env": [
            *({"name": name, "value": escape_expansion(value)} for name, value in env),
            *({"name": name, "valueFrom": _secret_key(reference)} for name, reference in spec.secrets),
        ],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [
            {"name": VOLUME_SCRATCH, "mountPath": SCRATCH},
            {"name": VOLUME_SHARED_MEMORY, "mountPath": SHARED_MEMORY},
            *_mounts(spec.volumes, placement.volumes),
        ],
        # The pod's status then has the last lines of the log, so a diagnosis can quote them without the log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False, "capabilities": {"drop": ["ALL"]}},
    }
    if spec.command:
        container["command"] = [escape_expansion(part) for part in spec.command]
    if spec.args:
        container["args"] = [escape_expansion(part) for part in spec.args]
    if spec.working_dir is not None:
        container["workingDir"] = spec.working_dir  # Kubernetes does not expand it.
    return container


def _claims(names: Sequence[str], volumes: Mapping[str, TenantVolume]) -> list[dict[str, object]]:
    """Return a pod volume for each claim, writable if one of its volumes is."""
    by_pod_volume: dict[str, list[TenantVolume]] = {}
    for name, pod_volume in _pod_volumes(names, volumes).items():
        by_pod_volume.setdefault(pod_volume, []).append(volumes[name])
    return [
        {
            "name": pod_volume,
            "persistentVolumeClaim": {
                "claimName": mounted[0].claim,
                "readOnly": all(volume.read_only for volume in mounted),
            },
        }
        for pod_volume, mounted in by_pod_volume.items()
    ]


def _mounts(names: Sequence[str], volumes: Mapping[str, TenantVolume]) -> list[dict[str, object]]:
    return [
        {"name": pod_volume, "mountPath": volumes[name].path, "readOnly": volumes[name].read_only}
        for name, pod_volume in _pod_volumes(names, volumes).items()
    ]


def _pod_volumes(names: Sequence[str], volumes: Mapping[str, TenantVolume]) -> dict[str, str]:
    """Return the pod's volume for each name. Two volumes of one claim share one.

    The kubelet may never start a pod with two volumes of one claim: https://github.com/kubernetes/kubernetes/issues/132921
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(volumes[name].claim, f"{CLAIM_VOLUME_PREFIX}{name}")
    return {name: first[volumes[name].claim] for name in names}


def _secret_key(reference: str) -> dict[str, object]:
    secret, _, key = reference.partition("/")
    return {"secretKeyRef": {"name": secret, "key": key}}


def _whole_mib(size: int) -> int:
    """Round up: the kubelet would evict a job that fills the last page of a volume with a part of a page."""
    return -(-size // MIB) * MIB


def _default_env(spec: AdmittedSpec) -> list[tuple[str, str]]:
    """Return the variables that the job has unless its specification sets them.

    The user has no entry in the image's /etc/passwd, so programs read its name and home from the environment. Numeric
    libraries would start a thread for each CPU of the node, and the CPU limit would throttle them.
    """
    given = {name for name, _ in (*spec.env, *spec.secrets)}
    cpus = -(-spec.resources.cpu // 1000)
    defaults = {"HOME": SCRATCH, "USER": USER_NAME, "LOGNAME": USER_NAME, "PYTHON_CPU_COUNT": str(cpus)}
    if "OMP_NUM_THREADS" not in given:  # These libraries follow it, so their own variables would override the caller.
        defaults |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(cpus))
        defaults["NUMEXPR_NUM_THREADS"] = str(min(cpus, MAX_NUMEXPR_THREADS))
    return [(name, value) for name, value in defaults.items() if name not in given]


def escape_expansion(text: str) -> str:
    """Escape text that must reach the process unchanged: Kubernetes expands `$(VAR)` and reads `$$` as `$`.

    https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    """
    return text.replace("$", "$$")
