"""The Markdown of the API's descriptions: code, links, paragraphs, lists. Pure.

The template creates the elements and escapes the text. Only anchors of the page and https addresses are links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_INLINE: Final = re.compile(r"`(?P<code>[^`]+)`|\[(?P<label>[^\]]+)\]\((?P<href>#[\w-]+|https://[^\s)]+)\)")


@dataclass(frozen=True, slots=True)
class Inline:
    """A piece of a line: text or code; `href` makes it a link."""

    text: str
    is_code: bool = False
    href: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, which has one text, or a list."""

    texts: tuple[str, ...]
    is_list: bool = False


def pieces(line: str) -> list[Inline]:
    """Split a line into pieces that together have all of its text."""
    found, end = [], 0
    for match in _INLINE.finditer(line):
        if match.start() > end:
            found.append(Inline(line[end : match.start()]))
        label = match["label"] or ""
        found.append(
            Inline(match["code"], is_code=True)
            if match["code"]
            else Inline(label.strip("`"), is_code=label.startswith("`"), href=match["href"])
        )
        end = match.end()
    return found + ([Inline(line[end:])] if end < len(line) else [])


def blocks(text: str) -> list[Block]:
    """Split a text into paragraphs and lists, and join their wrapped lines."""
    return [_block(part) for part in re.split(r"\n\s*\n", text.strip())]


def _block(part: str) -> Block:
    is_list = part.startswith("- ")
    texts = re.split(r"\n- ", part[2:]) if is_list else [part]
    return Block(tuple(" ".join(one.split()) for one in texts), is_list)
