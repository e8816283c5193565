"""Sanitize a log for a terminal: keep colours and carriage returns, escape every other control. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

from runway.text import escape_controls

RESET: Final = b"\x1b[0m"

# Colours (SGR) alone: the other sequences of ECMA-48 move the cursor, erase, rename the window or query the terminal.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,40}m")
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-9;:]{0,40})?\Z")
_KEPT: Final = re.compile(rf"({_COLOUR.pattern}|[\n\r\t])")


class TerminalSanitizer:
    """Sanitizes a log that arrives in pieces, cut anywhere. Bytes that are not UTF-8 become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._coloured = False

    def feed(self, piece: bytes) -> bytes:
        """Return the sanitized piece. Hold back the beginning of a sequence at its end."""
        text = self._held + self._decoder.decode(piece)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._sanitized(text.removesuffix(self._held) if self._held else text)

    def close(self) -> bytes:
        """Return the text held back, and reset the colours that the log began."""
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return self._sanitized(text) + (RESET if self._coloured else b"")

    def _sanitized(self, text: str) -> bytes:
        self._coloured = self._coloured or _COLOUR.search(text) is not None
        parts = _KEPT.split(text)
        # Every other part is one that is kept.
        return "".join(part if at % 2 else escape_controls(part) for at, part in enumerate(parts)).encode()
