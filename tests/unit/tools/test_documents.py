"""Links in the documents resolve, and the environment variables in them exist."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from runway.api.openapi import public_errors
from runway.errors import PublicError
from runway.settings import Settings
from tests.support.documented import CHECKOUT, FENCE, HEADING, parse

DOCUMENTS = {
    str(path.relative_to(CHECKOUT)): path.read_text(encoding="utf-8")
    for pattern in ("*.md", ".github/*.md", "docs/**/*.md", "deploy/**/*.md", "infra/**/*.md")
    for path in sorted(CHECKOUT.glob(pattern))
}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")

document = pytest.mark.parametrize("name", DOCUMENTS, ids=str)


def links(text: str) -> list[str]:
    """Return the targets of links and images outside code."""
    prose = re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))
    return [link or image for link, image in LINK.findall(prose)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings; a repeated heading gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def resolves(name: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (CHECKOUT / name).parent / path if path else CHECKOUT / name
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


@document
def test_relative_links_and_anchors_resolve(name: str) -> None:
    relative = [link for link in links(DOCUMENTS[name]) if not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if not resolves(name, link)] == []


REMOVED_SETTINGS = {"RUNWAY_DRAIN_SECONDS"}
"""Settings of earlier versions, which the changelog names."""


@document
def test_environment_variables_exist(name: str) -> None:
    named = set(re.findall(r"\bRUNWAY_[A-Z][A-Z_]*[A-Z]\b", DOCUMENTS[name]))
    settings = {f"RUNWAY_{field.upper()}" for field in Settings.model_fields}
    paths: list[Path] = [CHECKOUT / "Makefile", *(CHECKOUT / "src").rglob("*.py"), *(CHECKOUT / "tests").rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in paths)
    assert [variable for variable in sorted(named - settings - REMOVED_SETTINGS) if f'"{variable}"' not in code] == []


def test_broken_links_are_found() -> None:
    assert anchors("# A `b`, c?\n\n## x\n\n## x\n") == {"a-b-c", "x", "x-1"}
    assert links("[a](b.md#c) `[d](e)` ![f](g.svg)\n\n```\n[h](i)\n```\n") == ["b.md#c", "g.svg"]
    assert not resolves("README.md", "nosuch.md")
    assert not resolves("README.md", "#nosuch")


def test_shell_blocks_are_split_into_commands() -> None:
    text = (
        "# A\n\n## B\n\n```sh\n# comment\none 'a' | two \\\n  --x=y  # comment\n\nthree && four\n```\n\n"
        "```\n$ five\nprinted\n```\n\n```json\nsix\n```\n"
    )
    first, second = parse("x.md", text)
    assert first.heading == "B"
    assert first.commands == ("one 'a' | two \\\n  --x=y  # comment", "three && four")
    assert second.commands == ("five",)


def test_specification_names_every_error_code() -> None:
    codes = {error.code for error in public_errors(PublicError)} - {"internal_error"}
    rows = re.findall(r"^\| [45].*", DOCUMENTS["docs/project_spec.md"], re.MULTILINE)
    assert codes - set(re.findall(r"`([a-z_]+)`", "".join(rows))) == set()
