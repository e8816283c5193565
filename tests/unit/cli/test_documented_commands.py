"""Every `runway` command in a shell block of the documents is a valid command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from tests.support.cli import FakeRunway, problem, runway
from tests.support.documented import CHECKOUT, blocks

DOCUMENTS: Final = ("README.md", "docs/operations.md", "docs/runbooks.md")
_COMMAND: Final = re.compile(r"(?:^|[;|(] *)((?:[A-Z_]+=\S+ +)*)runway +([^|;)#]+)")
_OPERATORS: Final = ("policy", "tenants", "serve", "doctor", "stop", "resume")
"""Commands that need files, or the kubeconfig, of the operator."""


def documented() -> list[str]:
    lines = [line for name in DOCUMENTS for block in blocks(name) for line in block.commands]
    return sorted({match[2].strip() for line in lines for match in _COMMAND.finditer(line)})


@pytest.mark.parametrize("command", [each for each in documented() if not each.startswith(_OPERATORS)])
def test_documented_command_is_valid(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = runway(*shlex.split(command), answers=FakeRunway([problem(403, "quota_exceeded")]))
    assert result.exit_code == 1, result.output


def test_commands_are_found() -> None:
    assert any(command.startswith("run ") for command in documented())
    assert any(command.startswith("cancel --all") for command in documented())
    assert (CHECKOUT / "README.md").exists()
