"""Foreign text made harmless and short, and amounts as people read them. Pure.

Messages come from images, registries and whoever may write events: what could steer a terminal or hide text is shown
as an escape such as `\\x1b`, and nothing is longer than its bound.
"""

from __future__ import annotations

import math
from typing import Final

from runway.quantity import format_bytes, parse_bytes

MESSAGE: Final = 400
"""Characters of a foreign message that are quoted."""
LAST_WORDS: Final = 2048
"""Characters of the end of a log that are kept as evidence: what the kubelet keeps at most."""

_READ: Final = 4000
_CUT: Final = " ... "
_UNITS: Final = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


def one_line(text: str | None, limit: int = MESSAGE) -> str:
    """A foreign message as one line. The middle of a long one is left out: where and why stand at its ends."""
    text = text or ""
    if len(text) > 4 * limit:
        text = text[: 2 * limit] + _CUT + text[-2 * limit :]
    text = visible(" ".join(text.split()))
    if len(text) <= limit:
        return text
    end = (limit - len(_CUT)) // 2
    return text[: limit - len(_CUT) - end] + _CUT + text[-end:]


def bounded(text: str) -> str:
    """As much of a foreign message as patterns are tried on: its two ends."""
    return text if len(text) <= _READ else text[: _READ // 2] + _CUT + text[-_READ // 2 :]


def last_lines(text: str, limit: int = LAST_WORDS) -> str:
    """The end of a log, its lines kept."""
    return visible(text[-limit:], keep="\n\t")[-limit:]


def bytes_in_words(amount: int) -> str:
    """Bytes to one decimal, rounded down: `"9.8Gi"`."""
    for unit, size in _UNITS:
        if amount >= size:
            return f"{_decimal(amount / size)}{unit}"
    return str(amount)


def twice(amount: str) -> str:
    """Twice an amount of memory: `"1Gi"` for `"512Mi"`; in words where it is no amount, as after a change by hand."""
    try:
        return format_bytes(2 * parse_bytes(amount))
    except ValueError:
        return f"twice {one_line(amount)}"


def amounts_in_words(gpu: int | None, cpu: int, memory: int) -> str:
    """GPUs (None where they do not matter), milli-CPU and bytes: `"1 GPU, 3.5 CPU and 10Gi of memory"`."""
    gpus = "" if gpu is None else f"{gpu} GPU, "
    return f"{gpus}{_decimal(cpu / 1000)} CPU and {bytes_in_words(memory)} of memory"


def visible(text: str, keep: str = "") -> str:
    """The text with each character that cannot be seen, or that steers what shows it, as an escape; but for `keep`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _escape(letter) for letter in text)


def _decimal(value: float) -> str:
    return f"{math.floor(value * 10) / 10:.1f}".removesuffix(".0")


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
