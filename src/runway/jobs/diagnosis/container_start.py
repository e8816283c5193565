"""Why a pod does not run yet, or was never created. Pure.

Precedence, first match wins:

1. No node takes the pod (condition PodScheduled is False).
2. The container waits for its image (ErrImagePull and its like): by what the registry says.
3. The container's settings cannot be worked out (CreateContainerConfigError).
4. The runtime does not create or start the container (CreateContainerError, RunContainerError, a failed hook).
5. The node's newest warning on the pod, where the state alone does not say: the sandbox or a volume cannot be set up;
   and once a pod was told to end, the kubelet writes ContainerCreating over what its container waited for.

The reasons are those of `pkg/kubelet/images/types.go` and `pkg/kubelet/kuberuntime` of Kubernetes 1.35.
https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_exit import never_seen, not_started
from runway.jobs.diagnosis.scheduling import unschedulable
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Event, Pod, Waiting
from runway.text import bounded, one_line

_PULL: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError",
     "RegistryUnavailable", "SignatureValidationFailed"}
)  # fmt: skip
_NOT_CREATED: Final = frozenset(
    {"CreateContainerError", "RunContainerError", "PreCreateHookError", "PreStartHookError", "PostStartHookError"}
)
_IN_PROGRESS: Final = frozenset({None, "", "ContainerCreating", "PodInitializing"})
_SANDBOX_EVENTS: Final = frozenset({"FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume", "NetworkNotReady"})
_IMAGE_EVENTS: Final = frozenset({"InspectFailed", "ErrImageNeverPull"})
_FROM_RUNTIME: Final = re.compile(r"OCI runtime|containerd|failed to start container|deadline exceeded|container name")

# The order matters: Docker Hub says "pull access denied, repository does not exist" for what it will not tell.
_REGISTRY: Final = (
    (
        re.compile(
            r"access denied|unauthorized|authorization failed|authentication required|no basic auth"
            r"|401 Unauthorized|403 Forbidden",
            re.IGNORECASE,
        ),
        FailureCode.IMAGE_ACCESS_DENIED,
        "the registry does not let the node pull the image, or has no such repository",
    ),
    (
        re.compile(
            r"toomanyrequests|429 Too Many|500 Internal|502 Bad|503 Service|504 Gateway|no such host|dial tcp"
            r"|i/o timeout|connection re(?:fused|set)|TLS handshake|x509|deadline exceeded|registry is unavailable"
            r"|server misbehaving|network is unreachable|HTTP response to HTTPS client",
            re.IGNORECASE,
        ),
        FailureCode.REGISTRY_UNAVAILABLE,
        "the registry could not be reached or refused for now",
    ),
    (
        re.compile(
            r"failed to resolve.*: not found|manifest unknown|name unknown|no match for platform|404 Not Found",
            re.IGNORECASE | re.DOTALL,
        ),
        FailureCode.IMAGE_NOT_FOUND,
        "the registry has no such image",
    ),
)
_QUOTED: Final = re.compile(r'"[^"]*"')


def diagnose_container_start(case: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Why this pod does not run; None where it runs, has run, or is on its way."""
    if (finding := unschedulable(case, pod)) is not None:
        return finding
    waiting = pod.container.waiting
    if waiting is not None and waiting.reason not in _IN_PROGRESS:
        return _waiting(case, waiting)
    ended = pod.container.terminated
    if pod.container.running is not None or (ended is not None and not never_seen(ended)):
        return None
    for event in reversed(case.events_on(pod)):
        if (finding := _from_event(case, pod, event)) is not None:
            return finding
    return None


