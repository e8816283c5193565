"""What Markdown documents name: links, headings, commands. Only what these documents use of Markdown is known."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_FENCE = re.compile(r"^ *(`{3,})([a-z]*)\n(.*?)^ *\1$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_SEPARATORS = ("&&", "||", "|", ";", "&", "(", ")")
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*")
_REDIRECTION = re.compile(r"[0-9]?[<>].*")


def fences(text: str) -> list[tuple[int, str, str]]:
    """Code blocks: where each begins in the text, its language, its body."""
    return [(found.start(), found[2], found[3]) for found in _FENCE.finditer(text)]


def section(text: str, position: int) -> str:
    """The heading that this position stands under."""
    headings: list[str] = _HEADING.findall(_FENCE.sub("", text[:position]))
    return headings[-1]


def prose(text: str) -> str:
    """The document without its code blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Where links and pictures lead."""
    return [next(filter(None, groups)) for groups in _LINK.findall(_CODE.sub("", prose(text)))]


def anchors(text: str) -> set[str]:
    """The headings as GitHub names them in links: one that is repeated gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(prose(text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in blocks marked `sh` and in code within sentences, less assignments before it."""
    blocks = [body for _, language, body in fences(text) if language == "sh"]
    for block in blocks:
        for line in re.sub(r"\\\n", " ", block).splitlines():
            yield from _commands(line)
    for span in _CODE.findall(prose(text)):
        yield from _commands(span)


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # A quotation that goes on in the next line: no command of this project.
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _SEPARATORS:
            if command:
                yield command
            command = []
        elif command or not _ASSIGNMENT.fullmatch(word):
            command.append(word)


def markdown(root: Path) -> list[Path]:
    """The documents of the project: those at its root, in docs/, and the READMEs of its parts."""
    return sorted(
        [
            *root.glob("*.md"),
            *root.glob("docs/*.md"),
            *root.glob("deploy/**/README.md"),
            *root.glob("infra/**/README.md"),
        ]
    )
