"""Sanitize untrusted text; format amounts, times and money for people.

Messages come from images, registries and anyone who may write events. `escape` shows each character that could steer a
terminal or hide text as an escape such as `\\x1b`. Every quoted text has a limit. Pure.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from difflib import get_close_matches
from typing import Final

from runway.quantity import format_bytes, parse_bytes

MESSAGE: Final = 400  # Characters of an untrusted message that are quoted.
LAST_WORDS: Final = 2048  # Characters of the end of a log that are kept as evidence: the kubelet keeps at most as many.

_MAX_MATCHED: Final = 4000
_CURSOR_UP: Final = "\x1b[A"
_CUT: Final = " ... "
_BYTE_UNITS: Final = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))
_TIME_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_USD: Final = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,28})?")
_SMALLEST_USD: Final = Decimal("0.0001")
_MICRO_USD: Final = Decimal("0.000001")
_USD_DIGITS: Final = 4  # Significant digits of an amount, whose cents always show.
# Controls, format characters (bidi overrides, zero width), lone surrogates, line and paragraph separators.
_STEERING: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape(value: object, keep: str = "") -> str:
    """Escape each character that is not printable, except those in `keep`."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _escaped(letter) for letter in text)


def escape_controls(text: str) -> str:
    """Escape only characters that steer a terminal: a log may hold glyphs that this Python does not know."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if unicodedata.category(letter) in _STEERING else letter for letter in text)


def shorten(text: str, limit: int = 80) -> str:
    """Escape a caller's text and cut its end; empty text becomes `""`."""
    shown = escape(text[: limit + 1])
    return (shown if len(shown) <= limit else shown[:limit] + "…") or '""'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean gpu? ` for the known word that is most like a misspelt one; empty if none is."""
    known = list(known)
    close = get_close_matches(word[:MESSAGE], known, n=1) or [each for each in known if each.startswith(f"{word}_")]
    return f"did you mean {close[0]}? " if close else ""


def one_line(text: str | None, limit: int = MESSAGE) -> str:
    """Show an untrusted message as one line. A long one loses its middle: its ends say where and why."""
    text = text or ""
    if len(text) > 4 * limit:
        text = text[: 2 * limit] + _CUT + text[-2 * limit :]
    text = escape(" ".join(text.split()))
    if len(text) <= limit:
        return text
    end = (limit - len(_CUT)) // 2
    return text[: limit - len(_CUT) - end] + _CUT + text[-end:]


def bounded(text: str) -> str:
    """Cut the middle of an untrusted message before patterns are matched against it."""
    return text if len(text) <= _MAX_MATCHED else text[: _MAX_MATCHED // 2] + _CUT + text[-_MAX_MATCHED // 2 :]


def end_states(text: str) -> str:
    """Replace each line by its end state: a carriage return starts it again, as in a progress bar.

    A bar below others moves the cursor back up at its end, so the next line overwrites it.
    https://github.com/tqdm/tqdm/blob/v4.67.1/tqdm/std.py (`moveto`)
    """
    if "\r" not in text:
        return text
    lines: list[str] = []
    rises = 0
    for line in text.split("\n"):
        del lines[max(0, len(lines) - rises) :]
        end_state, rises = _without_rises(line.rstrip("\r").rpartition("\r")[2])
        lines.append(end_state)
    return "\n".join(lines)


def _without_rises(line: str) -> tuple[str, int]:
    """Remove the movements of the cursor at the end of a line, and count them."""
    end = len(line)
    while line.endswith(_CURSOR_UP, 0, end):
        end -= len(_CURSOR_UP)
    return line[:end], (len(line) - end) // len(_CURSOR_UP)


def last_lines(text: str, limit: int = LAST_WORDS) -> str:
    """Return the end of a log, with its line breaks and the end states of its lines."""
    return escape(end_states(text)[-limit:], keep="\n\t")[-limit:]


def show_bytes(amount: float) -> str:
    """Show bytes with one decimal, rounded down: `"9.8Gi"`."""
    for unit, size in _BYTE_UNITS:
        if amount >= size:
            return f"{_one_decimal(amount / size)}{unit}"
    return str(int(amount))


def amounts_in_words(gpu: int | None, cpu: int, memory: int) -> str:
    """Show GPUs (unless None), milli-CPU and bytes: `"1 GPU, 3.5 CPU and 10Gi of memory"`."""
    gpus = "" if gpu is None else f"{gpu} GPU, "
    return f"{gpus}{_one_decimal(cpu / 1000)} CPU and {show_bytes(memory)} of memory"


def twice(amount: str) -> str:
    """Double an amount of memory: `"1Gi"` for `"512Mi"`. An edited annotation may hold no amount."""
    try:
        return format_bytes(2 * parse_bytes(amount))
    except ValueError:
        return f"twice {one_line(amount)}"


def show_duration(seconds: float) -> str:
    """Show the two largest units: `45s`, `3m20s`, `2h`, `4d3h`. Clocks differ, so a negative duration is `0s`."""
    rest, parts = max(0, int(seconds)), []
    for unit, size in _TIME_UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2]) or "0s"


def show_between(start: datetime | None, end: datetime | None) -> str:
    """Show the time from `start` to `end`; empty where either is unknown."""
    return "" if start is None or end is None else show_duration((end - start).total_seconds())


def show_usd(amount: object, limit: object = None) -> str:
    """Show USD with four significant digits, and always with cents: `0.003554`, `12.35`, `1234.50`, `<0.0001`.

    Rounding keeps the order of amounts: an amount within its limit never shows as above it. Beside a limit below
    0.0001, digits show down to a millionth. Escape other text.
    """
    usd = _parse_usd(amount)
    if usd is None:
        return escape(amount)
    bound = _parse_usd(limit)
    smallest = _SMALLEST_USD if bound is None or abs(bound) >= _SMALLEST_USD else _MICRO_USD
    if 0 < abs(usd) < smallest:
        return f"<{smallest:f}" if usd > 0 else f">-{smallest:f}"
    decimals = max(2, _USD_DIGITS - 1 - usd.adjusted()) if usd else 2
    rounded = usd.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    whole, _, fraction = f"{abs(rounded):f}".partition(".")
    return f"{'-' if rounded < 0 else ''}{whole}.{fraction.rstrip('0'):0<2}"


def _parse_usd(amount: object) -> Decimal | None:
    text = f"{amount:f}" if isinstance(amount, Decimal) else str(amount)
    return Decimal(text) if _USD.fullmatch(text) else None


def show_ratio(ratio: float) -> str:
    """Show a ratio from 0 to 1 as a whole percentage; a positive ratio is never `0%`."""
    return "under 1%" if 0 < ratio < 0.01 else f"{ratio:.0%}"


def _one_decimal(value: float) -> str:
    return f"{math.floor(value * 10) / 10:.1f}".removesuffix(".0")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
