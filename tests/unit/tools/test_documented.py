"""Every command of a shell block in the documents is run by a test or by CI, or is excused with a reason."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.documented import CHECKOUT, EXCUSED, RUN_BY, RUN_BY_CI, all_blocks, blocks, places, run_by
from tests.support.documents import fences, markdown

BLOCKS = all_blocks()
COMMANDS = [(block, line, text) for block in BLOCKS for line, text in block.commands]


def test_every_command_has_one_place() -> None:
    astray = [
        f"{block.document}:{line}: {text!r} is run by {places(block, text) or 'no test and not excused'}"
        for block, line, text in COMMANDS
        if len(places(block, text)) != 1
    ]
    assert astray == []
    assert len(COMMANDS) > 90


def test_every_excuse_is_of_a_command_that_is_there() -> None:
    begun = [
        (document, start)
        for document, start in EXCUSED
        if any(block.document == document and text.startswith(start) for block, _, text in COMMANDS)
    ]
    assert begun == list(EXCUSED)


@pytest.mark.parametrize("test", RUN_BY)
def test_every_test_that_is_named_takes_what_it_is_to_run(test: str) -> None:
    path, name = test.split("::")
    tree = ast.parse((CHECKOUT / path).read_text(encoding="utf-8"))
    [arguments] = [
        [argument.arg for argument in function.args.args]
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and function.name == name
    ]
    assert "documented" in arguments
    given = run_by(test)
    for document, heading in RUN_BY[test]:
        assert any(block.document == document and heading in ("*", block.heading) for block in given)


def test_ci_runs_what_it_is_said_to_run() -> None:
    lines = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert set(RUN_BY_CI) <= set(lines)


def test_every_fence_is_seen() -> None:
    for path in markdown(CHECKOUT):
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(r"^\W*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(fences(text)), path


def test_a_block_is_split_into_its_commands() -> None:
    text = (
        "# A\n\n## B\n\n```sh\n# no command; none\none 'a; b' \"c && d\" | two \\\n  --x=y#z  # said\n"
        "three & four && five; six\n```\n\n   ```\n   $ no\n```\n\n```\n$ seven; eight\nprinted; not typed\n```\n"
        "\n```json\nnine\n```\n"
    )
    first, second = blocks("x.md", text)
    assert (first.heading, [line for line, _ in first.commands]) == ("B", [7, 9, 9, 9])
    assert [one for _, one in first.commands] == [
        "one 'a; b' \"c && d\" | two \\\n  --x=y#z", "three & four", "five", "six",
    ]  # fmt: skip
    assert second.commands == ((17, "seven"), (17, "eight"))
    assert places(first, "six") == []
