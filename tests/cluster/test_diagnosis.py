"""Diagnosis of failures that a real kubelet produces.

The jobs of `failed_jobs` run concurrently and are independent. test_disruptions.py has those that disturb the node.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest

from demo.scenarios.training import TRAIN_IMAGE
from localcluster import addresses
from testbed.context import Context, Tools
from testbed.http_client import JOB_SECONDS, Document, shell
from testbed.kubectl import Kubectl
from testbed.waiting import wait_for

pytestmark = pytest.mark.cluster

DEADLINE_SECONDS = 40
"""The timeout of jobs that run into it: beside other jobs that start, a pod has taken 11 s to run."""
WAIT_SECONDS = 40
"""The timeout of jobs that cannot start: enough for the kubelet to report the reason."""
CONCURRENT_JOBS = 8
"""Together these jobs request 800m of the node's two CPUs, which other tests use too."""


@dataclass(frozen=True, slots=True)
class Case:
    """A job, its failure code, and the words that the failure must contain."""

    spec: Document
    code: str
    words: Sequence[str] = ()
    evidence: Mapping[str, str] = field(default_factory=dict)
    tenant: str = "vision"


def in_child(signal: str) -> str:
    """Return a script whose child kills itself: the kernel protects PID 1. The shell passes its exit code on."""
    return f"sh -c 'kill -{signal} $$'; exit $?"


def pending(spec: Document, **fields: object) -> Document:
    return spec | {"timeout_seconds": WAIT_SECONDS} | fields


MEMORY = {"cpu": "100m", "memory": "32Mi"}

