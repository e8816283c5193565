"""Diagnosis cases: processes that exited or did not start."""

from __future__ import annotations

from tests.support.builders import condition, disrupted, ended, pod
from tests.support.diagnosis_case import INFRA, RUNC, USER, C, DiagnosisCase, not_started

PROCESS: dict[str, DiagnosisCase] = {
    "exit code": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 3", [pod(state=ended(3))], evidence={"exit_code": "3"},
    ),
    "exit code 255 is no signal": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 255", [pod(state=ended(255))],
    ),
    # https://docs.python.org/3/library/subprocess.html#subprocess.Popen.returncode: -9, and sys.exit(-9) makes it 247.
    "exit code from a child's signal in Python": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 247", [pod(state=ended(247))],
        hint="a child process killed by SIGKILL",
    ),
    # https://tldp.org/LDP/abs/html/exitcodes.html
    "a shell found no program": DiagnosisCase(
        C.COMMAND_NOT_FOUND, USER, False, "exit code 127", [pod(state=ended(127, message="sh: trainn: not found\n"))],
        hint="dynamic loader",
        evidence={"last_words": "sh: trainn: not found\n"},
    ),
    "a shell has no permission to execute": DiagnosisCase(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "exit code 126",
        [pod(state=ended(126, message="sh: ./train.sh: Permission denied\n"))],
    ),
    # https://github.com/opencontainers/runc/issues/4713
    "runc found no program on the PATH": DiagnosisCase(
        C.COMMAND_NOT_FOUND, USER, False, "the image has no such program",
        [not_started(RUNC + 'exec: "trainn": executable file not found in $PATH: unknown')],
        evidence={"container_reason": "StartError", "exit_code": "128"},
    ),
    # https://github.com/CyCoreSystems/asterisk-k8s-demo/pull/25
    "runc found no program at the path": DiagnosisCase(
        C.COMMAND_NOT_FOUND, USER, False, "no such file",
        [not_started(RUNC + 'exec: "/app": stat /app: no such file or directory: unknown')],
    ),
    # The file exists: the kernel does not find the interpreter of its #! line, such as /bin/sh and a carriage return.
    # https://github.com/podman-container-tools/podman/issues/22779
    "runc found no interpreter": DiagnosisCase(
        C.COMMAND_NOT_FOUND, USER, False, "its interpreter or its loader",
        [not_started(RUNC + 'exec: "/app/run.sh": no such file or directory: unknown')],
        hint="line endings (LF, not CRLF)",
    ),
    "runc found no interpreter after the start": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1, message="exec /app/run.sh: no such file or directory\n"))],
    ),
    # https://github.com/podman-container-tools/podman/issues/14873
    "crun found no program": DiagnosisCase(
        C.COMMAND_NOT_FOUND, USER, False, "the image has no such program",
        [not_started("crun: executable file `123123` not found in $PATH: No such file or directory")],
    ),
    # https://github.com/storageos/cluster-operator/issues/141
    "Docker found no program": DiagnosisCase(
        C.COMMAND_NOT_FOUND, USER, False, "the image has no such program",
        [pod(state=ended(127, "ContainerCannotRun", 'exec: "storageos": executable file not found in $PATH'))],
    ),
    # https://github.com/envoyproxy/gateway/issues/5648
    "runc has no permission to execute": DiagnosisCase(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "permission denied",
        [not_started(RUNC + 'exec: "/usr/local/bin/envoy-gateway": permission denied: unknown')],
    ),
    # https://github.com/kubernetes/node-problem-detector/issues/797
    "image for another architecture": DiagnosisCase(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "exec format error",
        [pod(state=ended(255, message="exec /node-problem-detector: exec format error\n"))],
        hint="architecture",
    ),
    # https://github.com/k3s-io/k3s/issues/2419
    "image for another architecture, text of older runc": DiagnosisCase(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "exec format error",
        [pod(state=ended(1, message='standard_init_linux.go:211: exec user process caused "exec format error"\n'))],
    ),
    "log that only mentions an exec format error": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1, message="cannot parse: exec format error in x"))],
    ),
    # https://github.com/argoproj/argo-workflows/issues/11212
    "invalid mount": DiagnosisCase(
        C.START_FAILED, USER, False, "not a directory",
        [not_started(RUNC + "error during container init: mkdir /src: not a directory: unknown")],
    ),
    "segfault": DiagnosisCase(
        C.SEGMENTATION_FAULT, USER, False, "SIGSEGV (exit code 139)", [pod(state=ended(139))],
        evidence={"signal": "SIGSEGV"},
    ),
    "abort": DiagnosisCase(C.ABORTED, USER, False, "SIGABRT", [pod(state=ended(134))]),
    "illegal instruction": DiagnosisCase(C.ILLEGAL_INSTRUCTION, USER, False, "SIGILL", [pod(state=ended(132))]),
    "division by zero": DiagnosisCase(C.FLOATING_POINT_EXCEPTION, USER, False, "SIGFPE", [pod(state=ended(136))]),
    # https://github.com/pytorch/pytorch/issues/16979
    "bus error": DiagnosisCase(
        C.BUS_ERROR, USER, False, "SIGBUS", [pod(state=ended(135))], hint="raise resources.shared_memory",
    ),
    "another signal": DiagnosisCase(C.KILLED_BY_SIGNAL, USER, False, "SIGHUP (exit code 129)", [pod(state=ended(129))]),
    "SIGTERM from the job itself": DiagnosisCase(C.TERMINATED, USER, False, "SIGTERM", [pod(state=ended(143))]),
    # https://github.com/kubernetes/kubernetes/issues/19825
    "exit code 137 without OOMKilled": DiagnosisCase(
        C.SIGKILL_UNEXPLAINED, USER, False, "did not report an exceeded memory limit", [pod(state=ended(137))],
        evidence={"container_reason": "Error"},
    ),
    "OOM-killed": DiagnosisCase(
        C.OOM_KILLED, USER, False, "memory limit of 1Gi", [pod(state=ended(137, "OOMKilled"))],
        hint="for example to 2Gi, or reduce the job's memory use, which includes /dev/shm (resources.shared_memory)",
        evidence={"memory_limit": "1Gi", "container_reason": "OOMKilled"},
    ),
    # https://github.com/kubernetes/kubernetes/issues/104454
    "child OOM-killed": DiagnosisCase(
        C.OOM_CHILD_SUSPECTED, USER, False, "the main process then exited with code 1",
        [pod(state=ended(1, "OOMKilled"))],
        hint="for example to 2Gi",
    ),
    # https://github.com/aws/amazon-ecs-agent/issues/3021
    "memory limit too low to start": DiagnosisCase(
        C.OOM_KILLED, USER, False, "1Gi is too low to start",
        [not_started(RUNC + "container init was OOM-killed (memory limit too low?): unknown")],
        hint="for example to 2Gi",
    ),
    "the last counted attempt decides": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 2",
        [
            pod("a", state=ended(137, "OOMKilled")),
            pod("b", state=ended(2)),
            pod("c", state=ended(143), conditions=[disrupted()]),
        ],
        evidence={"counted_attempts": "2"},
    ),
    "DisruptionTarget is False": DiagnosisCase(
        C.EXIT_NONZERO, USER, False, "exited with code 1",
        [pod(state=ended(1), conditions=[condition("DisruptionTarget", "False")])],
    ),
    # https://github.com/kubeflow/trainer/issues/1182
    "an injected container failed": DiagnosisCase(
        C.OTHER_CONTAINER_FAILED, INFRA, True, "container istio-proxy failed with exit code 1",
        [pod(state=ended(0), phase="Failed", others={"istio-proxy": ended(1)})],
        evidence={"container": "istio-proxy"},
    ),
}  # fmt: skip
