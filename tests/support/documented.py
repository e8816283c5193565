"""Shell blocks of the documents, for the tests that run them as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from testbed.waiting import GUARD_SECONDS

CHECKOUT: Final = Path(__file__).parents[2]
FENCE: Final = re.compile(r"^ *(`{3,})([a-z]*)\n(.*?)^ *\1$", re.DOTALL | re.MULTILINE)
HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """The commands of a shell block, one a line, without comment lines."""

    document: str
    heading: str
    commands: tuple[str, ...]

    @property
    def script(self) -> str:
        """Return the text for a shell."""
        return "\n".join(self.commands)


def blocks(document: str, heading: str | None = None, *, skip: tuple[str, ...] = ()) -> list[Block]:
    """Read the shell blocks under a heading, or all, without the commands that begin with one of `skip`.

    Raises AssertionError if the document has no such block or no such command.
    """
    found = [
        block
        for block in parse(document, (CHECKOUT / document).read_text(encoding="utf-8"))
        if heading in (None, block.heading)
    ]
    assert found, f"{document} has no shell block under {heading}"
    for start in skip:
        assert any(command.startswith(start) for block in found for command in block.commands), f"no {start!r}"
    kept = (
        replace(block, commands=tuple(each for each in block.commands if not each.startswith(skip))) for block in found
    )
    return [block for block in kept if block.commands]


def parse(document: str, text: str) -> list[Block]:
    """Find the blocks marked `sh`. In unmarked blocks a prompt marks the commands."""
    found = []
    for fence in FENCE.finditer(text):
        lines = re.split(r"(?<!\\)\n", fence[3])
        if fence[2] == "sh":
            commands = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        else:
            commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if commands:
            heading = HEADING.findall(FENCE.sub("", text[: fence.start()]))[-1]
            found.append(Block(document, heading, tuple(commands)))
    return found


def code_blocks(document: str, language: str) -> list[str]:
    """Return the text of the blocks in a language. Raises AssertionError if the document has none."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    found = [fence[3] for fence in FENCE.finditer(text) if fence[2] == language]
    assert found, f"{document} has no block of {language}"
    return found


def environment(**more: str) -> dict[str, str]:
    """Return the variables that a shell needs for the programs of this Python and the local kubectl."""
    own = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    path = f"{Path(sys.executable).parent}:{CHECKOUT / '.local' / 'bin'}:{os.environ['PATH']}"
    return {**own, "PATH": path, **more}


def play(
    block: Block, environment: Mapping[str, str], replaced: Mapping[str, str] | None = None, *, cwd: Path = CHECKOUT
) -> subprocess.CompletedProcess[str]:
    """Run a block in one shell, with replacements for regular expressions. Does not check the exit code."""
    script = block.script
    for pattern, text in (replaced or {}).items():
        script = re.sub(pattern, lambda _, text=text: text, script)  # type: ignore[misc]
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
    )


def strict(block: Block) -> Block:
    """Return the block in a form that prints each command and ends at the first one that fails."""
    return replace(block, commands=("set -euxo pipefail", *block.commands))


def played(
    block: Block, environment: Mapping[str, str], replaced: Mapping[str, str] | None = None, *, cwd: Path = CHECKOUT
) -> str:
    """Run a block whose commands must all succeed, and return its output."""
    done = play(strict(block), environment, replaced, cwd=cwd)
    assert done.returncode == 0, f"{block.document}, {block.heading}:\n{done.stderr}\n{done.stdout}"
    return done.stdout
