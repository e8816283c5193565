"""Jobs that version 0.7 created, with the requests that it got. Written by 0.7; never change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from runway.kube.objects import Job

NAMESPACE: Final = "runway-vision"
TENANT: Final = "vision"


class JobOf07(NamedTuple):
    """One submission to 0.7 under `key`, and the Job that it created."""

    key: str
    request: dict[str, Any]
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def manifest(self) -> dict[str, Any]:
        """The Job as the API server returns it, with a small container."""
        container = {"name": "job", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
        metadata = {"name": self.name, "namespace": NAMESPACE, "uid": f"uid-{self.name}"}
        return {
            "metadata": {**metadata, "labels": self.labels, "annotations": self.annotations},
            "spec": {"template": {"metadata": {"labels": self.labels}, "spec": {"containers": [container]}}},
        }

    @property
    def job(self) -> Job:
        return msgspec.convert(self.manifest, Job)


def _read() -> dict[str, JobOf07]:
    documents = json.loads(Path(__file__).with_name("jobs_0_7.json").read_text(encoding="utf-8"))
    return {key: JobOf07(key, **document) for key, document in documents.items()}


JOBS: Final = _read()
FAILURE_CODES: Final = frozenset(
    {
        "aborted", "admission_rejected", "bus_error", "command_not_executable", "command_not_found",
        "container_config_error", "container_lost", "deadline_exceeded", "drained", "ephemeral_storage_exceeded",
        "evicted", "evicted_disk", "evicted_memory", "evicted_pids", "exit_nonzero", "floating_point_exception",
        "illegal_instruction", "image_access_denied", "image_name_invalid", "image_not_found", "image_pull_failed",
        "image_runs_as_root", "killed_by_signal", "node_lost", "node_shutdown", "node_tainted", "oom_child_suspected",
        "oom_killed", "pod_creation_refused", "pod_deleted", "pod_security_refused", "preempted", "quota_backstop",
        "registry_unavailable", "runtime_failed", "sandbox_failed", "segmentation_fault", "sigkill_unexplained",
        "start_failed", "terminated", "unknown", "unschedulable",
    }
)  # fmt: skip
"""The failure codes of version 0.7. It takes a record with another code for invalid, and overwrites it."""
