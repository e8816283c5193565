"""The jobs of the soak: what each one runs and writes, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LINES = 2000


@dataclass(frozen=True, slots=True)
class Script:
    """The command of a job, all that it writes, and its final state."""

    command: str
    log: bytes
    end: str


SCRIPTS = (
    Script("echo begun; sleep 2; echo done", b"begun\ndone\n", "succeeded"),
    Script("echo begun; sleep 1; exit 3", b"begun\n", "failed"),
    Script(
        f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; sleep 2; echo done",
        b"".join(b"line %d\n" % number for number in range(LINES)) + b"done\n",
        "succeeded",
    ),
)
SCRIPT_WEIGHTS = (3, 1, 1)


def spec_of(script: Script, gpus: int) -> dict[str, Any]:
    """Return the specification of a job that runs this script."""
    resources: dict[str, Any] = {"cpu": "50m", "memory": "32Mi"} | ({"gpu": gpus} if gpus else {})
    return {
        "image": "runway.local/busybox:1",
        "command": ["sh", "-c", script.command],
        "resources": resources,
        "timeout_seconds": 120,
        "grace_period_seconds": 2,
    }
