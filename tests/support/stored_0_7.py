"""What version 0.7 stored in a real cluster, with its own views of it. Written by 0.7; never change it.

Each job has the Job and its pods as Kubernetes had them when 0.7 stopped. Server-side fields that Runway does not read
are left out. `jobs_0_7` has more kinds of requests, without what Kubernetes did with them.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple

Json = dict[str, Any]


class StoredJob(NamedTuple):
    """One submission to 0.7 under `key`, its Job and pods, and the view of 0.7."""

    key: str
    request: Json
    job: Json
    pods: list[Json]
    view: Json

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])

    @property
    def record(self) -> str | None:
        """The record as the text of its annotation."""
        return self.annotations.get(RECORD)

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.job["metadata"]["annotations"])

    def manifest(self, namespace: str) -> Json:
        """Return the Job as 0.7 created it: without what came later, in this namespace."""
        manifest = deepcopy({name: self.job[name] for name in ("apiVersion", "kind", "metadata", "spec")})
        metadata = manifest["metadata"]
        for name in ("uid", "creationTimestamp"):
            del metadata[name]
        metadata["namespace"] = namespace
        metadata["annotations"].pop(RECORD, None)
        return manifest


RECORD: Final = "runway.internal/record"
_DOCUMENT: Final = json.loads(Path(__file__).with_name("stored_0_7.json").read_text(encoding="utf-8"))
STORED: Final = {name: StoredJob(**job) for name, job in _DOCUMENT["jobs"].items()}
USED: Final[Json] = _DOCUMENT["used"]
"""The quota that 0.7 counted for all of them."""
FINAL: Final = ("succeeded", "failed", "cancelled", "deadline")
"""The jobs with a final record."""


def as_0_7_showed(view: Json) -> Json:
    """Return a view without texts for people, which later versions may improve."""
    shown = deepcopy(view)
    for item in (*shown["attempts"], *shown["conditions"], *filter(None, [shown["failure"]])):
        for name in ("message", "hint", "evidence"):
            item.pop(name, None)
    return shown


def only_fields_of(template: Any, value: Any) -> Any:
    """Return `value` without the fields that `template` lacks: later versions add fields to their views."""
    if isinstance(template, dict) and isinstance(value, dict):
        return {name: only_fields_of(template[name], value[name]) for name in template if name in value}
    if isinstance(template, list) and isinstance(value, list) and len(template) == len(value):
        return [only_fields_of(*pair) for pair in zip(template, value, strict=True)]
    return value
