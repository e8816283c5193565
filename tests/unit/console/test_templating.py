"""The Markdown of the API descriptions, as pieces and blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.console.templating import Block, Inline, blocks, pieces


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain", [Inline("plain")]),
        ("", []),
        ("send `limit` now", [Inline("send "), Inline("limit", is_code=True), Inline(" now")]),
        ("a [JobView](#jobview)", [Inline("a "), Inline("JobView", href="#jobview")]),
        ("[`not_found`](#not_found)", [Inline("not_found", is_code=True, href="#not_found")]),
        ("`^(?:[a-z](x))$`", [Inline("^(?:[a-z](x))$", is_code=True)]),
        ("[q](https://kubernetes.io/docs/)", [Inline("q", href="https://kubernetes.io/docs/")]),
    ],
)
def test_code_and_links_are_found_in_a_line(line: str, expected: list[Inline]) -> None:
    assert pieces(line) == expected


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "http://elsewhere.example", "//elsewhere.example", "/x", "#a b"]
)
def test_only_anchors_and_https_addresses_are_links(target: str) -> None:
    assert pieces(f"[x]({target})") == [Inline(f"[x]({target})")]


def test_paragraphs_and_lists_are_separated_and_their_lines_joined() -> None:
    text = "One\nline.\n\n- first\n  continues\n- second\n\nThe end."
    assert blocks(text) == [
        Block(("One line.",)),
        Block(("first continues", "second"), is_list=True),
        Block(("The end.",)),
    ]


@given(st.text(alphabet="ab`[]()#:/- \n", max_size=40))
def test_no_text_is_lost(text: str) -> None:
    letters = [letter for letter in text if letter in "ab"]
    shown = "".join(
        piece.text + (piece.href or "") for block in blocks(text) for one in block.texts for piece in pieces(one)
    )
    assert [letter for letter in shown if letter in "ab"] == letters
