"""The little Markdown of the API's descriptions, taken apart for a template: code, links, paragraphs, lists. Pure.

The template makes the elements and escapes the text. Only anchors of the page and https addresses are links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_INLINE: Final = re.compile(r"`(?P<code>[^`]+)`|\[(?P<label>[^\]]+)\]\((?P<href>#[\w-]+|https://[^\s)]+)\)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a line: text or code, and where it leads to, if it is a link."""

    text: str
    is_code: bool = False
    href: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, which has one text, or a list."""

    texts: tuple[str, ...]
    is_list: bool = False


def pieces(line: str) -> list[Piece]:
    """The pieces of a line, in order; together they have all of its text."""
    found, end = [], 0
    for match in _INLINE.finditer(line):
        if match.start() > end:
            found.append(Piece(line[end : match.start()]))
        label = match["label"] or ""
        found.append(
            Piece(match["code"], is_code=True)
            if match["code"]
            else Piece(label.strip("`"), is_code=label.startswith("`"), href=match["href"])
        )
        end = match.end()
    return found + ([Piece(line[end:])] if end < len(line) else [])


def blocks(text: str) -> list[Block]:
    """The paragraphs and lists of a text; what is one line to a reader is one line."""
    return [_block(part) for part in re.split(r"\n\s*\n", text.strip())]


def _block(part: str) -> Block:
    is_list = part.startswith("- ")
    texts = re.split(r"\n- ", part[2:]) if is_list else [part]
    return Block(tuple(" ".join(one.split()) for one in texts), is_list)
