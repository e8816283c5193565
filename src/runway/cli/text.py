"""Text for people: foreign text made harmless, durations and ages. Pure."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

import typer

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}[dhms])+")
# Controls, format characters (bidi overrides, zero width), lone surrogates, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def safe(value: object) -> str:
    """`value` as one line that cannot steer a terminal: what could is shown as an escape such as `\\x1b`."""
    return "".join(
        letter.encode("unicode_escape").decode("ascii") if unicodedata.category(letter) in _UNSAFE else letter
        for letter in str(value)
    )


def parse_duration(text: str) -> int:
    """Whole seconds from `90`, `90s`, `30m`, `1h30m` or `2d`. Raises typer.BadParameter for anything else."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    if not _DURATION.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 90s, 30m, 1h30m or 2d")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", text))


def show_duration(seconds: float) -> str:
    """The two largest units that matter: `45s`, `3m20s`, `2h`, `4d3h`."""
    rest, parts = max(0, int(seconds)), []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2]) or "0s"


def show_age(time: str | None, now: datetime) -> str:
    """How long before `now` an RFC 3339 time lies; empty for None, the text itself where it is not a time."""
    if time is None:
        return ""
    try:
        return show_duration((now - datetime.fromisoformat(time)).total_seconds())
    except (ValueError, TypeError):
        return safe(time)
