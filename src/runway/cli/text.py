"""Text for people: foreign text made harmless, durations, ages, amounts of money and memory. Pure."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

import typer

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}[dhms])+")
_USD = re.compile(r"-?[0-9]{1,12}\.[0-9]{2,12}")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
# Controls, format characters (bidi overrides, zero width), lone surrogates, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def safe(value: object) -> str:
    """`value` as one line that cannot steer a terminal: what could is shown as an escape such as `\\x1b`."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode("ascii") if unicodedata.category(letter) in _UNSAFE else letter
        for letter in text
    )


def is_name(text: str) -> bool:
    """Whether Kubernetes could have an object, so Runway a job or a tenant, of this name."""
    return _NAME.fullmatch(text) is not None


def parse_duration(text: str) -> int:
    """Whole seconds from `90`, `90s`, `30m`, `1h30m` or `2d`. Raises typer.BadParameter for anything else."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    if not _DURATION.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 90s, 30m, 1h30m or 2d")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", text))


def parse_moment(text: object) -> datetime | None:
    """An RFC 3339 time with its zone, in UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None


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
    moment = parse_moment(time)
    return safe(time) if moment is None else show_duration((now - moment).total_seconds())


def show_usd(amount: str) -> str:
    """USD without the zeros that say nothing: `1.418000` is `1.418`, `2.000000` is `2.00`; other text as it is."""
    if not _USD.fullmatch(amount):
        return safe(amount)
    whole, _, part = amount.partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"


def show_bytes(amount: float) -> str:
    """Bytes in the largest binary unit that they fill: `512Ki`, `61Mi`, `1.5Gi`."""
    for suffix in ("", "Ki", "Mi"):
        if amount < 1024:
            return f"{amount:.0f}{suffix}"
        amount /= 1024
    return f"{amount:.1f}".removesuffix(".0") + "Gi"
