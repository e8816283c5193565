"""Diagnosis of a pod that does not start or was never created. Pure.

Precedence, first match wins:

1. The scheduler finds no node for the pod (condition PodScheduled is False): "0/3 nodes are available: ...". If only
   volumes are the reason, the code is that of the volume.
2. The container waits for its image (ErrImagePull and similar): by the registry's message.
3. The kubelet cannot resolve the container's configuration (CreateContainerConfigError), such as a missing Secret.
4. The runtime does not create or start the container (CreateContainerError, RunContainerError, a failed hook).
5. The newest warning on the pod, if the state does not explain it: a sandbox or a volume that cannot be set up.
   In a terminating pod the kubelet overwrites the waiting reason with ContainerCreating, so the warnings decide.

`FitError.Error` of `pkg/scheduler/framework/types.go` writes a count and a reason for each kind of rejection. Older
versions name the taint. A node can count under several reasons.
https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/#my-pod-stays-pending

The reasons of a container are those of `pkg/kubelet/images/types.go` and `pkg/kubelet/kuberuntime` of Kubernetes 1.35.
https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_exit import diagnose_start_error, memory_limit, was_never_created
from runway.jobs.diagnosis.other_containers import waiting_other
from runway.jobs.diagnosis.references import IN_USE, REASONS, diagnose_claims, diagnose_mount, diagnose_secret
from runway.jobs.diagnosis.scaling import scaling_of
from runway.jobs.resources import ResourceVector, requests_of
from runway.jobs.snapshot import FreeCapacity, JobSnapshot
from runway.kube.objects import GPU_RESOURCE, Event, Pod
from runway.text import amounts_in_words, bounded, one_line

_MAX_REASONS: Final = 8

_NODES: Final = re.compile(r"0/(?P<nodes>\d{1,6}) nodes are available: ?")
_END: Final = re.compile(r"\. (?=preemption: |no new claims|[A-Z0-9])|\.$")
_REASON: Final = re.compile(r"(?P<count>\d{1,6}) (?P<reason>.+)", re.DOTALL)
_BETWEEN: Final = re.compile(r", (?=\d{1,6} )")

_EXHAUSTED: Final = {
    f"Insufficient {GPU_RESOURCE}": ("GPU", "too few free GPUs"),
    "Insufficient cpu": ("CPU", "too little free CPU"),
    "Insufficient memory": ("memory", "too little free memory"),
    "Insufficient ephemeral-storage": ("disk", "too little free disk"),
    "Too many pods": ("pods", "the maximum number of pods"),
}
_PULL: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError",
     "RegistryUnavailable", "SignatureValidationFailed"}
)  # fmt: skip
_NOT_CREATED: Final = frozenset(
    {"CreateContainerError", "RunContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError"}
)
IN_PROGRESS: Final = frozenset({None, "", "ContainerCreating", "PodInitializing"})
_MOUNT_EVENTS: Final = frozenset({"FailedMount", "FailedAttachVolume"})
_FAILED_CALL: Final = (
    "Operation cannot be fulfilled",  # 409 Conflict: someone changed the ResourceQuota at the same moment.
    "Internal error occurred",  # 500, as for a webhook that does not respond.
    "etcdserver: ",
    "the server was unable to return a response in the time allotted",
    "the server is currently unable to handle the request",
    "the server has received too many requests",
    "context deadline exceeded",
    "connection refused",
)
"""A call that failed, in the words of a FailedCreate event. The Job controller makes it again.

