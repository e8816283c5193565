"""What the documents name is there: files, headings, make targets, commands with their options, modules, variables."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer

from runway.cli.main import app
from runway.jobs.spec import RESERVED_ENV_PREFIXES
from runway.settings import Settings
from tests.support.documents import anchors, commands, links, markdown, prose

ROOT = Path(__file__).parents[3]
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in markdown(ROOT)}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MADE_VARIABLES = {"CHECK", "DEPLOYED", "KUBECONFIG", "RUNWAY_POLICY"}

documents = pytest.mark.parametrize("name", DOCUMENTS, ids=str)


@documents
def test_every_link_leads_somewhere(name: str) -> None:
    broken = []
    for link in links(DOCUMENTS[name]):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@documents
def test_every_command_is_there(name: str) -> None:
    faults = [fault for words in commands(DOCUMENTS[name]) for fault in faults_of(words)]
    assert faults == []


@documents
def test_every_variable_is_there(name: str) -> None:
    named = set(re.findall(r"\bRUNWAY_[A-Z][A-Z_]*[A-Z]\b", DOCUMENTS[name]))
    settings = {f"RUNWAY_{field.upper()}" for field in Settings.model_fields}
    read = "".join(path.read_text(encoding="utf-8") for place in ("src", "tests", "Makefile") for path in _code(place))
    assert [variable for variable in sorted(named - settings) if f'"{variable}"' not in read] == []


@documents
def test_every_setting_that_is_named_as_a_field_of_a_table_exists(name: str) -> None:
    rows = re.findall(r"^\| `(RUNWAY_[A-Z_]+)`", prose(DOCUMENTS[name]), re.MULTILINE)
    assert set(rows) <= {f"RUNWAY_{field.upper()}" for field in Settings.model_fields}


def test_what_is_not_there_is_found() -> None:
    text = "```sh\nmake nonsense && FOO=1 runway submit --no-such-option x | python -m demo.nothing\n```\n`runway fly`"
    assert [fault for words in commands(text) for fault in faults_of(words)] == [
        "make nonsense", "runway submit: --no-such-option", "python -m demo.nothing", "runway fly",
    ]  # fmt: skip
    assert anchors("# A `b`, c?\n\n## x\n\n## x\n") == {"a-b-c", "x", "x-1"}
    assert links("[a](b.md#c) `[d](e)` ![f](g.svg)\n\n```\n[h](i)\n```\n") == ["b.md#c", "g.svg"]


def faults_of(words: list[str]) -> list[str]:
    """What of a command is not there; commands of other projects have no faults."""
    program, *rest = words
    if program == "make":
        return [f"make {word}" for word in rest if not _made(word)]
    if program.removeprefix(".venv/bin/") == "runway":
        return _faults_of_cli(rest)
    if program.startswith("python") and rest[:1] == ["-m"] and rest[1:2]:
        return [] if _module(rest[1]) else [f"python -m {rest[1]}"]
    if program.startswith("tests/") and program.endswith(".py"):
        return [] if (ROOT / program).exists() else [program]
    return []


def _made(word: str) -> bool:
    variable, equals, _ = word.partition("=")
    return word in TARGETS or (bool(equals) and variable in MADE_VARIABLES)


def _module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _faults_of_cli(words: list[str]) -> list[str]:
    """Walk down the tree of subcommands, then look each option up. A word in capitals stands for any."""
    command = typer.main.get_command(app)
    path = ["runway"]
    while words and hasattr(command, "commands"):
        if words[0].startswith("-") or words[0] in ("…", "...") or words[0].isupper():
            break
        if words[0] not in command.commands:
            return [" ".join([*path, words[0]])]
        command = command.commands[words[0]]
        path.append(words.pop(0))
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"-h", "--help"}
    own = words[: words.index("--")] if "--" in words else words
    given = [word.partition("=")[0] for word in own if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]
    return [f"{' '.join(path)}: {option}" for option in given if option not in known]


def _code(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def test_reserved_names_are_those_of_the_reference() -> None:
    assert all(f"`{prefix}`" in DOCUMENTS["docs/api.md"] for prefix in RESERVED_ENV_PREFIXES)


def test_the_specification_names_every_code_that_callers_can_meet() -> None:
    documented = set(re.findall(r"^### ([a-z_]+)$", DOCUMENTS["docs/api.md"], re.MULTILINE))
    table = set(
        re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| [45].*", DOCUMENTS["docs/project_spec.md"], re.MULTILINE)))
    )
    assert documented - table == set()
