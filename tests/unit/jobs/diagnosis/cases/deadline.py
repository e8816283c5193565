"""Diagnosis cases: jobs that reached their deadline."""

from __future__ import annotations

from tests.support.builders import Json, condition, disrupted, ended, job, pod, running, unschedulable, waiting, warning
from tests.support.diagnosis_case import (
    DEADLINE,
    INFRA,
    POLICY,
    RUNWAY,
    USER,
    C,
    DiagnosisCase,
    ended_by_start_deadline,
    overdue,
    rejected,
)

EPOCH = -1795507200  # The kubelet writes 1970 for an unknown time; in seconds after START.
_GPU_QUOTA = (
    'Error creating: pods "rw-aaaaaaaaaaaaaaaaaaaa-x7k2p" is forbidden: exceeded quota: runway, '
    "requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
)

OWN_DEADLINE = "Pod was active on the node longer than the specified deadline"
# Pod garbage collection fails a deleted pod that has no node: K8S pkg/controller/podgc/gc_controller.go.
UNSCHEDULED: Json = {
    "node": None, "conditions": [unschedulable()], "phase": "Failed", "deleted": 70, "grace": 0,
}  # fmt: skip

DEADLINES: dict[str, DiagnosisCase] = {
    # A terminating pod reports ContainerCreating again, and its events can be gone: the annotation has the cause.
    "start deadline of an image": DiagnosisCase(
        C.IMAGE_NOT_FOUND, USER, False,
        "Runway ended the job because it had not started for 300 s: the registry has no such image",
        [overdue(waiting("ContainerCreating"))], job=ended_by_start_deadline(),
        hint="check the image's name and tag",
        evidence={
            "cause": "image_not_found", "since": "2026-11-24T08:00:05+00:00", "limit": "image", "limit_seconds": "300",
            "job_reason": "DeadlineExceeded",
        },
    ),
    "start deadline, pod never seen": DiagnosisCase(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "had not started for 1800 s",
        job=ended_by_start_deadline(limit="registry", seconds=1800, cause="registry_unavailable"),
    ),
    "start deadline of a pod without a node": DiagnosisCase(
        C.UNSCHEDULABLE, INFRA, True, "had not started for 900 s: no node fits", [pod(**UNSCHEDULED)],
        job=ended_by_start_deadline(limit="unschedulable", seconds=900, cause="unschedulable", message="no node fits"),
        hint="resubmit the job when nodes are free",
    ),
    "the job's own start deadline during a pull": DiagnosisCase(
        C.START_TIMEOUT, INFRA, True, "did not start within its start_timeout_seconds of 60 s",
        [overdue(waiting("ContainerCreating"))],
        job=ended_by_start_deadline(limit="job", seconds=60, cause="start_timeout", message=""),
        hint="raise start_timeout_seconds above 60",
    ),
    "a container started at the moment of the start deadline": DiagnosisCase(
        C.START_TIMEOUT, INFRA, True,
        "at the moment when its container started, because it had not started for 300 s: the registry has no such "
        "image: ErrImagePull: not found; the process ended on SIGTERM",
        [overdue(ended(143, finished=72))], job=ended_by_start_deadline(),
        hint="it can start now", evidence={"cause": "image_not_found", "limit_seconds": "300"},
    ),
    "a container started and succeeded at the moment of the start deadline": DiagnosisCase(
        C.START_TIMEOUT, INFRA, True, "at the moment when its container started",
        [pod(state=ended(0, started=69, finished=70))], job=ended_by_start_deadline(),
    ),
    "SIGTERM exits with 143": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "timeout of 60 s and was terminated; the process ended on SIGTERM",
        [overdue(ended(143, finished=71))], job=DEADLINE,
        hint="above 60", evidence={"job_reason": "DeadlineExceeded", "exit_code": "143", "timeout_seconds": "60"},
    ),
    "the kubelet ended the pod at its own deadline, as the Job controller did not": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "timeout of 60 s and was terminated; the process ended on SIGTERM",
        [pod(state=ended(143, finished=220), reason="DeadlineExceeded", message=OWN_DEADLINE)], job=DEADLINE,
    ),
    "the same, and the Job controller then saw the exit code first": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "timeout of 3600 s and was terminated; the process ended on SIGTERM",
        [pod(state=ended(143, finished=220), reason="DeadlineExceeded", message=OWN_DEADLINE)],
        job=job(outcome="Failed", reason="PodFailurePolicy"),
    ),
    "SIGTERM handled, exit code 0": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "exited with code 0 within its grace period",
        [overdue(ended(0, finished=75))], job=DEADLINE,
    ),
    "SIGTERM handled, exit code 1": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "exited with code 1", [overdue(ended(1, finished=75))], job=DEADLINE,
    ),
    "SIGTERM ignored": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "did not exit on SIGTERM and was killed after its grace period of 30 s",
        [overdue(ended(137, finished=100))], job=DEADLINE,
        hint="handle SIGTERM", evidence={"grace_period": "overrun", "grace_period_seconds": "30"},
    ),
    "killed within the grace period": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "the process ended on SIGKILL",
        [overdue(ended(137, finished=80))], job=DEADLINE,
    ),
    "pod deleted, exit not seen": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "was terminated", [overdue(running(), name="a")], job=DEADLINE, gone=["a"],
    ),
    "between two attempts": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "between two attempts: the process exited with code 3",
        [pod(state=ended(3, finished=20))], job=DEADLINE,
    ),
    "between two attempts, pods deleted with the Job since": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "between two attempts: the process exited with code 3",
        [pod(state=ended(3, finished=20), deleted=900, grace=0)], job=DEADLINE,
    ),
    "second attempt not scheduled": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "between two attempts: no node fits the pod",
        [pod("a", state=ended(3)), pod("b", **UNSCHEDULED)],
        job=DEADLINE,
    ),
    "never scheduled": DiagnosisCase(
        C.UNSCHEDULABLE, INFRA, True,
        "before it could run: no node fits the pod: of 1 node, 1 has too few free GPUs",
        [pod(**UNSCHEDULED)], job=DEADLINE,
        hint="request less GPU", evidence={"job_reason": "DeadlineExceeded"},
    ),
    # Recorded on Kubernetes 1.35.4 with containerd 1.6: a terminating pod reports ContainerCreating again.
    "image pull failed, pod terminating": DiagnosisCase(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "lookup runway.local: no such host",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[
            warning(overdue(), "Failed", 'Failed to pull image "runway.local/nosuch:1": failed to pull and unpack '
                'image "runway.local/nosuch:1": failed to resolve reference "runway.local/nosuch:1": failed to do '
                'request: Head "https://runway.local/v2/nosuch/manifests/1": dial tcp: lookup runway.local: no such '
                "host"),
            warning(overdue(), "Failed", "Error: ErrImagePull"),
            warning(overdue(), "MissingClusterDNS", "kubelet does not have ClusterDNS IP configured"),
            warning(overdue(), "Failed", "Error: ImagePullBackOff"),
        ],
        evidence={"event_reason": "Failed", "job_reason": "DeadlineExceeded"},
    ),
    # Recorded likewise, after the pod's deletion.
    "image pull failed, exit invented by the kubelet": DiagnosisCase(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "lookup runway.local: no such host",
        [overdue(ended(137, "ContainerStatusUnknown", started=EPOCH, finished=EPOCH))], job=DEADLINE,
        events=[
            warning(overdue(), "Failed", 'Failed to pull image "runway.local/nosuch:1": dial tcp: lookup runway.local: '
                "no such host"),
            warning(overdue(), "Failed", "Error: ImagePullBackOff"),
        ],
    ),
    # Recorded likewise.
    "invalid image name, pod terminating": DiagnosisCase(
        C.IMAGE_NAME_INVALID, USER, False, "must be lowercase",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[
            warning(overdue(), "InspectFailed", 'Failed to apply default image tag "runway.local/UPPER:1": couldn\'t '
                'parse image name "runway.local/UPPER:1": invalid reference format: repository name (UPPER) must be '
                "lowercase"),
            warning(overdue(), "Failed", "Error: InvalidImageName"),
        ],
    ),
    # Recorded likewise, for a pod with a group and no user.
    "sandbox failed, pod terminating": DiagnosisCase(
        C.SANDBOX_FAILED, INFRA, True, "is specified without user",
        [overdue(waiting("ContainerCreating"), conditions=[condition("PodReadyToStartContainers", "False")])],
        job=DEADLINE,
        events=[warning(overdue(), "FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown "
            "desc = failed to generate sanbdox container spec options: failed to generate user string: user group "
            '"1000" is specified without user')],
    ),
    # K8S pkg/kubelet/kuberuntime/kuberuntime_container.go: startContainer prefixes the message with "Error: ".
    "container creation failed, pod terminating": DiagnosisCase(
        C.RUNTIME_FAILED, INFRA, True, "context deadline exceeded",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "Failed", "Error: context deadline exceeded")],
    ),
    "image runs as root, pod terminating": DiagnosisCase(
        C.IMAGE_RUNS_AS_ROOT, USER, False, "would run as root",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "Failed",
            'Error: container has runAsNonRoot and image will run as root (pod: "a_b(0d6c)", container: job)')],
    ),
    "image pull forbidden, pod terminating": DiagnosisCase(
        C.IMAGE_PULL_FAILED, INFRA, True, "pull policy forbids",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "ErrImageNeverPull",
            'Container image "a:1" is not present with pull policy of Never')],
    ),
    "pod deleted while the watch was down": DiagnosisCase(
        C.UNSCHEDULABLE, INFRA, True, "before it could run", [pod("a", node=None, conditions=[unschedulable()])],
        job=DEADLINE, gone=["a"],
    ),
    # https://github.com/forcedotcom/salesforcedx-docker/issues/35
    "no such image": DiagnosisCase(
        C.IMAGE_NOT_FOUND, USER, False, "before it could run: the registry has no such image",
        [overdue(waiting("ImagePullBackOff", 'Back-off pulling image "salesforce/salesforcedx": ErrImagePull: rpc '
            "error: code = NotFound desc = failed to pull and unpack image "
            '"docker.io/salesforce/salesforcedx:latest": failed to resolve reference '
            '"docker.io/salesforce/salesforcedx:latest": docker.io/salesforce/salesforcedx:latest: not found'))],
        job=DEADLINE, evidence={"waiting_reason": "ImagePullBackOff"},
    ),
    # https://github.com/containerd/containerd/issues/11103
    "no access to the image": DiagnosisCase(
        C.IMAGE_ACCESS_DENIED, USER, False, "denies access to the image",
        [overdue(waiting("ErrImagePull", 'failed to pull and unpack image "reg.example/a:1": failed to resolve '
            'reference "reg.example/a:1": pull access denied, repository does not exist or may require authorization: '
            "authorization failed: no basic auth credentials"))],
        job=DEADLINE,
    ),
    # https://docs.docker.com/build/building/multi-platform/
    "image of another architecture": DiagnosisCase(
        C.IMAGE_NOT_FOUND, USER, False, "no match for platform in manifest",
        [overdue(waiting("ErrImagePull", "rpc error: code = NotFound desc = failed to pull and unpack image "
            '"docker.io/team/train:1": no match for platform in manifest: not found'))],
        job=DEADLINE, hint="docker build --platform linux/amd64",
    ),
    # https://distribution.github.io/distribution/spec/api/#errors-2
    "registry that denies without a status": DiagnosisCase(
        C.IMAGE_ACCESS_DENIED, USER, False, "denies access to the image",
        [overdue(waiting("ErrImagePull", "denied: requested access to the resource is denied"))], job=DEADLINE,
    ),
    # https://github.com/containerd/containerd/issues/4231
    "no such registry": DiagnosisCase(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "the registry is unreachable",
        [overdue(waiting("ErrImagePull", 'failed to pull and unpack image "comp.local/a:1": failed to resolve '
            'reference "comp.local/a:1": failed to do request: Head "https://comp.local/v2/a/manifests/1": dial '
            "tcp: lookup comp.local: no such host"))],
        job=DEADLINE,
    ),
    # https://github.com/kata-containers/kata-containers/issues/10109
    "registry rate limit": DiagnosisCase(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "unreachable, failing or rate limiting",
        [overdue(waiting("ErrImagePull", 'failed to pull and unpack image "docker.io/library/busybox:latest": '
            "failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/busybox/"
            "manifests/sha256:50aa: 429 Too Many Requests - Server message: toomanyrequests: You have reached your "
            "pull rate limit."))],
        job=DEADLINE,
    ),
    # https://github.com/containerd/containerd/pull/8173
    "image unpacking failed": DiagnosisCase(
        C.IMAGE_PULL_FAILED, INFRA, True, "parent snapshot",
        [overdue(waiting("ErrImagePull", 'rpc error: code = NotFound desc = failed to pull and unpack image "a:1": '
            'failed to prepare extraction snapshot "extract-795119289-7389 sha256:9281": parent snapshot sha256:0b16 '
            "does not exist: not found"))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/images/image_manager.go: imageNotPresentOnNeverPolicyError.
    "image pull forbidden": DiagnosisCase(
        C.IMAGE_PULL_FAILED, INFRA, True, "pull policy forbids",
        [overdue(waiting("ErrImageNeverPull", 'Container image "a:1" is not present with pull policy of Never'))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/images/image_manager.go: applyDefaultImageTag.
    "invalid image name": DiagnosisCase(
        C.IMAGE_NAME_INVALID, USER, False, "invalid reference format",
        [overdue(waiting("InvalidImageName", 'Failed to apply default image tag "a:b:c": couldn\'t parse image name '
            '"a:b:c": invalid reference format'))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/kuberuntime/security_context_others.go: verifyRunAsNonRoot.
    "image runs as root": DiagnosisCase(
        C.IMAGE_RUNS_AS_ROOT, USER, False, "would run as root",
        [overdue(waiting("CreateContainerConfigError",
            'container has runAsNonRoot and image will run as root (pod: "a_b(0d6c)", container: job)'))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/cm/devicemanager/manager.go.
    "device removed before the container start": DiagnosisCase(
        C.CONTAINER_CONFIG_ERROR, INFRA, True, "endpoint not found",
        [overdue(waiting("CreateContainerConfigError",
            "endpoint not found in cache for a registered resource: nvidia.com/gpu"))],
        job=DEADLINE,
    ),
    "container creation timed out": DiagnosisCase(
        C.RUNTIME_FAILED, INFRA, True, "context deadline exceeded",
        [overdue(waiting("CreateContainerError", "context deadline exceeded"))], job=DEADLINE,
    ),
    # https://github.com/aws/karpenter-provider-aws/issues/3989
    "no network for the pod": DiagnosisCase(
        C.SANDBOX_FAILED, INFRA, True, "failed to assign an IP address",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown "
            'desc = failed to setup network for sandbox "2585": plugin type="aws-cni" name="aws-cni" failed (add): add '
            "cmd: failed to assign an IP address to container")],
        evidence={"event_reason": "FailedCreatePodSandBox"},
    ),
    "rejected by the node, not replaced": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "before Kubernetes replaced its last attempt: node node-1 rejected the pod",
        [rejected("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110")],
        job=DEADLINE,
    ),
    "disrupted, not replaced": DiagnosisCase(
        C.DRAINED, INFRA, True, "before Kubernetes replaced its last attempt: the pod was evicted",
        [pod(state=ended(143, finished=41), deleted=70, grace=30, conditions=[disrupted()])], job=DEADLINE,
    ),
    "disrupted, next attempt not scheduled": DiagnosisCase(
        C.UNSCHEDULABLE, INFRA, True, "before it could run again: no node fits the pod",
        [pod("a", state=ended(143), conditions=[disrupted()]), pod("b", node=None, conditions=[unschedulable()])],
        job=DEADLINE,
    ),
    "no pod and no event": DiagnosisCase(
        C.DEADLINE_EXCEEDED, USER, False, "before it could start", job=DEADLINE,
    ),
    # K8S apiserver/pkg/admission/plugin/resourcequota/controller.go.
    "ResourceQuota rejected every pod": DiagnosisCase(
        C.QUOTA_BACKSTOP, POLICY, True, "exceeded quota: runway, requested: requests.nvidia.com/gpu=1", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", _GPU_QUOTA)], evidence={"event_reason": "FailedCreate"},
    ),
    # https://github.com/iovisor/kubectl-trace/issues/49
    "ResourceQuota requires missing limits": DiagnosisCase(
        C.QUOTA_BACKSTOP, POLICY, True, "must specify limits.cpu", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", 'Error creating: pods "a-pktmb" is forbidden: failed quota: '
            "custom-resource-quotas: must specify limits.cpu,limits.memory,requests.memory")],
    ),
    # https://github.com/jfroy/flatops/issues/968
    "Pod Security rejected every pod": DiagnosisCase(
        C.POD_SECURITY_REFUSED, RUNWAY, False, 'violates PodSecurity "restricted:latest"', job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", "(combined from similar events): Error creating: pods "
            '"browse-postgres16-1-22qjj" is forbidden: violates PodSecurity "restricted:latest": '
            'allowPrivilegeEscalation != false (container "browser" must set '
            "securityContext.allowPrivilegeEscalation=false)")],
    ),
    # https://github.com/uoe-eidf-cluster-users/eidf-epcc-cluster/issues/26
    "webhook rejected every pod": DiagnosisCase(
        C.POD_CREATION_REFUSED, POLICY, False, "denied the request", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", 'Error creating: admission webhook "validation.gatekeeper.sh" denied '
            "the request: [userpodlimits] container <cudasample> has no cpu limit")],
    ),
    # https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#failure-policy
    "webhook was unavailable": DiagnosisCase(
        C.POD_CREATION_FAILED, INFRA, True, "failed calling webhook", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", "Error creating: Internal error occurred: failed calling webhook "
            '"namespace.sidecar-injector.istio.io": failed to call webhook: Post '
            '"https://istiod.istio-system.svc:443/inject?timeout=10s": context deadline exceeded')],
    ),
    # https://github.com/dagster-io/dagster/issues/4474
    "an injected container kept the pod alive": DiagnosisCase(
        C.OTHER_CONTAINER_RUNNING, INFRA, False, "container istio-proxy kept the pod alive",
        [overdue(ended(0, finished=40), phase="Failed", others={"istio-proxy": ended(143, finished=71)})],
        job=DEADLINE, evidence={"exit_code": "0"},
    ),
}  # fmt: skip