SUBMITTED: dict[str, Case] = {
    "exit code 3": Case(shell("echo cannot read the data; exit 3"), "exit_nonzero", ["3"], {"exit_code": "3"}),
    "exit code 255": Case(shell("exit 255"), "exit_nonzero", ["255"]),
    "no such command": Case(shell("trainn --epochs 3"), "command_not_found", ["127"]),
    "no such program": Case(shell("") | {"command": ["/usr/bin/trainn"]}, "command_not_found"),
    "not executable by a shell": Case(shell("/etc/hosts"), "command_not_executable", ["126"]),
    "not executable": Case(shell("") | {"command": ["/etc/hosts"]}, "command_not_executable"),
    "out of memory": Case(shell("") | {"command": ["tail", "/dev/zero"]}, "oom_killed", ["32Mi"]),
    "a child out of memory": Case(shell("tail /dev/zero; echo lost a worker; exit 7"), "oom_child_suspected", ["7"]),
    "SIGKILL": Case(shell(in_child("KILL")), "sigkill_unexplained", ["137"]),
    "SIGTERM": Case(shell(in_child("TERM")), "terminated", ["143"]),
    "SIGSEGV": Case(shell(in_child("SEGV")), "segmentation_fault", ["SIGSEGV"]),
    "SIGABRT": Case(shell(in_child("ABRT")), "aborted", ["SIGABRT"]),
    "SIGILL": Case(shell(in_child("ILL")), "illegal_instruction", ["SIGILL"]),
    "SIGFPE": Case(shell(in_child("FPE")), "floating_point_exception", ["SIGFPE"]),
    "SIGBUS": Case(shell(in_child("BUS")), "bus_error", ["SIGBUS"]),
    "SIGUSR1": Case(shell(in_child("USR1")), "killed_by_signal", ["SIGUSR1"]),
    "deadline, ends with 143": Case(
        shell("trap 'echo saving; exit 143' TERM; sleep 600 & wait", timeout_seconds=DEADLINE_SECONDS),
        "deadline_exceeded",
    ),
    "deadline, ends with 0": Case(
        shell("trap 'echo saving; exit 0' TERM; sleep 600 & wait", timeout_seconds=DEADLINE_SECONDS),
        "deadline_exceeded",
    ),
    "deadline, ignores SIGTERM": Case(
        shell("trap '' TERM; while :; do sleep 1; done", timeout_seconds=DEADLINE_SECONDS, grace_period_seconds=2),
        "deadline_exceeded",
        ["grace period", "2 s"],
    ),
    "deadline between two attempts": Case(shell("exit 4", timeout_seconds=14, retries=3), "deadline_exceeded"),
    "too little CPU": Case(
        pending(shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"})), "unschedulable", ["CPU"]
    ),
    "too little memory": Case(
        pending(shell("true", pool="large", resources={"cpu": "100m", "memory": "60Gi"})), "unschedulable", ["memory"]
    ),
    "every retry failed": Case(shell("exit 5", retries=1), "exit_nonzero", ["5"]),
}

ON_BOTH_IMAGES = (
    "exit code 3", "no such command", "not executable", "out of memory", "a child out of memory", "SIGKILL", "SIGTERM",
    "SIGSEGV", "deadline, ends with 143", "deadline, ignores SIGTERM",
)  # fmt: skip
"""These also run in an image that root built."""


def job_manifest(container: Document, pod: Document | None = None, seconds: int = WAIT_SECONDS) -> Document:
    """Return a Job with Runway's labels and fields that Runway never sets."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    plain = {
        "name": "job",
        "image": "runway.local/busybox:1",
        "command": ["sh", "-c", "sleep 1"],
        "securityContext": restricted,
        "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
    }
    labels = {"app.kubernetes.io/managed-by": "runway"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "rw-" + uuid.uuid4().hex[:20].translate(str.maketrans("0189", "abcd")), "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [plain | container], **(pod or {})},
            },
        },
    }


UNMANAGED: dict[str, Case] = {
    "an image that is not there": Case(
        job_manifest({"image": "runway.local/nosuch:1", "imagePullPolicy": "Never"}), "image_pull_failed", ["Never"]
    ),
    "an image's name that is none": Case(job_manifest({"image": "runway.local/UPPER:1"}), "image_name_invalid"),
    "a config map that is not there": Case(
        job_manifest({"envFrom": [{"configMapRef": {"name": "nosuch"}}]}), "container_config_error", ["nosuch"]
    ),
    "refused by Pod Security": Case(
        job_manifest({"securityContext": {}}), "pod_security_refused", ["allowPrivilegeEscalation"]
    ),
    "refused by the kubelet": Case(
        job_manifest(
            # More CPUs than the node has, and no scheduler involved.
            {"resources": {"limits": {"cpu": "8", "memory": "32Mi"}}},
            {"nodeName": "runway-local"},
        ),
        "admission_rejected",
    ),
    "refused by the namespace's quota": Case(
        job_manifest({"resources": {"limits": {"cpu": "100m", "memory": "40Gi"}}}), "quota_backstop", tenant="research"
    ),
}  # fmt: skip

REGISTRY = Case(pending(shell("true") | {"image": "runway.local/nosuch:1"}), "registry_unavailable")
"""No registry on this machine has this name."""

TRAINING = {
    f"{name}, {TRAIN_IMAGE}": replace(SUBMITTED[name], spec=SUBMITTED[name].spec | {"image": TRAIN_IMAGE})
    for name in ON_BOTH_IMAGES
}

CASES = {**SUBMITTED, **TRAINING, **UNMANAGED, "no registry": REGISTRY}


TOO_FEW_GPUS = Case(
    pending(shell("true", resources={"cpu": "100m", "memory": "32Mi", "gpu": 2})), "unschedulable", ["GPU"]
)


@pytest.fixture
def one_free_gpu(kubernetes: Kubectl) -> Iterator[None]:
    """Use all GPUs of the node but one with a pod created outside Runway."""
    name = f"hog-{uuid.uuid4().hex[:8]}"
    limits = {"cpu": "10m", "memory": "16Mi", "nvidia.com/gpu": str(addresses.GPU_COUNT - 1)}
    container = {"name": "hog", "image": "runway.local/busybox:1", "command": ["sleep", "600"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container | {"resources": {"limits": limits}}]},
    }
    kubernetes.apply(json.dumps(pod))
    try:
        running = lambda: (kubernetes.get("pod", name, "default") or {})["status"]["phase"] == "Running" or None  # noqa: E731
        wait_for(running, "the hog runs")
        yield
    finally:
        kubernetes.run("delete", "pod", name, "--namespace=default", "--wait=true")


@pytest.fixture(scope="module")
def failed_jobs(tools: Tools, namespaces: Mapping[str, str]) -> Iterator[dict[str, Document]]:
    """Run all cases and return the views of the finished jobs."""
    context = Context(tools, show=lambda *_: None)

    def run(case: Case) -> Document:
        if case.spec.get("kind") != "Job":
            return context.until_finished(context.submit(case.tenant, case.spec)["id"])
        tools.kubernetes.run("create", f"--namespace={namespaces[case.tenant]}", "-f", "-", stdin=json.dumps(case.spec))
        job_id = str(case.spec["metadata"]["name"])
        context.track(job_id)
        # Runway knows a Job that it did not create only after its watch event.
        wait_for(lambda: context.runway.get(f"/v1/jobs/{job_id}").status_code == 200 or None, f"{job_id} known")
        return context.until_finished(job_id)

    try:
        # Jobs that run into their deadline start first.
        names = sorted(CASES, key=lambda name: CASES[name].spec.get("timeout_seconds") == JOB_SECONDS)
        with ThreadPoolExecutor(CONCURRENT_JOBS) as pool:
            yield dict(zip(names, pool.map(run, [CASES[name] for name in names]), strict=True))
    finally:
        context.cancel_jobs()
        for case in UNMANAGED.values():
            tools.kubernetes.run(
                "delete",
                "job",
                case.spec["metadata"]["name"],
                f"--namespace={namespaces[case.tenant]}",
                "--ignore-not-found",
            )


@pytest.mark.parametrize("name", CASES)
def test_failure_is_diagnosed(name: str, failed_jobs: dict[str, Document]) -> None:
    assert_failure(failed_jobs[name], CASES[name])


def test_job_that_ignores_sigterm_is_charged_at_most_its_ceiling(failed_jobs: dict[str, Document]) -> None:
    cost = failed_jobs["deadline, ignores SIGTERM"]["cost"]
    assert 0 < Decimal(cost["actual"]) <= Decimal(cost["ceiling"])


@pytest.mark.alone
@pytest.mark.usefixtures("one_free_gpu")
def test_unschedulable_for_lack_of_free_gpus_is_diagnosed(context: Context) -> None:
    view = context.submit(TOO_FEW_GPUS.tenant, TOO_FEW_GPUS.spec)
    assert_failure(context.until_finished(view["id"]), TOO_FEW_GPUS)


def assert_failure(view: Document, case: Case) -> None:
    """Check the failure code, words and evidence of the case."""
    failure = view["failure"]
    assert view["state"] == "failed"
    assert failure["code"] == case.code, failure
    text = json.dumps([failure["message"], failure["hint"], failure["evidence"]])
    assert [word for word in case.words if word not in text] == [], view
    assert {key: failure["evidence"].get(key) for key in case.evidence} == case.evidence
    assert failure["hint"]
