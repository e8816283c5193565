"""Which test runs which shell block of the documents, what CI runs itself, and why the other commands are run by none.

A test that is named here takes its blocks from the fixture `documented`, so that it runs what the documents say now.
tests/unit/tools/test_documented.py holds that every command of a shell block has exactly one place here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.support.documents import fences, markdown, section

CHECKOUT: Final = Path(__file__).parents[2]

RUN_BY: Final = {
    "tests/cluster/test_cli.py::test_the_session_in_the_documents_can_be_played": [("docs/session.md", "A session")],
    "tests/cluster/test_deployed.py::test_it_is_installed_as_the_document_says": [("docs/operations.md", "Deploy")],
    "tests/cluster/test_deployed.py::test_monitoring_is_installed_as_the_document_says": [
        ("docs/operations.md", "Monitoring")
    ],
    "tests/cluster/test_deployed.py::test_what_the_runbooks_look_at_can_be_looked_at": [("docs/runbooks.md", "*")],
    "tests/cluster/test_readme.py::test_the_calls_of_the_reference_work_as_they_stand": [("docs/api.md", "*")],
    "tests/cluster/test_readme.py::test_what_a_newcomer_types_works": [("README.md", "Use it")],
    "tests/cluster/test_emergency_stop.py::test_the_commands_of_the_document_are_all_that_an_operator_needs": [
        ("docs/operations.md", "Emergency stop")
    ],
    "tests/terraform/test_evaluated.py::test_the_documents_commands_work_on_what_needs_no_provider": [
        ("infra/terraform/README.md", "Init, plan, apply"),
        ("infra/terraform/README.md", "Destroy"),
    ],
}
"""The test, and the blocks that it runs: their document and the heading they stand under, `*` for any."""

RUN_BY_CI: Final = ("make test",)

EXCUSED: Final = {
    ("README.md", "make demo"): "test_demo.py plays its scenarios, each by itself; all of them again take minutes",
    ("docs/demo.md", "make demo"): "as in README.md",
    ("docs/operations.md", "docker build"): "needs a Docker daemon; test_deployed.py builds this Dockerfile by buildah",
    ("docs/operations.md", "docker push"): "needs a registry",
    (
        "docs/operations.md",
        "helm repo add",
    ): "needs Helm and the chart's repository; the text says it was not installed",
    ("docs/operations.md", "helm upgrade"): "the same",
    ("docs/operations.md", "kubectl -n monitoring port-forward"): "needs what the chart installs, and does not end",
    ("docs/runbooks.md", "kubectl -n runway port-forward"): "does not end; the test has its own way to the pod",
    ("docs/runbooks.md", "kubectl -n runway top pod"): "needs a metrics server",
    ("docs/runbooks.md", "kubectl -n kube-system logs deployment/cluster-autoscaler"): "it is only on EKS",
    ("infra/terraform/README.md", "kubectl delete jobs"): "would end the jobs of all other tests",
    ("infra/terraform/README.md", "kubectl delete -k"): "what it deletes is only on EKS",
}
"""How a command begins that is not run, by its document, and why not."""

SHELLS: Final = ("sh", "bash", "shell", "console")

# A quotation, an escaped character or line end, or anything that does not end a command; comments apart.
_COMMAND = re.compile(
    r"""(?<!\S)\#[^\n]*|((?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?<!&)&(?!&)|(?<=\S)\#|[^'"\\;&\n#])+)""", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """The commands of a shell block, as (line in the document, text); a loop's `for`, `do` and `done` are one each."""

    document: str
    heading: str
    commands: tuple[tuple[int, str], ...]

    @property
    def script(self) -> str:
        """What a shell can run. Line by line the same commands, without comments."""
        return "\n".join(text for _, text in self.commands)


def blocks(document: str, text: str) -> list[Block]:
    """The shell blocks of a document: those marked as such, and of unmarked ones what follows a prompt."""
    found = []
    for start, language, body in fences(text):
        prompts = re.findall(r"^\$ .*", body, re.MULTILINE)
        if language not in SHELLS and not prompts:
            continue
        # Lines that were printed are left empty, so that the others keep their numbers.
        typed = re.sub(r"^(\$ )?(.*)$", lambda line: line[2] if line[1] else "", body, flags=re.MULTILINE)
        found.append(Block(document, section(text, start), tuple(_commands(typed if prompts else body, text, start))))
    return found


def _commands(body: str, text: str, start: int) -> list[tuple[int, str]]:
    first = text.count("\n", 0, start) + 2
    found = [(one.start(1), one[1]) for one in _COMMAND.finditer(body) if one[1] and one[1].strip()]
    return [(first + body.count("\n", 0, at + len(one) - len(one.lstrip())), one.strip()) for at, one in found]


def all_blocks() -> list[Block]:
    """Those of every document."""
    paths = {str(path.relative_to(CHECKOUT)): path for path in markdown(CHECKOUT)}
    return [block for name, path in paths.items() for block in blocks(name, path.read_text(encoding="utf-8"))]


def places(block: Block, text: str) -> list[str]:
    """Where a command has its place: the test that runs it, CI, or the excuse. It is to be one."""
    excuses = [
        why for (document, start), why in EXCUSED.items() if document == block.document and text.startswith(start)
    ]
    return excuses or [*[ci for ci in RUN_BY_CI if text == ci], *[test for test in RUN_BY if _runs(test, block)]]


def run_by(test: str) -> tuple[Block, ...]:
    """The blocks that this test is to run, without what is excused."""
    left = (
        replace(block, commands=tuple(command for command in block.commands if places(block, command[1]) == [test]))
        for block in all_blocks()
    )
    return tuple(block for block in left if block.commands)


def _runs(test: str, block: Block) -> bool:
    return any(block.document == document and heading in ("*", block.heading) for document, heading in RUN_BY[test])


def environment(**more: str) -> dict[str, str]:
    """What a shell needs to find this Python's programs and the local kubectl, and nothing else of the caller's."""
    own = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    path = f"{Path(sys.executable).parent}:{CHECKOUT / '.local' / 'bin'}:{os.environ['PATH']}"
    return {**own, "PATH": path, **more}


def play(
    block: Block, environment: Mapping[str, str], replaced: Mapping[str, str] | None = None, *, cwd: Path = CHECKOUT
) -> subprocess.CompletedProcess[str]:
    """Run a block in one shell, as typed, with text in place of what these patterns match. Its end is not judged."""
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
        timeout=120,
        check=False,
    )


def played(
    block: Block, environment: Mapping[str, str], replaced: Mapping[str, str] | None = None, *, cwd: Path = CHECKOUT
) -> str:
    """What a block prints each of whose commands must succeed."""
    strict = replace(block, commands=((0, "set -euxo pipefail"), *block.commands))
    done = play(strict, environment, replaced, cwd=cwd)
    assert done.returncode == 0, f"{block.document}, {block.heading}:\n{done.stderr}\n{done.stdout}"
    return done.stdout
