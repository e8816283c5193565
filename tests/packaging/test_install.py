"""The wheel installs alone as the command line, and with its extra as the server.

Each installation is a fresh virtual environment with the versions of requirements/runtime.txt. uv takes the packages
from its cache, and asks the package index only when the cache lacks one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).parents[2]
UV: Final = CHECKOUT / ".local" / "uv" / "bin" / "uv"
POLICY: Final = str(CHECKOUT / "config" / "policy.local.yaml")
SERVER_MODULES: Final = ("aiohttp", "fastapi", "kubernetes", "starlette", "structlog", "uvicorn")

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables that would let it see this checkout or its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUNWAY_", "VIRTUAL_"))}
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory, cwd=CHECKOUT)
    assert built.returncode == 0, built.stderr
    [wheel] = directory.glob("*.whl")
    return wheel


def installed(package: str, place: Path) -> Run:
    """Install the package in a new environment; return a function that runs one of its programs."""
    environment = place / "venv"
    made = run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=place)
    assert made.returncode == 0, made.stderr
    constraints = CHECKOUT / "requirements" / "runtime.txt"
    install = (UV, "pip", "install", "--quiet", "--python", environment, "--constraint", constraints)
    offline = run(*install, "--offline", package, cwd=place)
    if offline.returncode:
        online = run(*install, package, cwd=place)
        assert online.returncode == 0, (
            f"uv's cache lacks a package, and the index does not answer:\n{offline.stderr}\n{online.stderr}"
        )
    return lambda program, *arguments: run(environment / "bin" / program, *arguments, cwd=place)


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
    answer = command_line("runway", "ls", "--url", "http://127.0.0.1:1")
    assert answer.returncode == 69, answer.stderr


def test_command_line_installs_no_module_of_the_server(command_line: Run) -> None:
    script = f"import importlib.util as u; print([name for name in {SERVER_MODULES} if u.find_spec(name)])"
    assert command_line("python", "-c", script).stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "options"),
    [(("serve",), ()), (("doctor",), ("--policy", POLICY)), (("tenants", "apply"), ("--policy", POLICY))],
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
