"""The wheel installs alone as the command line, and with its extra as the server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.installation import CHECKOUT, build_wheel, install, run

POLICY: Final = str(CHECKOUT / "config" / "policy.local.yaml")
SERVER_MODULES: Final = ("aiohttp", "fastapi", "kubernetes", "starlette", "structlog", "uvicorn")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def installed(package: str, place: Path) -> Run:
    """Install the package in a new environment; return a function that runs one of its programs."""
    programs = install(package, place)
    return lambda program, *arguments: run(programs / program, *arguments, cwd=place)


@pytest.fixture(scope="module")
def command_line(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return installed(str(wheel), tmp_path_factory.mktemp("command-line"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("version",),
        ("submit", "--help"),
        ("policy", "check", POLICY),
        ("tenants", "render", "--policy", POLICY),
    ],
    ids=" ".join,
)
def test_command_works_without_the_server(command_line: Run, arguments: tuple[str, ...]) -> None:
    answer = command_line("runway", *arguments)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_unreachable_server_is_reported_without_the_server_extra(command_line: Run) -> None:
    answer = command_line("runway", "top", "--once", "--url", "http://127.0.0.1:1")
    assert answer.returncode == 69, answer.stderr


def test_command_line_installs_no_module_of_the_server(command_line: Run) -> None:
    script = f"import importlib.util as u; print([name for name in {SERVER_MODULES} if u.find_spec(name)])"
    assert command_line("python", "-c", script).stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("serve",), ()),
        (("doctor",), ("--policy", POLICY)),
        (("tenants", "apply"), ("--policy", POLICY)),
        (("stop",), ("a reason",)),
        (("resume",), ()),
    ],
)
def test_command_of_the_server_extra_is_named_without_it(
    command_line: Run, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    answer = command_line("runway", *command, *options)
    assert answer.returncode == 2
    assert (
        answer.stderr == f"Error: `runway {' '.join(command)}` needs the server's packages: pip install '.[server]'\n"
    )


def test_server_extra_installs_the_server(wheel: Path, tmp_path: Path) -> None:
    run_program = installed(f"{wheel}[server]", tmp_path)
    assert run_program("runway", "serve", "--help").returncode == 0
    imported = run_program("python", "-W", "error", "-c", "import runway.app, runway.http_server.protocol")
    assert imported.returncode == 0, imported.stderr
