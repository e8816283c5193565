"""The schema of a job specification: the bounds of `jobs.spec`. Those of the policy stand in `GET /v1/policy`."""

from __future__ import annotations

import re
from typing import Any, Final

from runway.jobs.spec import (
    ENV_NAME,
    IMAGE,
    MAX_ENV,
    MAX_ENV_BYTES,
    MAX_STRING_BYTES,
    MAX_STRINGS,
    MONEY,
    RESERVED_ENV_PREFIXES,
)
from runway.jobs.spec import LABEL as LABEL_GRAMMAR
from runway.quantity import GRAMMAR, MAX_LENGTH


def pattern(grammar: re.Pattern[str], ahead: str = "") -> str:
    """A grammar of the code as JSON Schema writes it: anchored, and with groups that have no names."""
    text = re.sub(r"\?P<[a-z]+>", "?:", grammar.pattern)
    return f"^{ahead}(?:{text})$"


LABEL: Final = pattern(LABEL_GRAMMAR)
"""A name for people, or of a GPU type: what Kubernetes takes as the value of a label."""
QUANTITY: Final = pattern(GRAMMAR)
IMAGE_REFERENCE: Final = pattern(IMAGE)
PRICE: Final = pattern(MONEY)
_ENV_NAME: Final = pattern(ENV_NAME, f"(?!{'|'.join(RESERVED_ENV_PREFIXES)})")
_PASSABLE: Final = r"^[^\x00]*$"
"""What can be handed to a process: a NUL would end it."""


def _texts(description: str) -> dict[str, Any]:
    return {
        "type": ["array", "null"],
        "maxItems": MAX_STRINGS,
        "items": {"type": "string", "maxLength": MAX_STRING_BYTES, "pattern": _PASSABLE},
        "description": f"{description}. Reaches the process verbatim. At most {MAX_STRING_BYTES} UTF-8 bytes in all",
    }


def _number(description: str, least: int) -> dict[str, Any]:
    return {"type": ["integer", "null"], "minimum": least, "maximum": 2**31 - 1, "description": description}


_RESOURCES: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["cpu", "memory"],
    "additionalProperties": False,
    "description": "What each attempt gets, and is held to: requests equal limits",
    "properties": {
        "cpu": {
            "type": "string",
            "maxLength": MAX_LENGTH,
            "pattern": QUANTITY,
            "description": "A Kubernetes quantity such as `500m` or `2`, no finer than `1m`. More is throttled",
        },
        "memory": {
            "type": "string",
            "maxLength": MAX_LENGTH,
            "pattern": QUANTITY,
            "description": "A Kubernetes quantity such as `512Mi` or `8Gi`, in whole bytes. More is killed",
        },
        "gpu": _number("Whole GPUs, all on one node. 0 by default", 0),
        "gpu_type": {
            "type": ["string", "null"],
            "maxLength": 63,
            "pattern": LABEL,
            "description": "One of the policy's GPU types; where it has one only it may be left out. Needs `gpu`",
        },
    },
}

JOB_SPEC: Final[dict[str, Any]] = {
    "type": "object",
    "title": "JobSpec",
    "required": ["image", "resources"],
    "additionalProperties": False,
    "description": "What a caller asks for. Unknown fields are refused; null is the same as leaving a field out. "
    "Beyond these bounds the policy's hold (`GET /v1/policy`): amounts, times, allowed images, GPU types",
    "properties": {
        "name": {
            "type": ["string", "null"],
            "maxLength": 63,
            "pattern": LABEL,
            "description": "A label for people; need not be unique",
        },
        "image": {
            "type": "string",
            "maxLength": 512,
            "pattern": IMAGE_REFERENCE,
            "description": "An image reference from an allowed repository: `registry/team/train:1.4`, or by digest",
        },
        "command": _texts("Replaces the image's entry point"),
        "args": _texts("The arguments of the command, or of the image's entry point"),
        "env": {
            "type": ["object", "null"],
            "maxProperties": MAX_ENV,
            "propertyNames": {"pattern": _ENV_NAME},
            "additionalProperties": {"type": "string", "maxLength": MAX_ENV_BYTES, "pattern": _PASSABLE},
            "description": f"Environment variables; they reach the process verbatim. At most {MAX_ENV_BYTES} UTF-8 "
            f"bytes in all. Not free: names that start with {', '.join(f'`{name}`' for name in RESERVED_ENV_PREFIXES)}",
        },
        "resources": _RESOURCES,
        "timeout_seconds": _number(
            "The whole life of the job from acceptance: waiting, image pull and retries included. It bounds the cost, "
            "and for how long quota can be held. The policy's default where it is left out",
            1,
        ),
        "retries": _number("Attempts after one that failed by itself; disruptions do not count. 0 by default", 0),
        "grace_period_seconds": _number(
            "Between SIGTERM and SIGKILL: at the deadline, a cancel, an eviction. The policy's default where left out",
            1,
        ),
        "max_cost_usd": {
            "type": ["string", "null"],
            "pattern": PRICE,
            "description": "Refuse the job if it could cost more than this: its hourly price times its timeout",
        },
    },
}
