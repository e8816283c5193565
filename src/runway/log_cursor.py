"""The lines of a container's log, each once and in order, however often the connection that brings them breaks. Pure.

The source begins each line with its time, as the kubelet does when it is asked for timestamps. After a break the log
is read again from a little before the place where it broke (`since`), or from its beginning, and `LogCursor` drops what
was taken before. Where that place is, is told by order and not by time alone:

- Several lines may have the same time, to the nanosecond, so their copies are counted.
- The container runtime stamps stdout and stderr apart, so a line may be a little older than the one before it.
- A long line comes in bits: how much of the last one was taken is counted in bytes, and nothing waits for its end.

What the kubelet says in place of a log, such as that the file is gone, comes without a time, in the same stream and
with status 200: https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/kubelet/server/server.go (getContainerLogs).
"""

from __future__ import annotations

import re
from collections import Counter, deque
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final, NamedTuple

REMEMBERED_LINES: Final = 64
"""Times of so many lines are kept: by as many places lines may be out of their order in time."""
MAX_TIMESTAMP_LENGTH: Final = 36
FOREIGN_BYTES: Final = 200
LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z in seconds since 1970: the last time that has four digits of a year."""

_STAMP: Final = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2}) "
)


class Piece(NamedTuple):
    """Some of a line: `stamp` is its time as it was written, empty where the piece goes on with a line."""

    stamp: bytes
    text: bytes


class _Mode(Enum):
    """What is done with the line that is being read."""

    NONE = auto()
    """No line has begun: the next bytes are a time."""
    TAKE = auto()
    DROP = auto()
    FRAGMENT = auto()
    """The end of a line whose time is before `since`: the kubelet leaves out the first part alone."""
    FOREIGN = auto()


class LogCursor:
    """A place in a log. Give it what the source sends; `rewind` when the source begins anew.

    `from_start` is False where the first line that comes need not be the log's first.
    """

    def __init__(self, *, from_start: bool = True, remember: int = REMEMBERED_LINES) -> None:
        self._remember = remember
        self._recent: deque[int] = deque()
        self._copies: Counter[int] = Counter()
        """How many lines of each recent time were taken."""
        self._floor: int | None = None
        """Lines up to this time were taken, and are not among the recent ones."""
        self._from_start = from_start
        self._open: int | None = None
        """The time of the last line, while its end was not taken."""
        self._open_bytes = 0
        self._clock = (b"", b"", 0)
        self.rewind()

    def rewind(self) -> None:
        """The next bytes are the first of a new connection, which repeats some of what was taken."""
        self._mode = _Mode.NONE
        self._held = b""
        self._said = b""
        self._stamp = b""
        self._skip = 0
        """So many bytes of the line that is being read were taken before."""
        self._behind = not self.at_start
        """Whether what comes may have been taken before; `_repeats` counts what is still to be repeated, by time."""
        self._repeats = self._copies.copy()
        self._first_line = True

    @property
    def at_start(self) -> bool:
        """Whether no line was taken yet."""
        return not self._recent

    @property
    def caught_up(self) -> bool:
        """Whether this connection has come to where the one before it ended."""
        return not self._behind

    @property
    def since(self) -> datetime | None:
        """From when on the log has to be read again after a break; None for all of it. Whole seconds.

        A second before the oldest line that is remembered, so that what is out of order is not missed. A time zone can
        move the time of a line to a year that no calendar has.
        """
        if not self._recent:
            return None
        second = min(self._recent) // 1_000_000_000 - 1
        return datetime.fromtimestamp(min(max(second, 0), LAST_SECOND), UTC)

    @property
    def unexpected_text(self) -> str:
        """What the source said that is no line of a log; empty where all was. Nothing after it is taken."""
        if self._mode in (_Mode.FRAGMENT, _Mode.FOREIGN):
            return self._said.decode("utf-8", "replace")
        return self._held.decode("utf-8", "replace")

    def feed(self, chunk: bytes) -> list[Piece]:
        """The pieces in the next bytes that were not taken before."""
        pieces: list[Piece] = []
        if self._mode is _Mode.FOREIGN:
            self._said = (self._said + chunk)[:FOREIGN_BYTES]
            return pieces
        data = self._held + chunk if self._held else chunk
        self._held = b""
        at = 0
        while at < len(data):
            if self._mode is _Mode.NONE:
                begun = self._begin_line(data, at, pieces)
                if begun is None:
                    break
                at = begun
            end = data.find(b"\n", at) + 1
            self._go_on(data[at : end or len(data)], pieces)
            if end:
                self._mode = _Mode.NONE
            at = end or len(data)
        return pieces

    def _begin_line(self, data: bytes, at: int, pieces: list[Piece]) -> int | None:
        """Begin the line at `at`; where its text begins, or None where its time has not come in full, or is none."""
        match = _STAMP.match(data, at)
        time = self._nanoseconds(match) if match else None
        if match is None or time is None:
            if len(data) - at < MAX_TIMESTAMP_LENGTH and b"\n" not in data[at:]:
                self._held = data[at:]
                return None
            if self._behind and self._first_line:
                self._mode, self._said = _Mode.FRAGMENT, b""
                return at
            self._mode, self._said = _Mode.FOREIGN, data[at : at + FOREIGN_BYTES]
            return None
        self._first_line = False
        if self._is_old(time):
            resumes = not self._behind and self._open is not None
            self._mode = _Mode.TAKE if resumes else _Mode.DROP
            self._skip = self._open_bytes if resumes else 0
        else:
            if self._open is not None:
                pieces.append(Piece(b"", b"\n"))  # The rest of that line is lost; the next one stands by itself.
            self._behind = False
            self._mode, self._skip = _Mode.TAKE, 0
            self._take(time)
        self._stamp = b"" if self._open_bytes else data[at : match.end() - 1]
        return match.end()

    def _is_old(self, time: int) -> bool:
        """Whether a line was taken on an earlier connection. The last of those ends the repetition."""
        if not self._behind:
            return False
        if self._repeats[time] > 0:
            self._repeats[time] -= 1
            if time == self._recent[-1] and self._repeats[time] == 0:
                self._behind = False
            return True
        return self._floor is not None and time <= self._floor

    def _take(self, time: int) -> None:
        """Remember a new line."""
        if self.at_start and not self._from_start:
            self._floor = time - 1
        self._recent.append(time)
        self._copies[time] += 1
        if len(self._recent) > self._remember:
            oldest = self._recent.popleft()
            if oldest not in self._recent:
                del self._copies[oldest]
            self._floor = oldest if self._floor is None else max(self._floor, oldest)
        self._open, self._open_bytes = time, 0

    def _go_on(self, text: bytes, pieces: list[Piece]) -> None:
        """Take or drop some text of the line that is being read."""
        if self._mode is _Mode.FRAGMENT:
            self._said = (self._said + text)[:FOREIGN_BYTES]
        if self._mode is not _Mode.TAKE:
            return
        ends = text.endswith(b"\n")
        if self._skip:
            skipped = min(self._skip, len(text) - ends)
            self._skip -= skipped
            text = text[skipped:]
        if text:
            pieces.append(Piece(self._stamp, text))
            self._stamp = b""
        self._open_bytes += len(text)
        if ends:
            self._open, self._open_bytes = None, 0

    def _nanoseconds(self, match: re.Match[bytes]) -> int | None:
        """The time of a line since 1970; None where there is no such time."""
        moment, fraction, zone = match.groups()
        if self._clock[:2] != (moment, zone):
            try:
                seconds = datetime.fromisoformat((moment + zone).decode()).timestamp()
            except ValueError:
                return None
            self._clock = (moment, zone, int(seconds))
        return self._clock[2] * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
