"""Diagnosis cases: evictions, disruptions, rejections and deletions."""

from __future__ import annotations

from tests.support.builders import disrupted, ended, job, node, pod, running
from tests.support.diagnosis_case import EXITED, INFRA, RUNC, USER, C, DiagnosisCase, evicted, not_started, rejected

NODE: dict[str, DiagnosisCase] = {
    # K8S pkg/kubelet/eviction/helpers.go: evictionMessage.
    "evicted for memory": DiagnosisCase(
        C.EVICTED_MEMORY, INFRA, True, "ran out of memory",
        [evicted("The node was low on resource: memory. Threshold quantity: 100Mi, available: 87Mi. ")],
        evidence={"pod_reason": "Evicted", "disruption_reason": "TerminationByKubelet"},
    ),
    # https://github.com/cloud-ark/kubeplus/issues/1382
    "evicted for disk": DiagnosisCase(
        C.EVICTED_DISK, INFRA, True, "ran out of disk",
        [evicted(
            "The node was low on resource: ephemeral-storage. Threshold quantity: 2146223340, available: 1883424Ki. "
            "Container job was using 10304Ki, request is 10Mi, has larger consumption of ephemeral-storage. "
        )],
    ),
    "evicted for inodes": DiagnosisCase(
        C.EVICTED_DISK, INFRA, True, "inodes",
        [evicted("The node was low on resource: inodes. Threshold quantity: 51200, available: 40960. ")],
    ),
    "evicted for process ids": DiagnosisCase(
        C.EVICTED_PIDS, INFRA, True, "process ids",
        [evicted("The node was low on resource: pids. Threshold quantity: 3276, available: 3000. ")],
    ),
    "evicted for an unknown resource": DiagnosisCase(
        C.EVICTED, INFRA, True, "low on resource: patience", [evicted("The node was low on resource: patience. ")],
    ),
    # Recorded on Kubernetes 1.35.4; K8S pkg/kubelet/eviction/helpers.go: podEphemeralStorageMessageFmt. It counts.
    "over the disk limit of the pod": DiagnosisCase(
        C.EPHEMERAL_STORAGE_EXCEEDED, USER, False, "limit of 1Gi",
        [evicted("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", counts=True)],
        evidence={"ephemeral_storage_limit": "1Gi", "pod_reason": "Evicted"},
    ),
    "over the disk limit of the container": DiagnosisCase(
        C.EPHEMERAL_STORAGE_EXCEEDED, USER, False, "limit of 1Gi",
        [evicted('Container job exceeded its local ephemeral storage limit "1Gi". ', counts=True)],
    ),
    # K8S pkg/kubelet/eviction/eviction_manager.go: emptyDirMessageFmt.
    "over the disk limit of the scratch volume": DiagnosisCase(
        C.EPHEMERAL_STORAGE_EXCEEDED, USER, False, "local disk limit of 50Gi",
        [evicted('Usage of EmptyDir volume "scratch" exceeds the limit "50Gi". ', counts=True)],
        hint="raise resources.disk", evidence={"ephemeral_storage_limit": "50Gi"},
    ),
    "over the limit of shared memory": DiagnosisCase(
        C.SHARED_MEMORY_EXCEEDED, USER, False, "exceeded their limit of 8Gi",
        [evicted('Usage of EmptyDir volume "shared-memory" exceeds the limit "8Gi". ', counts=True)],
        hint="raise resources.shared_memory", evidence={"shared_memory_limit": "8Gi"},
    ),
    # K8S pkg/registry/core/pod/storage/eviction.go.
    "drained": DiagnosisCase(
        C.DRAINED, INFRA, True, "eviction API",
        [pod(state=ended(143), deleted=100, grace=30, conditions=[disrupted(message="Eviction API: evicting")])],
        evidence={"disruption_reason": "EvictionByEvictionAPI"},
    ),
    # https://github.com/kubernetes/kubernetes/pull/140718: OOMKilled stays after the kernel killed any child.
    "drained, a child was OOM-killed before": DiagnosisCase(
        C.DRAINED, INFRA, True, "eviction API",
        [pod(state=ended(143, "OOMKilled"), conditions=[disrupted(message="Eviction API: evicting")])],
    ),
    # K8S pkg/scheduler/framework/preemption/preemption.go.
    "preempted by the scheduler": DiagnosisCase(
        C.PREEMPTED, INFRA, True, "higher priority",
        [pod(state=ended(137), conditions=[disrupted(
            "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"
        )])],
    ),
    # K8S pkg/kubelet/preemption/preemption.go.
    "preempted by the kubelet": DiagnosisCase(
        C.PREEMPTED, INFRA, True, "a critical pod",
        [pod(
            state=ended(137), phase="Failed", reason="Preempting", message="Preempted in order to admit critical pod",
            conditions=[disrupted(
                "TerminationByKubelet", "Pod was preempted by Kubelet to accommodate a critical pod."
            )],
        )],
    ),
    # K8S pkg/kubelet/nodeshutdown/nodeshutdown_manager.go.
    "node shut down": DiagnosisCase(
        C.NODE_SHUTDOWN, INFRA, True, "was shut down",
        [pod(
            state=ended(143), phase="Failed", reason="Terminated",
            message="Pod was terminated in response to imminent node shutdown.",
            conditions=[disrupted(
                "TerminationByKubelet", "Pod was terminated in response to imminent node shutdown."
            )],
        )],
    ),
    "rejected by a node that shuts down": DiagnosisCase(
        C.NODE_SHUTDOWN, INFRA, True, "was shut down",
        [rejected("NodeShutdown", "Pod was rejected as the node is shutting down.")],
    ),
    # K8S pkg/controller/tainteviction/taint_eviction.go.
    "node unreachable until the pod was deleted": DiagnosisCase(
        C.NODE_LOST, INFRA, True, "node node-1 stopped responding",
        [pod(state=ended(137), conditions=[disrupted(
            "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
        )])],
        nodes=[node(ready="Unknown", since=40, taints=["node.kubernetes.io/unreachable"])],
        evidence={"node_ready": "Unknown", "node_taints": "node.kubernetes.io/unreachable"},
    ),
    "node unreachable, ready again since": DiagnosisCase(
        C.NODE_LOST, INFRA, True, "stopped responding",
        [pod(state=ended(137), conditions=[disrupted("DeletionByTaintManager")])], nodes=[node(since=85)],
    ),
    "node tainted by an operator": DiagnosisCase(
        C.NODE_TAINTED, INFRA, True, "was tainted",
        [pod(state=ended(143), conditions=[disrupted("DeletionByTaintManager")])],
        nodes=[node(taints=["maintenance"])],
    ),
    # K8S pkg/controller/podgc/gc_controller.go.
    "node removed": DiagnosisCase(
        C.NODE_LOST, INFRA, True, "no longer exists",
        [pod(phase="Failed", state=running(), conditions=[disrupted(
            "DeletionByPodGC", "PodGC: node no longer exists"
        )])],
    ),
    "unknown disruption": DiagnosisCase(
        C.EVICTED, INFRA, True, "SpotInterruption",
        [pod(state=ended(143), conditions=[disrupted("SpotInterruption")])],
    ),
    # K8S pkg/kubelet/lifecycle/predicate.go: InsufficientResourceError.
    "rejected four times without retries": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "OutOfcpu",
        [rejected("OutOfcpu", "Node didn't have enough resource: cpu", name) for name in ("a", "b", "c", "d")],
        evidence={"counted_attempts": "4"},
    ),
    "rejected, then exit code 3 without retries": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "code 3",
        [rejected("OutOfcpu", "Node didn't have enough resource: cpu"), pod("a", created=20, state=ended(3))],
        job=EXITED, evidence={"job_reason": "PodFailurePolicy"},
    ),
    "rejected, out of CPU": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "OutOfcpu",
        [rejected("OutOfcpu", "Node didn't have enough resource: cpu, requested: 4000, used: 3900, capacity: 4000")],
        evidence={"pod_reason": "OutOfcpu"},
    ),
    "rejected, out of GPUs": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "OutOfnvidia.com/gpu",
        [rejected(
            "OutOfnvidia.com/gpu",
            "Node didn't have enough resource: nvidia.com/gpu, requested: 1, used: 8, capacity: 8",
        )],
    ),
    "rejected, node selector does not match": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "NodeAffinity",
        [rejected("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")],
    ),
    # https://github.com/kubernetes/kubernetes/issues/130145
    "rejected, device unavailable": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "Available: 0",
        [rejected(
            "UnexpectedAdmissionError",
            "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. Requested: 1, "
            "Available: 0, which is unexpected",
        )],
    ),
    # https://github.com/kubernetes/kubernetes/issues/97131
    "rejected, GPU lost, text of older kubelets": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "GPU is lost",
        [pod(
            phase="Failed", reason="UnexpectedAdmissionError",
            message="Pod Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: rpc error: "
            "code = Unknown desc = Unable to retrieve list of available devices: error creating nvml.Device 5: nvml: "
            "GPU is lost, which is unexpected",
        )],
    ),
    # K8S pkg/kubelet/eviction/eviction_manager.go: Admit; https://github.com/operate-first/apps/issues/1352
    "rejected by a node under pressure": DiagnosisCase(
        C.ADMISSION_REJECTED, INFRA, True, "DiskPressure",
        [rejected("Evicted", "The node had condition: [DiskPressure]. ")],
    ),
    # K8S pkg/kubelet/status/status_manager.go: TerminatePod.
    "container not found by the kubelet": DiagnosisCase(
        C.CONTAINER_LOST, INFRA, True, "could not be located",
        [pod(state=ended(
            137, "ContainerStatusUnknown", "The container could not be located when the pod was terminated"
        ))],
        evidence={"container_reason": "ContainerStatusUnknown", "exit_code": "137"},
    ),
    # containerd internal/cri/server/helpers.go: unknownExitCode.
    "container not found by containerd": DiagnosisCase(
        C.CONTAINER_LOST, INFRA, True, "lost track", [pod(state=ended(255, "Unknown"))],
    ),
    # https://github.com/cedricxie/apollo_perception_ros/issues/20
    "GPU driver not loaded": DiagnosisCase(
        C.RUNTIME_FAILED, INFRA, True, "driver not loaded",
        [not_started(
            RUNC + "error during container init: error running hook #0: error running hook: exit status 1, stdout: , "
            "stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown"
        )],
    ),
    "deleted with kubectl": DiagnosisCase(
        C.POD_DELETED, INFRA, True, "deleted outside Runway; the process ended on SIGTERM",
        [pod(state=ended(143, finished=71), deleted=100, grace=30)],
    ),
    "deleted with kubectl, SIGTERM ignored": DiagnosisCase(
        C.POD_DELETED, INFRA, True, "killed after its grace period of 30 s",
        [pod(state=ended(137, finished=100), deleted=100, grace=30)],
    ),
    "deleted long after its failure": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 3", [pod(state=ended(3, finished=20), deleted=90, grace=0)],
    ),
    "deleted, exit not seen": DiagnosisCase(
        C.POD_DELETED, INFRA, True, "did not see how it ended", [pod("a", state=running())], gone=["a"],
    ),
    "no pod": DiagnosisCase(C.UNKNOWN, INFRA, False, "BackoffLimitExceeded: Job has reached"),
    "pod without a reason": DiagnosisCase(C.UNKNOWN, INFRA, False, "does not report the reason", [pod(phase="Failed")]),
    "Failed condition without a reason": DiagnosisCase(
        C.UNKNOWN, INFRA, False, "no reason given", job=job(outcome="Failed"),
    ),
}  # fmt: skip
