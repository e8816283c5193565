"""Texts of the repository avoid the words that the language rules forbid."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).parents[2]
CHECKED: Final = (
    "*",
    ".github/**/*",
    "bench/**/*",
    "config/**/*",
    "demo/**/*",
    "deploy/**/*",
    "docs/**/*",
    "infra/**/*",
    "localcluster/**/*",
    "scripts/**/*",
    "src/**/*",
    "testbed/**/*",
    "tests/**/*",
)
"""Globs of the checked files."""
UNCHECKED: Final = "tests/unit/test_language.py"  # It has the words.
SUFFIXES: Final = {".css", ".go", ".hcl", ".html", ".js", ".md", ".py", ".sh", ".tf", ".toml", ".yaml", ".yml"}
NAMES: Final = {"Dockerfile", "Makefile"}
"""Files without a suffix that are checked."""
FORBIDDEN: Final = (
    "told", "stand", "stands", "stood", "standing", "anew", "so many", "whoever", "for want of", "all the same",
    "go on", "goes on", "going on", "went on", "mend", "mends", "mended", "mending", "by itself", "in good order",
    "for good", "made past", "seldom", "take in", "takes in", "taken in", "taking in", "took in",
)  # fmt: skip

# A phrase may continue on the next line of a text or comment.
_FORBIDDEN: Final = re.compile(rf"\b(?:{'|'.join(FORBIDDEN)})\b".replace(" ", r"[\s#]+"), re.IGNORECASE)


def files(patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files with prose."""
    for path in sorted({path for pattern in patterns for path in CHECKOUT.glob(pattern)}):
        name = str(path.relative_to(CHECKOUT))
        if (path.suffix in SUFFIXES or path.name in NAMES) and "/." not in name and name != UNCHECKED:
            yield path


def prose(source: str) -> str:
    """Return the comments and strings of a Python source on their lines."""
    lines = [""] * (source.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if tokenize.tok_name[token.type] in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            for number, part in enumerate(token.string.split("\n"), start=token.start[0]):
                lines[number - 1] += f"{part} "
    return "\n".join(lines)


def violations(name: str, source: str) -> list[str]:
    """Return the forbidden words of a file as `path:line: words`."""
    if not _FORBIDDEN.search(source):
        return []
    text = prose(source) if name.endswith(".py") else source
    found = []
    for match in _FORBIDDEN.finditer(text):
        words = re.sub(r"[\s#]+", " ", match[0]).lower()
        line = text.count("\n", 0, match.start()) + 1
        found.append(f"{name}:{line}: {words}")
    return found


def test_texts_have_no_forbidden_words() -> None:
    names = {path: str(path.relative_to(CHECKOUT)) for path in files(CHECKED)}
    found = [each for path, name in names.items() for each in violations(name, path.read_text(encoding="utf-8"))]
    assert len(names) > 100
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("a.md", "One.\nIt stands\nfor\ngood.", ["a.md:2: stands", "a.md:3: for good"]),
        ("a.py", "told = 1  # Whoever\n", ["a.py:1: whoever"]),
        ("a.py", '# goes\n# on\nx = f"{name} anew"\n', ["a.py:1: goes on", "a.py:3: anew"]),
        ("a.py", "standard = 'understand, forgone'\n", []),
    ],
)
def test_forbidden_words_are_found_in_prose(name: str, source: str, expected: list[str]) -> None:
    assert violations(name, source) == expected
