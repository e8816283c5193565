"""Diagnosis of volumes and Secrets that keep a pod from starting. Pure.

The messages are those of `pkg/scheduler/framework/plugins/volumebinding`, of `pkg/kubelet/kubelet_pods.go`
(makeEnvironmentVariables) and of `pkg/controller/volume/attachdetach` of Kubernetes 1.35.
https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.kube.objects import Event, Job, Pod
from runway.text import one_line

ZONE: Final = "volume zone"
BINDING: Final = "volume binding"
IN_USE: Final = "volume in use"
REASONS: Final = {
    "node(s) didn't match PersistentVolume's node affinity": (ZONE, "cannot reach a volume"),
    "node(s) had volume node affinity conflict": (ZONE, "cannot reach a volume"),
    "node(s) had no available volume zone": (ZONE, "cannot reach a volume"),
    "node(s) didn't find available persistent volumes to bind": (BINDING, "cannot get a volume for a claim"),
    "node(s) did not have enough free storage": (BINDING, "cannot get a volume for a claim"),
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod":
        (IN_USE, "cannot mount a volume that another pod uses"),
}  # fmt: skip
"""The scheduler's reasons that concern volumes: their kind, and what the node cannot do."""
WHATEVER_IS_FREE: Final = frozenset({ZONE, BINDING, "node selector", "taint", "cordon"})
"""Kinds of rejection that free capacity does not change."""

_MISSING: Final = re.compile(r'persistentvolumeclaim "(?P<claim>[^"]{1,253})" (?:not found|is being deleted)')
_LOST: Final = re.compile(r'persistentvolumeclaim "(?P<claim>[^"]{1,253})" bound to non-existent persistentvolume')
_UNBOUND: Final = re.compile(
    r"pod has unbound immediate PersistentVolumeClaims|pvc\(s\) bound to non-existent pv|binding volumes: "
)
_MULTI_ATTACH: Final = "Multi-Attach error"
_NO_SECRET: Final = re.compile(r'secrets? "(?P<secret>[^"]{1,253})" not found')
_NO_KEY: Final = re.compile(r"couldn't find key (?P<key>\S{1,253}) in Secret [^\s/]{1,63}/(?P<secret>\S{1,253})")


def diagnose_claims(job: Job, message: str, kinds: Collection[str]) -> Diagnosis | None:
    """Diagnose a pod that the scheduler rejects for its volumes; None if it rejects it for something else, too.

    `kinds` are the kinds of the rejections in the scheduler's message.
    """
    if (missing := _MISSING.search(message)) is not None:
        return _of_claim(job, FailureCode.VOLUME_MISSING, missing["claim"], "does not exist, or is being deleted")
    if (lost := _LOST.search(message)) is not None:
        return _of_claim(job, FailureCode.VOLUME_NOT_BOUND, lost["claim"], "has lost its PersistentVolume")
    volumes = _volumes_of(job)
    if _UNBOUND.search(message) or (BINDING in kinds and WHATEVER_IS_FREE.issuperset(kinds)):
        text = f"a claim of the job has no PersistentVolume: {volumes}"
        return Diagnosis(FailureCode.VOLUME_NOT_BOUND, text, {"volumes": volumes})
    if ZONE in kinds and WHATEVER_IS_FREE.issuperset(kinds):
        text = f"no suitable node can reach the job's volumes: {volumes}"
        return Diagnosis(FailureCode.VOLUME_ZONE_CONFLICT, text, {"volumes": volumes})
    return None


def diagnose_mount(job: Job, pod: Pod, event: Event) -> Diagnosis:
    """Diagnose a warning of a failed attachment or mount, on a pod with claims."""
    volumes = _volumes_of(job)
    text = f"node {pod.spec.node_name} cannot mount the job's volumes ({volumes}): {one_line(event.message)}"
    hint = "resubmit the job when no job on another node uses the volume" if _is_multi_attach(event) else None
    return Diagnosis(FailureCode.VOLUME_MOUNT_FAILED, text, {"volumes": volumes}, hint)


def diagnose_secret(job: Job, message: str) -> Diagnosis | None:
    """Diagnose the kubelet's message about a Secret or key that does not exist; None unless the job refers to it."""
    found = _NO_KEY.fullmatch(message) or _NO_SECRET.fullmatch(message)
    spec = spec_of(job)
    if found is None or spec is None:
        return None
    secret, key = found["secret"], found.groupdict().get("key")
    variables = [
        variable
        for variable, reference in sorted(spec.secrets.items())
        if reference == f"{secret}/{key}" or (key is None and reference.startswith(f"{secret}/"))
    ]
    if not variables:
        return None
    evidence = {"secret": one_line(secret), "variables": one_line(", ".join(variables))}
    if key is None:
        text = f"Secret {evidence['secret']} does not exist in namespace {job.metadata.namespace}"
    else:
        evidence["key"] = one_line(key)
        text = f"Secret {evidence['secret']} in namespace {job.metadata.namespace} has no key {evidence['key']}"
    return Diagnosis(FailureCode.SECRET_MISSING, text, evidence)


def _of_claim(job: Job, code: FailureCode, claim: str, what: str) -> Diagnosis:
    claim = one_line(claim)
    named = ", ".join(name for name, known in job.claims.items() if known == claim)
    evidence = {"claim": claim} | ({"volumes": one_line(named)} if named else {})
    volume = f" of volume {evidence['volumes']}" if named else ""
    return Diagnosis(code, f"claim {claim}{volume} {what}", evidence)


def _volumes_of(job: Job) -> str:
    return one_line(", ".join(f"{name} (claim {claim})" for name, claim in job.claims.items())) or "unknown"


def _is_multi_attach(event: Event) -> bool:
    return _MULTI_ATTACH in (event.message or "")
