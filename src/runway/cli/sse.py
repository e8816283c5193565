"""Server-sent events, as far as a client needs them: https://html.spec.whatwg.org/multipage/server-sent-events.html

Pure: from chunks of bytes to events.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MAX_EVENT_CHARACTERS: Final = 4 << 20
"""A longer event is not one of Runway's: a job view has at most a few hundred thousand."""


class TooLong(Exception):
    """An event that is longer than `MAX_EVENT_CHARACTERS`."""


class Event(NamedTuple):
    """One event. `id` is the last one that was sent, None before the first."""

    id: str | None
    name: str
    data: str


def read_events(chunks: Iterable[bytes]) -> Iterator[Event | None]:
    """The events in a stream; None stands for a comment, which is a sign of life. An unfinished event is left out.

    Raises TooLong.
    """
    event_id: str | None = None
    name, data, size = "message", list[str](), 0
    for line in _lines(chunks):
        if not line:
            if data:
                yield Event(event_id, name, "\n".join(data))
            name, data, size = "message", [], 0
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        size += len(line)
        if size > MAX_EVENT_CHARACTERS:
            raise TooLong("an event that has no end")
        match field:
            case "":
                yield None
            case "id" if "\0" not in value:
                event_id = value
            case "event":
                name = value or "message"
            case "data":
                data.append(value)
            case _:
                pass  # `retry` is for browsers; any other field is to be ignored.


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines that have ended, by LF, CR LF or CR."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
    rest, after_return = "", False
    for chunk in chunks:
        text = decoder.decode(chunk)
        if after_return and text:
            text = text.removeprefix("\n")
            after_return = False
        if text.endswith("\r"):
            after_return = True
        *lines, rest = (rest + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        yield from lines
        if len(rest) > MAX_EVENT_CHARACTERS:
            raise TooLong("an event that has no end")
