"""What a process, or the start of one, came to: see `tests/support/diagnosis_case.py`."""

from __future__ import annotations

from tests.support.builders import condition, disrupted, ended, pod
from tests.support.diagnosis_case import RUNC, USER, C, Told, not_started

PROCESS: dict[str, Told] = {
    "exit code": Told(C.EXIT_NONZERO, USER, False, "exit code 3", [pod(state=ended(3))], evidence={"exit_code": "3"}),
    "the highest exit code is no signal": Told(C.EXIT_NONZERO, USER, False, "exit code 255", [pod(state=ended(255))]),
    # https://docs.python.org/3/library/subprocess.html#subprocess.Popen.returncode: -9, and sys.exit(-9) makes it 247.
    "a child's signal passed on by Python": Told(
        C.EXIT_NONZERO, USER, False, "exit code 247", [pod(state=ended(247))], hint="SIGKILL may have ended a child",
    ),
    # https://tldp.org/LDP/abs/html/exitcodes.html
    "a shell found no program": Told(
        C.COMMAND_NOT_FOUND, USER, False, "exit code 127", [pod(state=ended(127, message="sh: trainn: not found\n"))],
        evidence={"last_words": "sh: trainn: not found\n"},
    ),
    "a shell found no permission": Told(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "exit code 126",
        [pod(state=ended(126, message="sh: ./train.sh: Permission denied\n"))],
    ),
    # https://github.com/opencontainers/runc/issues/4713
    "runc found no program on the PATH": Told(
        C.COMMAND_NOT_FOUND, USER, False, "no such program",
        [not_started(RUNC + 'exec: "trainn": executable file not found in $PATH: unknown')],
        evidence={"container_reason": "StartError", "exit_code": "128"},
    ),
    # https://github.com/CyCoreSystems/asterisk-k8s-demo/pull/25
    "runc found no program at the path": Told(
        C.COMMAND_NOT_FOUND, USER, False, "no such file",
        [not_started(RUNC + 'exec: "/app": stat /app: no such file or directory: unknown')],
    ),
    # https://github.com/podman-container-tools/podman/issues/14873
    "crun found no program": Told(
        C.COMMAND_NOT_FOUND, USER, False, "no such program",
        [not_started("crun: executable file `123123` not found in $PATH: No such file or directory")],
    ),
    # https://github.com/storageos/cluster-operator/issues/141
    "Docker found no program": Told(
        C.COMMAND_NOT_FOUND, USER, False, "no such program",
        [pod(state=ended(127, "ContainerCannotRun", 'exec: "storageos": executable file not found in $PATH'))],
    ),
    # https://github.com/envoyproxy/gateway/issues/5648
    "runc found no permission": Told(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "permission denied",
        [not_started(RUNC + 'exec: "/usr/local/bin/envoy-gateway": permission denied: unknown')],
    ),
    # https://github.com/kubernetes/node-problem-detector/issues/797
    "an image for another architecture": Told(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "exec format error",
        [pod(state=ended(255, message="exec /node-problem-detector: exec format error\n"))],
        hint="architecture",
    ),
    # https://github.com/k3s-io/k3s/issues/2419
    "an image for another architecture, as older runc says it": Told(
        C.COMMAND_NOT_EXECUTABLE, USER, False, "exec format error",
        [pod(state=ended(1, message='standard_init_linux.go:211: exec user process caused "exec format error"\n'))],
    ),
    "a program that only speaks of exec format errors": Told(
        C.EXIT_NONZERO, USER, False, "exit code 1",
        [pod(state=ended(1, message="cannot parse: exec format error in x"))],
    ),
    # https://github.com/argoproj/argo-workflows/issues/11212
    "a mount that cannot be": Told(
        C.START_FAILED, USER, False, "not a directory",
        [not_started(RUNC + "error during container init: mkdir /src: not a directory: unknown")],
    ),
    "segfault": Told(
        C.SEGMENTATION_FAULT, USER, False, "SIGSEGV (exit code 139)", [pod(state=ended(139))],
        evidence={"signal": "SIGSEGV"},
    ),
    "abort": Told(C.ABORTED, USER, False, "SIGABRT", [pod(state=ended(134))]),
    "illegal instruction": Told(C.ILLEGAL_INSTRUCTION, USER, False, "SIGILL", [pod(state=ended(132))]),
    "division by 0": Told(C.FLOATING_POINT_EXCEPTION, USER, False, "SIGFPE", [pod(state=ended(136))]),
    # https://github.com/pytorch/pytorch/issues/16979
    "bus error": Told(C.BUS_ERROR, USER, False, "SIGBUS", [pod(state=ended(135))], hint="a full /dev/shm"),
    "another signal": Told(C.KILLED_BY_SIGNAL, USER, False, "SIGHUP (exit code 129)", [pod(state=ended(129))]),
    "a SIGTERM of its own": Told(C.TERMINATED, USER, False, "SIGTERM", [pod(state=ended(143))]),
    # https://github.com/kubernetes/kubernetes/issues/19825
    "137 that was not for memory": Told(
        C.SIGKILL_UNEXPLAINED, USER, False, "did not report its memory limit", [pod(state=ended(137))],
        evidence={"container_reason": "Error"},
    ),
    "killed for memory": Told(
        C.OOM_KILLED, USER, False, "memory limit of 1Gi", [pod(state=ended(137, "OOMKilled"))],
        hint="for instance to 2Gi", evidence={"memory_limit": "1Gi", "container_reason": "OOMKilled"},
    ),
    # https://github.com/kubernetes/kubernetes/issues/104454
    "a child killed for memory": Told(
        C.OOM_CHILD_SUSPECTED, USER, False, "ended with exit code 1; before that", [pod(state=ended(1, "OOMKilled"))],
        hint="for instance to 2Gi",
    ),
    # https://github.com/aws/amazon-ecs-agent/issues/3021
    "too little memory to start": Told(
        C.OOM_KILLED, USER, False, "too low to even start",
        [not_started(RUNC + "container init was OOM-killed (memory limit too low?): unknown")],
        hint="for instance to 2Gi",
    ),
    "only the last attempt that counted is to blame": Told(
        C.EXIT_NONZERO, USER, False, "exit code 2",
        [
            pod("a", state=ended(137, "OOMKilled")),
            pod("b", state=ended(2)),
            pod("c", state=ended(143), conditions=[disrupted()]),
        ],
        evidence={"counted_attempts": "2"},
    ),
    "a disruption that did not happen": Told(
        C.EXIT_NONZERO, USER, False, "exit code 1",
        [pod(state=ended(1), conditions=[condition("DisruptionTarget", "False")])],
    ),
}  # fmt: skip
