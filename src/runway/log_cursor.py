"""Resume a log after broken connections: each line once, in order. Pure.

Each line of the source begins with its time. After a break, the caller reads the log again from `since` or from its
beginning, and `LogCursor` drops the lines it returned before (docs/decisions/010-complete-logs.md).
"""

from __future__ import annotations

import re
from collections import Counter, deque
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final, NamedTuple

REMEMBERED_LINES: Final = 64  # A line may be out of order by this many lines.
MAX_TIMESTAMP_LENGTH: Final = 36
MAX_UNEXPECTED_BYTES: Final = 200
LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
NANOSECONDS: Final = 1_000_000_000
JUMP_SECONDS: Final = 2.0
"""Lines that are this far apart may have lost lines between them: a file of the kubelet lasts for at least 3 s."""

_STAMP: Final = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2}) "
)


class LineTime(NamedTuple):
    """The time of a line: as the source wrote it, and in nanoseconds since 1970."""

    stamp: str
    nanoseconds: int

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(min(max(self.nanoseconds // NANOSECONDS, 0), LAST_SECOND), UTC)


class Jump(NamedTuple):
    """The times of two successive lines, in nanoseconds since 1970, with a pause between them."""

    before: int
    after: int

    @property
    def seconds(self) -> float:
        return (self.after - self.before) / NANOSECONDS


class Piece(NamedTuple):
    """Part of a line. `stamp` is the line's time as the source wrote it, empty except in the first piece."""

    stamp: bytes
    text: bytes


class _Mode(Enum):
    """The treatment of the current line."""

    NONE = auto()  # There is no current line: the next bytes are a time.
    RETURN = auto()
    DROP = auto()
    FRAGMENT = auto()  # The rest of a line whose time is before `since`: the kubelet leaves out only its first part.
    UNEXPECTED = auto()  # Text of the kubelet. The cursor returns nothing after it.


class LogCursor:
    """A position in a log. Pass the source's bytes to `feed`, and call `rewind` for each new connection.

    Set `from_start` to False if the first line received need not be the first of the log.
    """

    def __init__(self, *, from_start: bool = True, remember: int = REMEMBERED_LINES) -> None:
        self._remember = remember
        self._from_start = from_start
        self._recent: deque[int] = deque()  # Times of the last lines returned.
        self._copies: Counter[int] = Counter()  # Number of lines returned of each recent time.
        self.jump: Jump | None = None
        """The first jump between two lines of the last `feed`."""
        self._floor: int | None = None  # Lines up to this time were returned, and are no longer recent.
        self._open = False  # Whether the end of the last line returned is missing.
        self._open_bytes = 0
        self.rewind()

    def rewind(self, *, whole: bool = False) -> None:
        """Start a new connection, which repeats part of the log. `whole`: the one before it ended without an error.

        A rotation cuts a line that is being written. Its rest then begins the next file, with a time of its own.
        """
        self._mode = _Mode.NONE
        self._held = self._unexpected = self._stamp = b""
        self._skip = 0  # Bytes of the current line that were returned before.
        self._behind = not self.at_start  # Whether the next line may be a repetition.
        self._repeats = self._copies.copy()  # Number of repetitions still expected of each recent time.
        self._first_line = True
        self._is_continued = whole and self._open  # Whether a first line that is new ends the line returned last.

    @property
    def at_start(self) -> bool:
        return not self._recent

    @property
    def newest(self) -> int | None:
        """Return the time of the last line returned, in nanoseconds since 1970."""
        return self._recent[-1] if self._recent else None

    @property
    def caught_up(self) -> bool:
        """Return whether this connection has reached the end of the connection before it."""
        return not self._behind

    @property
    def since(self) -> datetime | None:
        """Return the time, in whole seconds, from which to read again after a break. None means all of the log."""
        if not self._recent:
            return None
        # One second earlier includes lines out of order. A time zone can move a time out of the calendar.
        second = min(self._recent) // NANOSECONDS - 1
        return datetime.fromtimestamp(min(max(second, 0), LAST_SECOND), UTC)

    @property
    def unexpected_text(self) -> str:
        """Return the text that is not a log line, empty if there is none."""
        in_text = self._mode in (_Mode.FRAGMENT, _Mode.UNEXPECTED)
        return (self._unexpected if in_text else self._held).decode("utf-8", "replace")

    def feed(self, chunk: bytes) -> list[Piece]:
        """Return the new pieces in the next bytes."""
        pieces: list[Piece] = []
        self.jump = None
        if self._mode is _Mode.UNEXPECTED:
            self._keep_unexpected(chunk)
            return pieces
        data = self._held + chunk if self._held else chunk
        self._held = b""
        at = 0
        while at < len(data):
            if self._mode is _Mode.NONE:
                text_start = self._begin_line(data, at, pieces)
                if text_start is None:
                    break
                at = text_start
            end = data.find(b"\n", at) + 1
            self._continue_line(data[at : end or len(data)], pieces)
            if end:
                self._mode = _Mode.NONE
            at = end or len(data)
        return pieces

    def _begin_line(self, data: bytes, at: int, pieces: list[Piece]) -> int | None:
        """Begin the line at `at`. Return where its text begins, or None if its time is incomplete or invalid."""
        match = _STAMP.match(data, at)
        time = _nanoseconds(match) if match else None
        if match is None or time is None:
            if len(data) - at < MAX_TIMESTAMP_LENGTH and b"\n" not in data[at:]:
                self._held = data[at:]
                return None
            self._unexpected = b""
            if self._behind and self._first_line:
                self._mode = _Mode.FRAGMENT
                return at
            self._mode = _Mode.UNEXPECTED
            self._keep_unexpected(data[at:])
            return None
        is_first, self._first_line = self._first_line, False
        ends_open_line = False
        if self._is_repetition(time) or (is_first and self._is_rest_of_returned_line(time)):
            resumes = not self._behind and self._open
            self._mode = _Mode.RETURN if resumes else _Mode.DROP
            self._skip = self._open_bytes if resumes else 0
        else:
            ends_open_line = is_first and self._is_continued
            if self._open and not ends_open_line:
                pieces.append(Piece(b"", b"\n"))  # The rest of that line is lost.
            self._behind = False
            self._mode, self._skip = _Mode.RETURN, 0
            self._remember_line(time)
        self._stamp = b"" if self._open_bytes or ends_open_line else data[at : match.end() - 1]
        return match.end()

    def _is_repetition(self, time: int) -> bool:
        """Return whether an earlier connection had this line."""
        if not self._behind:
            return False
        if self._repeats[time] > 0:
            self._repeats[time] -= 1
            if time == self._recent[-1] and self._repeats[time] == 0:
                self._behind = False
            return True
        return self._floor is not None and time <= self._floor

    def _is_rest_of_returned_line(self, time: int) -> bool:
        """Return whether the first line of a file was returned before, as the end of a line that a rotation cut."""
        return self._behind and self.newest is not None and time < self.newest

    def _remember_line(self, time: int) -> None:
        if self.jump is None and self._recent and time - self._recent[-1] > JUMP_SECONDS * NANOSECONDS:
            self.jump = Jump(self._recent[-1], time)
        if self.at_start and not self._from_start:
            self._floor = time - 1
        self._recent.append(time)
        self._copies[time] += 1
        if len(self._recent) > self._remember:
            oldest = self._recent.popleft()
            if oldest not in self._recent:
                del self._copies[oldest]
            self._floor = oldest if self._floor is None else max(self._floor, oldest)
        self._open, self._open_bytes = True, 0

    def _continue_line(self, text: bytes, pieces: list[Piece]) -> None:
        if self._mode is _Mode.FRAGMENT:
            self._keep_unexpected(text)
        if self._mode is not _Mode.RETURN:
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
            self._open, self._open_bytes = False, 0

    def _keep_unexpected(self, text: bytes) -> None:
        self._unexpected = (self._unexpected + text[:MAX_UNEXPECTED_BYTES])[:MAX_UNEXPECTED_BYTES]


def line_time(data: bytes) -> LineTime | None:
    """Return the time at the beginning of a line; None without a valid one."""
    match = _STAMP.match(data)
    time = _nanoseconds(match) if match else None
    return None if match is None or time is None else LineTime(match[0].decode().rstrip(), time)


def _nanoseconds(match: re.Match[bytes]) -> int | None:
    moment, fraction, zone = match.groups()
    try:
        seconds = int(datetime.fromisoformat((moment + zone).decode()).timestamp())
    except ValueError:
        return None
    return seconds * NANOSECONDS + int((fraction or b"0").ljust(9, b"0"))
