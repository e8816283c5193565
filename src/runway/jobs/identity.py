"""What a job is called in Kubernetes, and how a specification is told from another.

The names of labels and annotations that Runway puts on Jobs and pods stand here too: they are how state is rebuilt.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

import msgspec

from runway.jobs.spec import JobSpec

PREFIX: Final = "runway.internal/"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_JOB: Final = PREFIX + "job"
LABEL_NAME: Final = PREFIX + "name"
LABEL_TENANT: Final = PREFIX + "tenant"
ANNOTATION_COST: Final = PREFIX + "cost"
ANNOTATION_CANCELLED_AT: Final = PREFIX + "cancelled-at"
ANNOTATION_RECORD: Final = PREFIX + "record"
ANNOTATION_SPEC: Final = PREFIX + "spec"
ANNOTATION_SPEC_HASH: Final = PREFIX + "spec-hash"

MANAGED_BY: Final = "runway"
JOB_ID: Final = re.compile(r"rw-[a-z2-7]{20}")

_canonical = msgspec.json.Encoder(order="sorted")


def job_id(tenant: str, key: str) -> str:
    """The Job's name: `rw-` and 100 bits of a hash of tenant and key, as 20 letters of base32.

    The same tenant and key always give the same name, so Kubernetes itself refuses the second create: names are
    unique in a namespace. A pod's name adds six characters and stays well inside the 63 of a DNS label.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
    """
    digest = hashlib.sha256(f"{tenant}\0{key}".encode()).digest()
    # 15 bytes are 24 letters: no more is worked out than is needed.
    return "rw-" + base64.b32encode(digest[:15]).decode().lower()[:20]


def spec_hash(spec: JobSpec) -> str:
    """A hash of the admitted specification: equal exactly where they are, `2.5` and `2.50` USD included."""
    cap = None if spec.max_cost_usd is None else f"{spec.max_cost_usd.normalize():f}"
    return hashlib.sha256(canonical_json({**spec.to_json(), "max_cost_usd": cap}).encode()).hexdigest()


def canonical_json(document: object) -> str:
    """JSON with sorted keys and no spaces: one text for one value."""
    return _canonical.encode(document).decode()