https://github.com/kubernetes/kubernetes/issues/67761
https://github.com/kubernetes/apimachinery/blob/v0.35.0/pkg/api/errors/errors.go
"""
_SANDBOX_EVENTS: Final = _MOUNT_EVENTS | {"FailedCreatePodSandBox", "NetworkNotReady"}
_IMAGE_EVENTS: Final = frozenset({"InspectFailed", "ErrImageNeverPull"})
_NO_ACCOUNT: Final = "error looking up service account"
_FROM_RUNTIME: Final = re.compile(r"OCI runtime|containerd|failed to start container|deadline exceeded|container name")

# Order matters: for a private repository Docker Hub answers "pull access denied, repository does not exist".
_REGISTRY: Final = (
    (re.compile(r"access denied|\bdenied: |unauthorized|authorization failed|authentication required|no basic auth"
                r"|401 Unauthorized|403 Forbidden", re.IGNORECASE),
     FailureCode.IMAGE_ACCESS_DENIED, "the registry denies access to the image or has no such repository"),
    (re.compile(r"toomanyrequests|429 Too Many|500 Internal|502 Bad|503 Service|504 Gateway|no such host|dial tcp"
                r"|i/o timeout|connection re(?:fused|set)|TLS handshake|x509|deadline exceeded|registry is unavailable"
                r"|server misbehaving|network is unreachable|HTTP response to HTTPS client", re.IGNORECASE),
     FailureCode.REGISTRY_UNAVAILABLE, "the registry is unreachable, failing or rate limiting"),
    (re.compile(r"failed to resolve.*: not found|manifest unknown|name unknown|no match for platform"
                r"|no matching manifest|404 Not Found",
                re.IGNORECASE | re.DOTALL),
     FailureCode.IMAGE_NOT_FOUND, "the registry has no such image"),
)  # fmt: skip
_NO_GPUS_HINT: Final = (
    "ask the platform operators to check the GPU device plugin, because no node of the pool has GPUs registered"
)
_QUOTED: Final = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class UnschedulableReason:
    """Why the scheduler rejected some nodes. `kind` is the exhausted resource or the kind of rejection."""

    kind: str
    text: str


def parse_fit_error(message: str) -> tuple[int | None, tuple[UnschedulableReason, ...]]:
    """Return the number of nodes considered and the reasons for rejection; None and () for any other message."""
    text = bounded(message)
    head = _NODES.match(text)
    if head is None:
        return None, ()
    sentence = _END.split(text[head.end() :], maxsplit=1)[0]
    parts = [_REASON.fullmatch(part) for part in _BETWEEN.split(sentence)[:_MAX_REASONS]]
    reasons = tuple(_parse_reason(int(part["count"]), part["reason"]) for part in parts if part is not None)
    return int(head["nodes"]), reasons


def unschedulable(snapshot: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Diagnose a pod without a node, with its requests and the free capacity; None if the scheduler reports nothing."""
    scheduled = pod.condition("PodScheduled")
    if scheduled is None or scheduled.status != "False":
        return None
    text = scheduled.message or scheduled.reason or ""
    nodes, reasons = parse_fit_error(text)
    evidence = {"scheduler_reason": one_line(scheduled.reason), "scheduler_message": one_line(text)}
    volume = diagnose_claims(snapshot.job, bounded(text), {reason.kind for reason in reasons})
    if volume is not None:
        return _with_evidence(volume, evidence)
    message = f"no node fits the pod: {_summary(nodes, reasons) or one_line(text) or 'no reason given'}"
    spec = pod.spec if pod.spec.containers else snapshot.job.spec.template.spec
    requests: ResourceVector | None = None
    with suppress(ValueError):
        requests = requests_of(spec)
    if requests is not None:
        message += f"; the pod requests {amounts_in_words(requests.gpu or None, requests.cpu, requests.memory)}"
    free, gpus, hint = snapshot.free_capacity, requests is None or requests.gpu > 0, _hint(reasons)
    if free is not None:
        evidence["room"] = _free(free, gpus=gpus)
        message += f"; {evidence['room']}"
        hint = _NO_GPUS_HINT if gpus and 0 < free.nodes == free.without_gpus else hint
    scaling = scaling_of(snapshot, pod)
    if scaling is not None:
        evidence["autoscaler"] = scaling.message
    return Diagnosis(FailureCode.UNSCHEDULABLE, message, evidence, scaling.hint if scaling else hint)