def diagnose_pod_creation(case: JobSnapshot, after: datetime | None = None) -> Diagnosis | None:
    """Why Kubernetes does not create a pod for the Job, told by its newest warning since `after`; None where it does.

    https://kubernetes.io/docs/concepts/policy/resource-quotas/
    https://kubernetes.io/docs/concepts/security/pod-security-admission/
    """
    event = next((event for event in reversed(case.events_on(case.job)) if event.reason == "FailedCreate"), None)
    if event is None or (after is not None and (event.last_seen or after) < after):
        return None
    said = event.message or ""
    words = one_line(said.split("is forbidden: ", 1)[-1].removeprefix("Error creating: "))
    if "exceeded quota" in said or "failed quota" in said:
        message = f"the namespace's ResourceQuota refuses the pod: {words}"
        return Diagnosis(FailureCode.QUOTA_BACKSTOP, message, _evidence(event))
    if "violates PodSecurity" in said:
        message = f"the namespace's Pod Security level refuses the pod: {words}"
        return Diagnosis(FailureCode.POD_SECURITY_REFUSED, message, _evidence(event))
    return Diagnosis(FailureCode.POD_CREATION_REFUSED, f"Kubernetes refuses the pod: {words}", _evidence(event))


def _from_event(case: JobSnapshot, pod: Pod, event: Event) -> Diagnosis | None:
    """What a warning of the kubelet's says of a pod that does not run; None where that is over, or nothing new."""
    said, evidence = bounded(event.message or ""), _evidence(event)
    if event.reason in _SANDBOX_EVENTS:
        ready = pod.condition("PodReadyToStartContainers")
        if ready is not None and ready.status == "True":
            return None
        words = f"node {pod.spec.node_name} cannot set the pod up: {one_line(said)}"
        return Diagnosis(FailureCode.SANDBOX_FAILED, words, evidence)
    if pod.metadata.deletion_timestamp is None and not case.has_ended(pod):
        return None  # Its own state says what it waits for.
    if event.reason in _IMAGE_EVENTS:
        return _image("InvalidImageName" if "image tag" in said else event.reason or "", said, evidence)
    if event.reason != "Failed":
        return None
    if said.startswith("Failed to pull image"):
        return _image("ErrImagePull", said, evidence)
    words = said.removeprefix("Error: ")
    if words in _PULL or words == "InvalidImageName":
        return None  # The warning before it says why.
    reason = "CreateContainerError" if _FROM_RUNTIME.search(words) else "CreateContainerConfigError"
    return _container(case, reason, words, evidence)


def _waiting(case: JobSnapshot, waiting: Waiting) -> Diagnosis:
    reason, said = waiting.reason or "", bounded(waiting.message or "")
    evidence = {"waiting_reason": one_line(reason), "waiting_message": one_line(said)}
    if reason in _PULL or reason == "InvalidImageName":
        return _image(reason, said, evidence)
    return _container(case, reason, said, evidence)


def _container(case: JobSnapshot, reason: str, said: str, evidence: dict[str, str]) -> Diagnosis:
    if reason in _NOT_CREATED:
        spec = spec_of(case.job)
        return not_started(said or reason, evidence, spec.resources.memory if spec else None)
    words = f"{one_line(reason, 80)}: {one_line(said)}" if said else one_line(reason, 80)
    if "runAsNonRoot" in said:
        return Diagnosis(FailureCode.IMAGE_RUNS_AS_ROOT, f"the image would run as root: {words}", evidence)
    return Diagnosis(FailureCode.CONTAINER_CONFIG_ERROR, f"the container cannot be created: {words}", evidence)


def _image(reason: str, said: str, evidence: dict[str, str]) -> Diagnosis:
    words = f"{one_line(reason, 80)}: {one_line(said)}" if said else one_line(reason, 80)
    if reason == "InvalidImageName":
        return Diagnosis(FailureCode.IMAGE_NAME_INVALID, f"the image's name cannot be read: {words}", evidence)
    if reason == "ErrImageNeverPull":
        return Diagnosis(FailureCode.IMAGE_PULL_FAILED, f"the node may not pull the image: {words}", evidence)
    unquoted = _QUOTED.sub('""', said)  # An image may be called what it likes.
    for pattern, code, meaning in _REGISTRY:
        if pattern.search(unquoted):
            return Diagnosis(code, f"{meaning}: {words}", evidence)
    return Diagnosis(FailureCode.IMAGE_PULL_FAILED, f"the image cannot be pulled: {words}", evidence)


def _evidence(event: Event) -> dict[str, str]:
    return {"event_reason": one_line(event.reason), "event_message": one_line(event.message)}
