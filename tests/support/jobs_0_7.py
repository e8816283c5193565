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