def _parse_reason(count: int, reason: str) -> UnschedulableReason:
    one = count == 1
    has = f"{count} {'has' if one else 'have'}"
    if known := _EXHAUSTED.get(reason):
        return UnschedulableReason(known[0], f"{has} {known[1]}")
    if about_volume := REASONS.get(reason):
        return UnschedulableReason(about_volume[0], f"{count} {about_volume[1]}")
    if reason.startswith("Insufficient "):
        resource = one_line(reason.removeprefix("Insufficient "), 80)
        return UnschedulableReason(resource, f"{has} too little free {resource}")
    if "affinity/selector" in reason:
        return UnschedulableReason("node selector", f"{count} {'does' if one else 'do'} not match the node selector")
    if "taint" in reason:
        taint = re.search(r"\{[^}]{1,120}\}", reason)
        named = f" {one_line(taint.group(), 120)}" if taint else ""
        return UnschedulableReason("taint", f"{has} a taint{named} that the pod does not tolerate")
    if reason == "node(s) were unschedulable":
        return UnschedulableReason("cordon", f"{count} {'is' if one else 'are'} cordoned")
    return UnschedulableReason("other", f"{count}: {one_line(reason, 120)}")


def _summary(nodes: int | None, reasons: Sequence[UnschedulableReason]) -> str:
    if nodes is None or not reasons:
        return ""
    return f"of {nodes} {'node' if nodes == 1 else 'nodes'}, {', '.join(reason.text for reason in reasons)}"


def _free(capacity: FreeCapacity, *, gpus: bool) -> str:
    if capacity.nodes == 0:
        return "no node of the pool is ready and schedulable"
    free = amounts_in_words(capacity.gpu if gpus else None, capacity.cpu, capacity.memory)
    total = f" ({capacity.gpu_in_all} GPU on {capacity.nodes} nodes in total)" if gpus and capacity.nodes > 1 else ""
    text = f"the most free on one node is {free}{total}"
    if gpus and (without := capacity.without_gpus):
        text += f"; {without} of {capacity.nodes} nodes {'has' if without == 1 else 'have'} no GPUs registered"
    return text


def _hint(reasons: Sequence[UnschedulableReason]) -> str | None:
    kinds = list(dict.fromkeys(reason.kind for reason in reasons))
    if short := [kind for kind in kinds if kind in ("GPU", "CPU", "memory", "disk")]:
        less = " and ".join(short)
        return f"resubmit the job with a longer timeout_seconds, which includes waiting, or request less {less}"
    if IN_USE in kinds:
        return "resubmit the job when no other job uses the volume"
    if kinds and "pods" not in kinds:
        return "contact the platform operators, because no node of the pool accepts the pod whatever it requests"
    return None


