"""A log made fit for a terminal: its colours and carriage returns stay, all else that could drive it is shown. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

from runway.cli.text import safe

RESET: Final = b"\x1b[0m"

# Colours and the like (SGR), and nothing else of ECMA-48, which moves, erases, renames or asks.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,40}m")
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-9;:]{0,40})?\Z")
_KEPT: Final = re.compile(rf"({_COLOUR.pattern}|[\n\r\t])")


class TerminalSanitizer:
    """Takes a log in pieces, cut anywhere. What is no UTF-8 is shown as U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._coloured = False

    def feed(self, piece: bytes) -> bytes:
        """The piece as it may be shown; the beginning of a sequence at its end is held back."""
        text = self._held + self._decoder.decode(piece)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._shown(text.removesuffix(self._held) if self._held else text)

    def close(self) -> bytes:
        """What was held back, and the end of colours that the log has begun."""
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return self._shown(text) + (RESET if self._coloured else b"")

    def _shown(self, text: str) -> bytes:
        self._coloured = self._coloured or _COLOUR.search(text) is not None
        parts = _KEPT.split(text)
        # Every other part is one of those that are kept.
        return "".join(part if at % 2 else safe(part) for at, part in enumerate(parts)).encode()
