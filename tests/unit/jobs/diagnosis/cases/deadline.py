"""What a job that reached its deadline is told: see `tests/support/diagnosis_case.py`."""

from __future__ import annotations

from tests.support.builders import Json, condition, disrupted, ended, pod, running, unschedulable, waiting, warning
from tests.support.diagnosis_case import DEADLINE, INFRA, POLICY, RUNWAY, USER, C, Told, overdue, rejected

EPOCH = -1795507200  # What the kubelet writes for a time that it does not know, in seconds after START.
_GPU_QUOTA = (
    'Error creating: pods "rw-aaaaaaaaaaaaaaaaaaaa-x7k2p" is forbidden: exceeded quota: runway, '
    "requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
)

# Pod garbage collection fails a deleted pod that has no node: K8S pkg/controller/podgc/gc_controller.go.
UNSCHEDULED: Json = {
    "node": None, "conditions": [unschedulable()], "phase": "Failed", "deleted": 70, "grace": 0,
}  # fmt: skip

DEADLINES: dict[str, Told] = {
    "the 143 that it causes": Told(
        C.DEADLINE_EXCEEDED, USER, False, "timeout of 60 s and was told to end; it ended on SIGTERM",
        [overdue(ended(143, finished=71))], job=DEADLINE,
        hint="above 60", evidence={"job_reason": "DeadlineExceeded", "exit_code": "143", "timeout_seconds": "60"},
    ),
    "SIGTERM handled in good order": Told(
        C.DEADLINE_EXCEEDED, USER, False, "ended in its grace period with exit code 0",
        [overdue(ended(0, finished=75))], job=DEADLINE,
    ),
    "SIGTERM handled with a code of its own": Told(
        C.DEADLINE_EXCEEDED, USER, False, "exit code 1", [overdue(ended(1, finished=75))], job=DEADLINE,
    ),
    "SIGTERM ignored": Told(
        C.DEADLINE_EXCEEDED, USER, False, "did not end on SIGTERM and was killed after its grace period of 30 s",
        [overdue(ended(137, finished=100))], job=DEADLINE,
        hint="act on SIGTERM", evidence={"grace_period": "overrun", "grace_period_seconds": "30"},
    ),
    "killed within the grace period": Told(
        C.DEADLINE_EXCEEDED, USER, False, "it ended on SIGKILL", [overdue(ended(137, finished=80))], job=DEADLINE,
    ),
    "gone without an end": Told(
        C.DEADLINE_EXCEEDED, USER, False, "was told to end", [overdue(running(), name="a")], job=DEADLINE, gone=["a"],
    ),
    "between two attempts": Told(
        C.DEADLINE_EXCEEDED, USER, False, "between two attempts: the process ended with exit code 3",
        [pod(state=ended(3, finished=20))], job=DEADLINE,
    ),
    "between two attempts, pods deleted with the Job since": Told(
        C.DEADLINE_EXCEEDED, USER, False, "between two attempts: the process ended with exit code 3",
        [pod(state=ended(3, finished=20), deleted=900, grace=0)], job=DEADLINE,
    ),
    "the second attempt had no room": Told(
        C.DEADLINE_EXCEEDED, USER, False, "between two attempts: no node can take the pod",
        [pod("a", state=ended(3)), pod("b", **UNSCHEDULED)],
        job=DEADLINE,
    ),
    "never scheduled": Told(
        C.UNSCHEDULABLE, INFRA, True,
        "before it could run: no node can take the pod: of 1 node, 1 has too few free GPUs",
        [pod(**UNSCHEDULED)], job=DEADLINE,
        hint="ask for less GPU", evidence={"job_reason": "DeadlineExceeded"},
    ),
    # Recorded on Kubernetes 1.35.4 with containerd 1.6: a pod that is told to end says ContainerCreating again.
    "an image that could not be pulled, in a pod that was told to end": Told(
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
    # Recorded likewise, once the pod's deletion was through.
    "an image that could not be pulled, and an end that the kubelet made up": Told(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "lookup runway.local: no such host",
        [overdue(ended(137, "ContainerStatusUnknown", started=EPOCH, finished=EPOCH))], job=DEADLINE,
        events=[
            warning(overdue(), "Failed", 'Failed to pull image "runway.local/nosuch:1": dial tcp: lookup runway.local: '
                "no such host"),
            warning(overdue(), "Failed", "Error: ImagePullBackOff"),
        ],
    ),
    # Recorded likewise.
    "a name that is none, in a pod that was told to end": Told(
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
    "no sandbox for the pod, recorded": Told(
        C.SANDBOX_FAILED, INFRA, True, "is specified without user",
        [overdue(waiting("ContainerCreating"), conditions=[condition("PodReadyToStartContainers", "False")])],
        job=DEADLINE,
        events=[warning(overdue(), "FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown "
            "desc = failed to generate sanbdox container spec options: failed to generate user string: user group "
            '"1000" is specified without user')],
    ),
    # K8S pkg/kubelet/kuberuntime/kuberuntime_container.go: startContainer puts "Error: " before what the runtime says.
    "a container that was not created, in a pod that was told to end": Told(
        C.RUNTIME_FAILED, INFRA, True, "context deadline exceeded",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "Failed", "Error: context deadline exceeded")],
    ),
    "an image that runs as root, in a pod that was told to end": Told(
        C.IMAGE_RUNS_AS_ROOT, USER, False, "would run as root",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "Failed",
            'Error: container has runAsNonRoot and image will run as root (pod: "a_b(0d6c)", container: job)')],
    ),
    "an image that may not be pulled, in a pod that was told to end": Told(
        C.IMAGE_PULL_FAILED, INFRA, True, "may not pull",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "ErrImageNeverPull",
            'Container image "a:1" is not present with pull policy of Never')],
    ),
    "gone while nobody watched": Told(
        C.UNSCHEDULABLE, INFRA, True, "before it could run", [pod("a", node=None, conditions=[unschedulable()])],
        job=DEADLINE, gone=["a"],
    ),
    # https://github.com/forcedotcom/salesforcedx-docker/issues/35
    "no such image": Told(
        C.IMAGE_NOT_FOUND, USER, False, "before it could run: the registry has no such image",
        [overdue(waiting("ImagePullBackOff", 'Back-off pulling image "salesforce/salesforcedx": ErrImagePull: rpc '
            "error: code = NotFound desc = failed to pull and unpack image "
            '"docker.io/salesforce/salesforcedx:latest": failed to resolve reference '
            '"docker.io/salesforce/salesforcedx:latest": docker.io/salesforce/salesforcedx:latest: not found'))],
        job=DEADLINE, evidence={"waiting_reason": "ImagePullBackOff"},
    ),
    # https://github.com/containerd/containerd/issues/11103
    "no access to the image": Told(
        C.IMAGE_ACCESS_DENIED, USER, False, "does not let the node pull",
        [overdue(waiting("ErrImagePull", 'failed to pull and unpack image "reg.example/a:1": failed to resolve '
            'reference "reg.example/a:1": pull access denied, repository does not exist or may require authorization: '
            "authorization failed: no basic auth credentials"))],
        job=DEADLINE,
    ),
    # https://github.com/containerd/containerd/issues/4231
    "no such registry": Told(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "could not be reached",
        [overdue(waiting("ErrImagePull", 'failed to pull and unpack image "comp.local/a:1": failed to resolve '
            'reference "comp.local/a:1": failed to do request: Head "https://comp.local/v2/a/manifests/1": dial '
            "tcp: lookup comp.local: no such host"))],
        job=DEADLINE,
    ),
    # https://github.com/kata-containers/kata-containers/issues/10109
    "too many pulls": Told(
        C.REGISTRY_UNAVAILABLE, INFRA, True, "could not be reached or refused for now",
        [overdue(waiting("ErrImagePull", 'failed to pull and unpack image "docker.io/library/busybox:latest": '
            "failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/busybox/"
            "manifests/sha256:50aa: 429 Too Many Requests - Server message: toomanyrequests: You have reached your "
            "pull rate limit."))],
        job=DEADLINE,
    ),
    # https://github.com/containerd/containerd/pull/8173
    "the node cannot unpack the image": Told(
        C.IMAGE_PULL_FAILED, INFRA, True, "parent snapshot",
        [overdue(waiting("ErrImagePull", 'rpc error: code = NotFound desc = failed to pull and unpack image "a:1": '
            'failed to prepare extraction snapshot "extract-795119289-7389 sha256:9281": parent snapshot sha256:0b16 '
            "does not exist: not found"))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/images/image_manager.go: imageNotPresentOnNeverPolicyError.
    "an image that may not be pulled": Told(
        C.IMAGE_PULL_FAILED, INFRA, True, "may not pull",
        [overdue(waiting("ErrImageNeverPull", 'Container image "a:1" is not present with pull policy of Never'))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/images/image_manager.go: applyDefaultImageTag.
    "a name that is none": Told(
        C.IMAGE_NAME_INVALID, USER, False, "invalid reference format",
        [overdue(waiting("InvalidImageName", 'Failed to apply default image tag "a:b:c": couldn\'t parse image name '
            '"a:b:c": invalid reference format'))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/kuberuntime/security_context_others.go: verifyRunAsNonRoot.
    "an image that runs as root": Told(
        C.IMAGE_RUNS_AS_ROOT, USER, False, "would run as root",
        [overdue(waiting("CreateContainerConfigError",
            'container has runAsNonRoot and image will run as root (pod: "a_b(0d6c)", container: job)'))],
        job=DEADLINE,
    ),
    # K8S pkg/kubelet/cm/devicemanager/manager.go.
    "a device that is gone before the container": Told(
        C.CONTAINER_CONFIG_ERROR, INFRA, True, "endpoint not found",
        [overdue(waiting("CreateContainerConfigError",
            "endpoint not found in cache for a registered resource: nvidia.com/gpu"))],
        job=DEADLINE,
    ),
    "a container that is never created": Told(
        C.RUNTIME_FAILED, INFRA, True, "context deadline exceeded",
        [overdue(waiting("CreateContainerError", "context deadline exceeded"))], job=DEADLINE,
    ),
    # https://github.com/aws/karpenter-provider-aws/issues/3989
    "no network for the pod": Told(
        C.SANDBOX_FAILED, INFRA, True, "failed to assign an IP address",
        [overdue(waiting("ContainerCreating"))], job=DEADLINE,
        events=[warning(overdue(), "FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown "
            'desc = failed to setup network for sandbox "2585": plugin type="aws-cni" name="aws-cni" failed (add): add '
            "cmd: failed to assign an IP address to container")],
        evidence={"event_reason": "FailedCreatePodSandBox"},
    ),
    "refused by its node, and not replaced": Told(
        C.ADMISSION_REJECTED, INFRA, True, "its attempt had not been replaced: node node-1 refused the pod",
        [rejected("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110")],
        job=DEADLINE,
    ),
    "taken away, and not replaced": Told(
        C.DRAINED, INFRA, True, "its attempt had not been replaced: the pod was evicted",
        [pod(state=ended(143, finished=41), deleted=70, grace=30, conditions=[disrupted()])], job=DEADLINE,
    ),
    "taken away, and no room for the next": Told(
        C.UNSCHEDULABLE, INFRA, True, "before it could run again: no node can take the pod",
        [pod("a", state=ended(143), conditions=[disrupted()]), pod("b", node=None, conditions=[unschedulable()])],
        job=DEADLINE,
    ),
    "no pod, and Kubernetes says nothing": Told(
        C.DEADLINE_EXCEEDED, USER, False, "before it could start", job=DEADLINE,
    ),
    # K8S apiserver/pkg/admission/plugin/resourcequota/controller.go.
    "the ResourceQuota refused every pod": Told(
        C.QUOTA_BACKSTOP, POLICY, True, "exceeded quota: runway, requested: requests.nvidia.com/gpu=1", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", _GPU_QUOTA)], evidence={"event_reason": "FailedCreate"},
    ),
    # https://github.com/iovisor/kubectl-trace/issues/49
    "the ResourceQuota asks for more than the pod says": Told(
        C.QUOTA_BACKSTOP, POLICY, True, "must specify limits.cpu", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", 'Error creating: pods "a-pktmb" is forbidden: failed quota: '
            "custom-resource-quotas: must specify limits.cpu,limits.memory,requests.memory")],
    ),
    # https://github.com/jfroy/flatops/issues/968
    "Pod Security refused every pod": Told(
        C.POD_SECURITY_REFUSED, RUNWAY, False, 'violates PodSecurity "restricted:latest"', job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", "(combined from similar events): Error creating: pods "
            '"browse-postgres16-1-22qjj" is forbidden: violates PodSecurity "restricted:latest": '
            'allowPrivilegeEscalation != false (container "browser" must set '
            "securityContext.allowPrivilegeEscalation=false)")],
    ),
    # https://github.com/uoe-eidf-cluster-users/eidf-epcc-cluster/issues/26
    "a webhook refused every pod": Told(
        C.POD_CREATION_REFUSED, POLICY, False, "denied the request", job=DEADLINE,
        events=[warning(DEADLINE, "FailedCreate", 'Error creating: admission webhook "validation.gatekeeper.sh" denied '
            "the request: [userpodlimits] container <cudasample> has no cpu limit")],
    ),
}  # fmt: skip
