"""The version of the API server, and the oldest one that Runway supports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from runway.kube.transport import Response
from runway.text import one_line

MIN_VERSION: Final = (1, 30)
"""Below 1.29 the API server silently drops `podReplacementPolicy`, on which quota depends. 1.30 is the first with
`preStop.sleep` enabled and with ValidatingAdmissionPolicy. deploy/chart/Chart.yaml has the same version.

https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/
"""
MIN_VERSION_NAME: Final = ".".join(map(str, MIN_VERSION))
MAX_NAME_CHARACTERS: Final = 100


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """The version of the API server. `date` is its clock in whole seconds, if it sent one."""

    number: tuple[int, int] | None
    """Major and minor; None if the response has none."""
    name: str
    date: datetime | None = None

    @property
    def is_too_old(self) -> bool:
        return self.number is not None and self.number < MIN_VERSION


def read_version(answer: Response) -> ServerVersion:
    """Read the response of `/version`, whatever it contains."""
    try:
        decoded = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    document: dict[str, Any] = decoded if isinstance(decoded, dict) else {}
    # Managed clusters write 35+.
    major, minor = (re.match(r"[0-9]{1,6}", str(document.get(part, ""))) for part in ("major", "minor"))
    number = (int(major[0]), int(minor[0])) if major and minor else None
    name = one_line(str(document.get("gitVersion") or ""), MAX_NAME_CHARACTERS)
    return ServerVersion(number, name or (f"{number[0]}.{number[1]}" if number else "unknown"), _date(answer))


def _date(answer: Response) -> datetime | None:
    try:
        date = parsedate_to_datetime(answer.date or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else None
