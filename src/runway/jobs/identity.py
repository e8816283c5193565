"""Names of the labels and annotations that Runway sets on Jobs and pods.

Runway rebuilds its state from them after a restart, so their names never change.
"""

from __future__ import annotations

import re
from typing import Final

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