def diagnose_container_start(snapshot: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Diagnose why this pod does not start; None if it starts, runs or ran."""
    if (finding := unschedulable(snapshot, pod)) is not None:
        return finding
    waiting, ended = pod.container.waiting, pod.container.terminated
    if waiting is not None and waiting.reason not in IN_PROGRESS:
        reason, message = waiting.reason or "", bounded(waiting.message or "")
        evidence = {"waiting_reason": one_line(reason), "waiting_message": one_line(message)}
        if reason in _PULL or reason == "InvalidImageName":
            return _diagnose_image(reason, message, evidence)
        return _diagnose_container(snapshot, reason, message, evidence)
    if (finding := waiting_other(pod, IN_PROGRESS)) is not None:
        return finding
    if pod.container.running is not None or (ended is not None and not was_never_created(ended)):
        return None
    findings = (_diagnose_event(snapshot, pod, event) for event in reversed(snapshot.events_on(pod)))
    return next((finding for finding in findings if finding is not None), None)


def diagnose_pod_creation(snapshot: JobSnapshot, after: datetime | None = None) -> Diagnosis | None:
    """Diagnose why Kubernetes creates no pod for the Job, from its newest warning since `after`; None without one.

    https://kubernetes.io/docs/concepts/policy/resource-quotas/
    https://kubernetes.io/docs/concepts/security/pod-security-admission/
    """
    events = reversed(snapshot.events_on(snapshot.job))
    event = next((event for event in events if event.reason == "FailedCreate"), None)
    if event is None or (after is not None and (event.last_seen or after) < after):
        return None
    message = event.message or ""
    if any(words in message for words in _FAILED_CALL):
        words = one_line(message.removeprefix("Error creating: "))
        return Diagnosis(
            FailureCode.POD_CREATION_FAILED, f"the API server fails to create the pod: {words}", _evidence(event)
        )
    code, rejecter = FailureCode.POD_CREATION_REFUSED, "Kubernetes"
    if "exceeded quota" in message or "failed quota" in message:
        code, rejecter = FailureCode.QUOTA_BACKSTOP, "the namespace's ResourceQuota"
    elif "violates PodSecurity" in message:
        code, rejecter = FailureCode.POD_SECURITY_REFUSED, "the namespace's Pod Security level"
    words = one_line(message.split("is forbidden: ", 1)[-1].removeprefix("Error creating: "))
    if _NO_ACCOUNT in message:
        text = f"{words}: the output of `runway tenants render` is not applied"
        return Diagnosis(code, text, _evidence(event), "ask the platform operators to render and apply the tenants")
    return Diagnosis(code, f"{rejecter} rejects the pod: {words}", _evidence(event))


def _diagnose_event(snapshot: JobSnapshot, pod: Pod, event: Event) -> Diagnosis | None:
    """Diagnose a kubelet warning on a pod that does not run; None if it no longer applies or explains nothing."""
    message, evidence = bounded(event.message or ""), _evidence(event)
    if event.reason in _SANDBOX_EVENTS:
        ready = pod.condition("PodReadyToStartContainers")
        if ready is not None and ready.status == "True":
            return None
        if event.reason in _MOUNT_EVENTS and snapshot.job.claims:
            return _with_evidence(diagnose_mount(snapshot.job, pod, event), evidence)
        words = f"node {pod.spec.node_name} cannot set up the pod: {one_line(message)}"
        return Diagnosis(FailureCode.SANDBOX_FAILED, words, evidence)
    if pod.metadata.deletion_timestamp is None and not snapshot.has_ended(pod):
        return None  # The container's waiting state is the better source.
    if event.reason in _IMAGE_EVENTS:
        return _diagnose_image("InvalidImageName" if "image tag" in message else event.reason or "", message, evidence)
    if event.reason != "Failed":
        return None
    if message.startswith("Failed to pull image"):
        return _diagnose_image("ErrImagePull", message, evidence)
    message = message.removeprefix("Error: ")
    if message in _PULL or message == "InvalidImageName":
        return None  # An earlier warning has the details.
    reason = "CreateContainerError" if _FROM_RUNTIME.search(message) else "CreateContainerConfigError"
    return _diagnose_container(snapshot, reason, message, evidence)


def _diagnose_container(snapshot: JobSnapshot, reason: str, message: str, evidence: dict[str, str]) -> Diagnosis:
    if (secret := diagnose_secret(snapshot.job, message)) is not None:
        return _with_evidence(secret, evidence)
    if reason in _NOT_CREATED:
        return diagnose_start_error(message or reason, evidence, memory_limit(snapshot.job))
    code, meaning = FailureCode.CONTAINER_CONFIG_ERROR, "the kubelet cannot create the container"
    if "runAsNonRoot" in message:
        code, meaning = FailureCode.IMAGE_RUNS_AS_ROOT, "the image would run as root"
    return Diagnosis(code, f"{meaning}: {_join(reason, message)}", evidence)


def _diagnose_image(reason: str, message: str, evidence: dict[str, str]) -> Diagnosis:
    code, meaning = FailureCode.IMAGE_PULL_FAILED, "the node cannot pull the image"
    if reason == "InvalidImageName":
        code, meaning = FailureCode.IMAGE_NAME_INVALID, "the image name is invalid"
    elif reason == "ErrImageNeverPull":
        meaning = "the pull policy forbids pulling the image"
    else:
        unquoted = _QUOTED.sub('""', message)  # An image name may contain any of the phrases.
        matches = ((code, meaning) for pattern, code, meaning in _REGISTRY if pattern.search(unquoted))
        code, meaning = next(matches, (code, meaning))
    return Diagnosis(code, f"{meaning}: {_join(reason, message)}", evidence)


def _join(reason: str, message: str) -> str:
    return f"{one_line(reason, 80)}: {one_line(message)}" if message else one_line(reason, 80)


def _with_evidence(finding: Diagnosis, evidence: dict[str, str]) -> Diagnosis:
    return replace(finding, evidence={**evidence, **finding.evidence})


def _evidence(event: Event) -> dict[str, str]:
    return {"event_reason": one_line(event.reason), "event_message": one_line(event.message)}
